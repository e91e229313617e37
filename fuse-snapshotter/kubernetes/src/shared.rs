//! What the watch writes and the keychain reads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::logins::{Kind, Logins};

/// The logins that are known, and whether the first list has come.
pub(crate) struct Shared {
    pub(crate) logins: Mutex<Logins>,
    /// Which kinds have been listed, or failed to be, for the first time.
    pub(crate) settled: tokio::sync::watch::Sender<[bool; 2]>,
}

impl Shared {
    pub(crate) fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn settle(&self, kinds: &[Kind]) {
        self.settled.send_if_modified(|settled| {
            let before = *settled;
            for (kind, done) in Kind::ALL.iter().zip(settled.iter_mut()) {
                *done |= kinds.contains(kind);
            }
            *settled != before
        });
    }
}
