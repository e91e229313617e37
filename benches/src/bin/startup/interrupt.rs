//! Ctrl-C and SIGTERM end the benchmark between two steps, so that everything it started is ended and removed.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

static STOP: AtomicBool = AtomicBool::new(false);

/// Begins to watch for them.
pub(crate) fn watch() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate()]
            .map(|kind| signal(kind).context("cannot watch for signals"))
    };
    if let Some(error) = signals.iter_mut().position(|signal| signal.is_err()) {
        bail!("cannot watch for signal {error}");
    }
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let [Ok(interrupt), Ok(terminate)] = &mut signals else { return };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            STOP.store(true, Ordering::Relaxed);
            eprintln!("stopping: what was started is being ended");
            // A second one is not lost on somebody who is in a hurry, but leaves things behind.
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
