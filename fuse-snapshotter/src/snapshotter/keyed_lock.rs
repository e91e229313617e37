//! One at a time for each name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::OwnedMutexGuard;

use crate::base::lock::lock;

/// Names whose turn it is, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct KeyedLock(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// Dropping it gives the turn to the next.
#[derive(Debug)]
pub(super) struct Turn<'t> {
    turns: &'t KeyedLock,
    name: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl KeyedLock {
    /// Waits until nobody else has the turn for `name`.
    pub(super) async fn take(&self, name: &str) -> Turn<'_> {
        let turn = Arc::clone(lock(&self.0).entry(name.to_owned()).or_default());
        Turn { turns: self, name: name.to_owned(), guard: Some(turn.lock_owned().await) }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut all = lock(&self.turns.0);
        self.guard = None;
        // Whoever waits has a reference, too.
        if all.get(&self.name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            all.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_left() {
        let turns = KeyedLock::default();
        let first = turns.take("a").await;
        let other = turns.take("b").await;
        let mut second = Box::pin(turns.take("a"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        drop(other);
        assert!(lock(&turns.0).is_empty());
    }
}
