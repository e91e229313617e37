//! One module per command.

pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod index;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod ztoc;
