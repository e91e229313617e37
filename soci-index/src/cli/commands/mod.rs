//! One module per command.

pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod index;
pub(crate) mod prefetch;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rebuild;
pub(crate) mod record;
pub(crate) mod verify;
pub(crate) mod ztoc;
