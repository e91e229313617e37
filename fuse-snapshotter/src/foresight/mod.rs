//! What a container will read: recorded from an earlier start, or forecast from the image itself.

pub(crate) mod forecast;
pub mod recorded;
