//! Ctrl-C and SIGTERM end the benchmark between two steps, so that everything it started is ended and removed.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

static STOP: AtomicBool = AtomicBool::new(false);

/// Begins to watch for them.
pub(crate) fn watch() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let inside = runtime.enter();
    let watch = |kind| signal(kind).context("cannot watch for signals");
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    drop(inside);
    std::thread::spawn(move || {
        runtime.block_on(async move {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            STOP.store(true, Ordering::Relaxed);
            eprintln!("stopping: what was started is being ended");
            // For those who cannot wait: it leaves things behind.
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            std::process::exit(130);
        });
    });
    Ok(())
}

/// An error once one of them has come.
pub(crate) fn check() -> anyhow::Result<()> {
    if STOP.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
