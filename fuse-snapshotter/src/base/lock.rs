//! Locks that stay usable.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that a panic elsewhere cannot make unusable: all that is behind one is valid at every moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
