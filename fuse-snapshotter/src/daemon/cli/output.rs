//! What commands print: what was asked for, and errors.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;

use super::args::NAME;

/// Prints what was asked for.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Prints why the program ends without success.
#[expect(clippy::print_stderr, reason = "there is nobody else to tell")]
pub(super) fn fail(error: &anyhow::Error) -> ExitCode {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors end with their cause already.
        if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    eprintln!("{NAME}: {message}");
    ExitCode::FAILURE
}
