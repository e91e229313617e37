//! The SOCI snapshotter's program. `mount` mounts an image lazily, without containerd.

mod args;
mod mount;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    init_logging(&cli.log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::from(error).context("cannot start")),
    };
    let outcome = match cli.command {
        Command::Mount(args) => runtime.block_on(mount::run(cli.root, args)),
    };
    // Reads that nobody waits for any more must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Logs go to standard error, as text on a terminal and as JSON lines elsewhere, where a collector reads them.
fn init_logging(level: &str) {
    use std::io::IsTerminal;
    let filter =
        tracing_subscriber::EnvFilter::try_new(format!("{level},hyper=warn,reqwest=warn,fuser=warn"))
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        subscriber.without_time().with_target(false).init();
    } else {
        subscriber.json().flatten_event(true).init();
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
