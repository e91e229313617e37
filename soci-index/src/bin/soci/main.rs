//! `soci`: builds, pushes and inspects SOCI indexes.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there"))]

mod app;
mod args;
mod commands;
mod hints;
#[cfg(target_env = "gnu")]
mod memory;
mod output;
mod progress;
mod table;

use std::process::ExitCode;
use std::sync::Arc;

use app::App;
use args::{Cli, Command, IndexCommand, PrefetchCommand, ZtocCommand};
use clap::{CommandFactory, Parser};
use commands::push::Which;
use output::Output;
use soci_index::manual::{self, Section};

/// musl's allocator has one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    memory::give_back();
    let cli = Cli::parse();
    init_logging(cli.globals.debug);
    let output = Arc::new(Output::default());
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let result = runtime.block_on(within(cli, &output));
            // A blocked read of a background task must not delay the end.
            runtime.shutdown_background();
            output.finish(result)
        }
        Err(error) => output.finish(Err(anyhow::Error::new(error).context("cannot start"))),
    }
}

/// Runs the command within `--timeout`.
async fn within(cli: Cli, output: &Arc<Output>) -> anyhow::Result<()> {
    let timeout = cli.globals.timeout;
    if timeout.is_zero() {
        return run(cli, output).await;
    }
    match tokio::time::timeout(timeout, run(cli, output)).await {
        Ok(result) => result,
        Err(_) => anyhow::bail!("not finished within --timeout {timeout:?}"),
    }
}

async fn run(cli: Cli, output: &Arc<Output>) -> anyhow::Result<()> {
    let app = App::new(cli.globals, output);
    match cli.command {
        Command::Create(args) => commands::create::run(&app, args).await,
        Command::Convert(args) => commands::convert::run(&app, *args).await,
        Command::Push(args) => commands::push::run(&app, args, Which::Newest).await,
        Command::Verify(args) => commands::verify::run(&app, args).await,
        Command::Pull(args) => commands::pull::run(&app, args).await,
        Command::Index { command } => match command {
            IndexCommand::List(args) => commands::index::list(&app, args).await,
            IndexCommand::Info(args) => commands::index::info(&app, args).await,
            IndexCommand::Remove(args) => commands::index::remove(&app, args).await,
        },
        Command::Ztoc { command } => match command {
            ZtocCommand::List(args) => commands::ztoc::list(&app, args).await,
            ZtocCommand::Build(args) => commands::ztoc::build(&app, args).await,
            ZtocCommand::Info(args) => commands::ztoc::info(&app, args).await,
            ZtocCommand::GetFile(args) => commands::ztoc::get_file(&app, *args).await,
        },
        Command::RebuildDb => commands::rebuild::run(&app).await,
        Command::Prefetch { command } => match command {
            PrefetchCommand::List(args) => commands::prefetch::list(&app, args).await,
            PrefetchCommand::Info(args) => commands::prefetch::info(&app, args).await,
            PrefetchCommand::Record(args) => commands::record::run(&app, args).await,
            PrefetchCommand::Push(args) => commands::push::run(&app, args, Which::WithPrefetch).await,
        },
        Command::Completion(args) => {
            Ok(output.raw(&manual::completion("soci", Cli::command(), args.shell))?)
        }
        Command::Man(args) => Ok(manual::write_pages(Cli::command(), Section::Commands, &args.directory)?),
    }
}

/// Logs go to stderr: warnings, or everything of ours with `--debug`; `RUST_LOG` decides if it is set.
fn init_logging(debug: bool) {
    let default = if debug { "warn,soci=debug,soci_index=debug,registry=debug,ztoc=debug" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}
