//! Logs of the daemon, on standard error: text for people on a terminal, JSON lines for collectors elsewhere.
//!
//! Only this project's crates log at the chosen level. What the HTTP and TLS libraries say below warnings has headers
//! in it, and with them credentials. Others are silent altogether: what `fuser` calls an error is mostly a program that
//! did not wait for its answer, and the Kubernetes client has its errors said by `keychain`, with advice.

mod json;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterFn, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use json::JsonLayer;

/// The crates of this project.
const OWN: [&str; 6] =
    ["containerd_api", "fuse_snapshotter", "kubernetes_logins", "registry", "soci_index", "ztoc"];

/// Which crate reports requests of the kernel, at level debug.
const FUSE: &str = "fuser";

/// Crates whose logs are of no use.
const SILENT: [&str; 2] = ["kube_client", "kube_runtime"];

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// The level for everything of this project.
    pub level: LevelFilter,
    /// Log every request of the kernel, whatever the level.
    pub fuse_operations: bool,
}

impl LogOptions {
    /// Which events are logged.
    #[must_use]
    pub fn filter(self) -> Targets {
        let fuse = if self.fuse_operations { LevelFilter::DEBUG } else { LevelFilter::OFF };
        Targets::new()
            .with_default(self.level.min(LevelFilter::WARN))
            .with_targets(OWN.map(|target| (target, self.level)))
            .with_targets(SILENT.map(|target| (target, LevelFilter::OFF)))
            .with_target(FUSE, fuse)
    }
}

/// Lets only requests through of what the FUSE library says: not its complaints.
fn requests_only() -> FilterFn {
    let is_request =
        |metadata: &Metadata<'_>| !metadata.target().starts_with(FUSE) || *metadata.level() >= Level::DEBUG;
    filter_fn(is_request)
}

/// Begins to log, for the whole process. A second call changes nothing.
pub fn init(options: LogOptions) {
    let subscriber = tracing_subscriber::registry().with(options.filter()).with(requests_only());
    // Fails only if somebody else, such as a test, has set up logging already; then that is what is wanted.
    let _ = if std::io::stderr().is_terminal() {
        let text =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_target(false);
        subscriber.with(text).try_init()
    } else {
        subscriber.with(JsonLayer::new(std::io::stderr)).try_init()
    };
}
