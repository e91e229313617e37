//! The doctor: looks at a running node, and says what will not be lazy, why, and what to do.
//!
//! Nothing of the node is changed. Facts are gathered apart from the judgement of them, so that every judgement can be
//! tested without a node that has the fault.
//!
//! | module | looks at |
//! |---|---|
//! | `root` | the daemon's root directory: whether overlayfs takes it, by trying it beside the directory |
//! | `kernel` | what the kernel has, and what the configuration needs of it |
//! | `daemon` | whether a daemon answers, and what it says of itself |
//! | `containerd` | containerd's version, its configuration, and its plugins as they run |
//! | `registry` | images: reachable, with the daemon's logins, in ranges, with an index |
//! | `report` | findings, and how they are shown |

mod containerd;
mod daemon;
mod kernel;
mod options;
mod registry;
mod report;
mod root;

use std::path::Path;

pub use options::Options;
pub use report::{Finding, Report, Subject, Verdict};

use crate::daemon::config::{Config, ConfigError, DEFAULT_PATH, Loaded, Severity};

/// Looks at the node. Findings come in an order in which a cause stands before what follows from it.
pub async fn examine(options: Options) -> Report {
    let mut report = Report::default();
    let config = judge_config(&options.config, &mut report);
    let state = daemon::ask(&options.socket).await;
    let root = state.as_ref().map_or(&options.root, |status| &status.root).clone();
    let checked = root::check(&root, &config);
    root::judge(&root, checked, &mut report);
    let found = containerd::gather(&options).await;
    let needs =
        kernel::Needs { id_mapping: found.maps_ids(&options.snapshotter), ..kernel::Needs::default() };
    kernel::judge(&kernel::Kernel::look(), needs, &mut report);
    daemon::judge(&state, &options.socket, &found, &options.snapshotter, &mut report);
    let own = containerd::Own { socket: &options.socket, root: &root, snapshotter: &options.snapshotter };
    containerd::judge(&found, own, &mut report);
    let pid = state.as_ref().ok().map(|status| status.pid);
    registry::check(&options.images, &config, pid, &mut report).await;
    report
}

/// What is wrong with the daemon's configuration, mirrors included; defaults apply where there is none that can be read.
fn judge_config(loaded: &Result<Loaded, ConfigError>, report: &mut Report) -> Config {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            report.problem(Subject::Configuration, "configuration-unusable", error.to_string()).advise(
                "Correct the file; `soci-snapshotter-grpc config default` has every key with its meaning. The daemon \
                 does not start with it.",
            );
            return Config::default();
        }
    };
    let path = loaded.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH)).display();
    let mut sound = true;
    for note in &loaded.notes {
        report.note(Subject::Configuration, "configuration-in-vain", format!("{path}, {note}"));
    }
    for problem in loaded.config.problems() {
        sound = false;
        let id = match problem.key.as_str() {
            "registry.config_path" => "mirror-unusable",
            key if key.starts_with("resolver.") => "mirror-unusable",
            _ => "configuration-problem",
        };
        match problem.severity {
            Severity::Warning => report.warning(Subject::Configuration, id, problem.to_string()),
            Severity::Error if id == "mirror-unusable" => {
                let message = format!("a mirror cannot be used: {}", problem.message);
                report.problem(Subject::Configuration, id, message).advise(
                    "Correct that file. Until then pulls from this registry fail, and the daemon does not start again.",
                )
            }
            Severity::Error => report.problem(Subject::Configuration, id, problem.to_string()),
        };
    }
    if sound {
        let what =
            if loaded.path.is_some() { format!("{path} can work") } else { "defaults apply".to_owned() };
        report.ok(Subject::Configuration, "configuration", what);
    }
    loaded.config.clone()
}
