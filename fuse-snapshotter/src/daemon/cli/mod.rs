//! The program `soci-snapshotter-grpc`. Without a command it is the daemon; `mount` mounts an image lazily, without
//! containerd.
//!
//! It is in the library, and not in the program, so that it is compiled only once.

mod args;
mod config;
mod doctor;
mod mount;
mod output;
mod serve;
mod status;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use soci_index::manual::{self, Section};
use tracing::level_filters::LevelFilter;

use crate::daemon::config::Config;
use crate::daemon::logging::{self, LogOptions};
use args::{Cli, Command, ConfigCommand};
use output::{fail, print};

/// How long threads may take to finish what they are at when the program ends.
const EXIT: Duration = Duration::from_secs(5);

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let outcome = match cli.command.take() {
        None => daemon(&cli),
        Some(Command::Config(ConfigCommand::Containerd(args))) => run(config::containerd(&cli, &args)),
        Some(Command::Config(command)) => config::run(cli.config.as_deref(), &command),
        Some(Command::Doctor(args)) => match run(doctor::run(&cli, args)) {
            Ok(well) => return if well { ExitCode::SUCCESS } else { ExitCode::FAILURE },
            Err(error) => Err(error),
        },
        Some(Command::Status { json }) => run(status::run(&cli.address, json)),
        Some(Command::Completion(args)) => print(&manual::completion(args::NAME, Cli::command(), args.shell)),
        Some(Command::Man(args)) => {
            manual::write_pages(Cli::command(), Section::Daemons, &args.directory).map_err(Into::into)
        }
        Some(Command::HoldUserNamespace) => serve::hold_user_namespace(),
        Some(Command::Mount(args)) => {
            let level = cli.log_level.unwrap_or(LevelFilter::WARN);
            logging::init(LogOptions { level, fuse_operations: false });
            run(mount::run(cli.root, args))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Runs the daemon.
fn daemon(cli: &Cli) -> anyhow::Result<()> {
    let loaded = Config::load(cli.config.as_deref())?;
    let usual = if loaded.config.debug() { LevelFilter::DEBUG } else { LevelFilter::INFO };
    logging::init(LogOptions {
        level: cli.log_level.unwrap_or(usual),
        fuse_operations: loaded.config.log_fuse_operations(),
    });
    loaded.log();
    serve::check(&loaded.config)?;
    run(serve::run(cli, &loaded.config))
}

/// Runs to the end, or to the first error.
fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::from(error).context("cannot start"))?;
    let outcome = runtime.block_on(work);
    // Reads that nobody waits for any more must not hold up the exit. But a thread of ours that asks our own file system
    // for something has to get its answer: nobody can give it one after the exit, and the process would never be gone.
    runtime.shutdown_timeout(EXIT);
    outcome
}
