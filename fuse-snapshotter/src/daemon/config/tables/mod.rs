//! The tables of `config.toml`, by subject.
//!
//! | module | subject |
//! |---|---|
//! | `http` | how registries are reached |
//! | `reading` | layers that are read lazily: cache, FUSE, background fetch, prefetch |
//! | `pulls` | how images are pulled, and which of their layers are read lazily |
//! | `logins` | logins for registries |

pub(super) mod http;
pub(super) mod logins;
pub(super) mod pulls;
pub(super) mod reading;
