//! A node: containerd beside the daemon, how it is configured, and what is wrong with it.
//!
//! | module | subject |
//! |---|---|
//! | `version` | versions of containerd, and which one runs here |
//! | `containerd_config` | the configuration of containerd that works, for each of its versions |
//! | `containerd_file` | the configuration that containerd has: its file and what that imports |
//! | `doctor` | looks at a node and says what will not be lazy, why, and what to do |

pub mod containerd_config;
pub mod doctor;

mod containerd_file;
mod version;

pub use version::{ContainerdVersion, Running, RunningError, VersionError};
