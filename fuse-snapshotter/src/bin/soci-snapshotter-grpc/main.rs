//! The SOCI snapshotter's program. Without a command it is the daemon; `mount` mounts an image lazily, without
//! containerd.

mod args;
mod config;
mod daemon;
mod doctor;
mod mount;
mod status;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use fuse_snapshotter::daemon::config::Config;
use fuse_snapshotter::daemon::logging::{self, LogOptions};
use soci_index::manual::{self, Section};
use tracing::level_filters::LevelFilter;

use args::{Cli, Command, ConfigCommand};

/// How long threads may take to finish what they are at when the program ends.
const EXIT: Duration = Duration::from_secs(5);

/// musl's allocator has one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
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
        Some(Command::HoldUserNamespace) => daemon::hold_user_namespace(),
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

fn daemon(cli: &Cli) -> anyhow::Result<()> {
    let loaded = Config::load(cli.config.as_deref())?;
    let usual = if loaded.config.debug() { LevelFilter::DEBUG } else { LevelFilter::INFO };
    logging::init(LogOptions {
        level: cli.log_level.unwrap_or(usual),
        fuse_operations: loaded.config.log_fuse_operations(),
    });
    loaded.log();
    daemon::check(&loaded.config)?;
    run(daemon::run(cli, &loaded.config))
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

/// Prints what was asked for.
fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

#[allow(clippy::print_stderr)]
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors end with their cause already.
        if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    eprintln!("soci-snapshotter-grpc: {message}");
    ExitCode::FAILURE
}
