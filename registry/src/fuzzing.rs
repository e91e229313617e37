//! Parsers that are private otherwise, for fuzz targets. It exists only under `--cfg fuzzing`; see `registry/fuzz`.

pub use crate::auth::fuzz as challenge;
pub use crate::hosts::fuzz as hosts_toml;
pub use crate::referrers::{fuzz_add as add_referrer, fuzz_link as next_link, fuzz_list as referrers};
