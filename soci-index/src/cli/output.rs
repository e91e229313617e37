//! The one place that prints: results to stdout, everything else to stderr.
#![expect(clippy::print_stderr, reason = "this is the one place that prints")]

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::MultiProgress;

use crate::cli::hints;
use crate::cli::interrupt::Interrupted;

/// Where the command's words go. Progress bars step aside while it writes.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bars: Mutex<Option<MultiProgress>>,
    /// Whether the reader of stdout has gone.
    closed: AtomicBool,
}

impl Output {
    /// From now on `bars` are on the terminal.
    pub(crate) fn attach(&self, bars: MultiProgress) {
        if let Ok(mut attached) = self.bars.lock() {
            *attached = Some(bars);
        }
    }

    /// A line of the result.
    pub(crate) fn line(&self, text: impl Display) -> io::Result<()> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Bytes of the result.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let written = self.aside(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        });
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.closed.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Something the user should know, which is no error.
    pub(crate) fn warn(&self, text: impl Display) {
        self.note(format_args!("warning: {text}"));
    }

    /// Something the user may like to know.
    pub(crate) fn note(&self, text: impl Display) {
        self.aside(|| eprintln!("soci: {text}"));
    }

    /// Reports how the command ended.
    pub(crate) fn finish(&self, result: anyhow::Result<()>) -> ExitCode {
        let Err(error) = result else { return ExitCode::SUCCESS };
        // Whoever reads our output has seen enough, as with `soci index list | head -1`.
        let closed = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        };
        if self.closed.load(Ordering::Relaxed) && error.chain().any(closed) {
            return ExitCode::SUCCESS;
        }
        let interrupted = error.is::<Interrupted>();
        self.aside(|| {
            eprintln!("soci: {}", message(&error));
            if let Some(hint) = hints::hint(&error) {
                eprintln!("hint: {hint}");
            }
        });
        // What a shell reports for a program that SIGINT ended.
        if interrupted { ExitCode::from(130) } else { ExitCode::FAILURE }
    }

    fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match self.bars.lock().ok().and_then(|bars| bars.clone()) {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// The error with its causes. Many messages quote their cause, which is then not said again.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let cause = || anyhow::Error::from(io::Error::other("disk full"));
        assert_eq!(message(&cause()), "disk full");
        assert_eq!(message(&cause().context("cannot write x")), "cannot write x: disk full");
        assert_eq!(message(&cause().context("cannot write x: disk full")), "cannot write x: disk full");
    }
}
