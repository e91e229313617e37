//! What the doctor is to look at.

use std::path::PathBuf;

use registry::Reference;

use crate::daemon::config::{ConfigError, Loaded};
use crate::daemon::node::version::ContainerdVersion;

/// What to look at.
#[derive(Debug)]
pub struct Options {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The daemon's root directory, if no daemon answers that says it.
    pub root: PathBuf,
    /// The daemon's configuration.
    pub config: Result<Loaded, ConfigError>,
    /// containerd's socket.
    pub containerd_address: PathBuf,
    /// containerd's configuration; `None` for the one that it was started with.
    pub containerd_config: Option<PathBuf>,
    /// The version of containerd to assume; `None` for the one that runs.
    pub containerd_version: Option<ContainerdVersion>,
    /// The name under which containerd has the snapshotter.
    pub snapshotter: String,
    /// Images to look for in their registries.
    pub images: Vec<Reference>,
}
