//! `soci-snapshotter-grpc config`: of the daemon, and of containerd.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::args::{Cli, ConfigCommand, ContainerdArgs, ContainerdConfigArgs, socket};
use super::output::print;
use crate::daemon::config::{Config, DEFAULT_PATH, NoteKind, Severity};
use crate::daemon::node::Running;
use crate::daemon::node::containerd_config::{ROOT, containerd_config};

pub(super) fn run(path: Option<&Path>, command: &ConfigCommand) -> anyhow::Result<()> {
    let text = match command {
        ConfigCommand::Default => Config::default_toml(),
        ConfigCommand::Dump => {
            let loaded = Config::load(path)?;
            let path = loaded.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH)).display();
            for note in &loaded.notes {
                let kind = match note.kind {
                    NoteKind::Unknown { .. } => "warning",
                    NoteKind::NoEffect { .. } => "note",
                };
                say(kind, &format_args!("{path}, {note}"));
            }
            for problem in loaded.config.problems() {
                let kind = match problem.severity {
                    Severity::Warning => "warning",
                    Severity::Error => "error",
                };
                say(kind, &problem);
            }
            loaded.config.to_toml().context("cannot write the configuration")?
        }
        // It asks containerd, and so is no matter of files alone.
        ConfigCommand::Containerd(_) => return Ok(()),
    };
    print(text.as_bytes())
}

/// Prints the configuration for containerd.
pub(super) async fn containerd(cli: &Cli, args: &ContainerdConfigArgs) -> anyhow::Result<()> {
    let version = match args.containerd_version {
        Some(version) => version,
        None => {
            // A configuration that is broken is another matter.
            let config = Config::load(cli.config.as_deref()).map(|loaded| loaded.config).unwrap_or_default();
            let address = containerd_address(&args.containerd, &config);
            let running = Running::find(&address.to_string_lossy()).await.map_err(|why| {
                anyhow::anyhow!("the version of containerd is not known ({why}); say it by --version")
            })?;
            say("note", &format_args!("for containerd {}: {}", running.version, running.source));
            running.version
        }
    };
    // Not the root of whoever runs this: it is the daemon's, which runs as root.
    let root = cli.root.as_deref().unwrap_or(Path::new(ROOT));
    let (socket, root) = (std::path::absolute(socket(&cli.address))?, std::path::absolute(root)?);
    print(containerd_config(version, args.config_version, &socket, &root)?.as_bytes())
}

/// containerd's socket: as the command line, or else the daemon's configuration says.
pub(super) fn containerd_address(args: &ContainerdArgs, config: &Config) -> PathBuf {
    let Some(given) = &args.containerd_address else { return config.containerd_address() };
    given.strip_prefix("unix://").map_or_else(|_| given.clone(), |path| Path::new("/").join(path))
}

fn say(kind: &str, text: &dyn std::fmt::Display) {
    // The configuration is what was asked for; it is printed even if nobody hears what is said about it.
    let _ = writeln!(std::io::stderr().lock(), "{kind}: {text}");
}
