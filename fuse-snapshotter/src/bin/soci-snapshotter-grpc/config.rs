//! `soci-snapshotter-grpc config`.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use fuse_snapshotter::config::Config;

use crate::args::ConfigCommand;

pub(crate) fn run(path: Option<&Path>, command: ConfigCommand) -> anyhow::Result<()> {
    let text = match command {
        ConfigCommand::Default => Config::default_toml(),
        ConfigCommand::Dump => {
            let loaded = Config::load(path)?;
            for note in &loaded.notes {
                warn(note);
            }
            for problem in loaded.config.problems() {
                warn(&problem);
            }
            loaded.config.to_toml().context("cannot write the configuration")?
        }
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot print the configuration"),
    }
}

fn warn(text: &dyn std::fmt::Display) {
    // The configuration is what was asked for; it is printed even if nobody hears the warnings.
    let _ = writeln!(std::io::stderr().lock(), "warning: {text}");
}
