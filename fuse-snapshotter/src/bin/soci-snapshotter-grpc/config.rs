//! `soci-snapshotter-grpc config`.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use fuse_snapshotter::config::{Config, DEFAULT_PATH, NoteKind, Severity};

use crate::args::ConfigCommand;

pub(crate) fn run(path: Option<&Path>, command: ConfigCommand) -> anyhow::Result<()> {
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
    };
    crate::print(text.as_bytes())
}

fn say(kind: &str, text: &dyn std::fmt::Display) {
    // The configuration is what was asked for; it is printed even if nobody hears what is said about it.
    let _ = writeln!(std::io::stderr().lock(), "{kind}: {text}");
}
