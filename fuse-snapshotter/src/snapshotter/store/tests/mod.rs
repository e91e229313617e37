//! The store against containerd's rules, against a model, and against broken files and disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod files;
mod model;
mod numbers;
mod rules;

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::SnapshotStore;
use super::error::StoreError;
use super::info::{Commit, Created, Kind, Labels, NewSnapshot, Usage};

struct Fixture {
    directory: TempDir,
    store: Arc<SnapshotStore>,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(SnapshotStore::open(&directory.path().join("snapshots.redb")).unwrap());
        Self { directory, store }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("snapshots.redb")
    }

    fn reopen(self) -> Self {
        let Self { directory, store } = self;
        drop(Arc::into_inner(store).unwrap());
        let store = Arc::new(SnapshotStore::open(&directory.path().join("snapshots.redb")).unwrap());
        Self { directory, store }
    }

    fn create(&self, kind: Kind, key: &str, parent: &str) -> Result<Created, StoreError> {
        self.store.create(new(kind, key, parent))
    }

    fn active(&self, key: &str, parent: &str) -> u64 {
        self.create(Kind::Active, key, parent).unwrap().id
    }

    /// A committed snapshot.
    fn committed(&self, name: &str, parent: &str) -> u64 {
        let key = format!("making {name}");
        self.active(&key, parent);
        self.store.commit(commit(&key, name)).unwrap()
    }
}

fn new<'a>(kind: Kind, key: &'a str, parent: &'a str) -> NewSnapshot<'a> {
    NewSnapshot { kind, key, parent: Some(parent), labels: Labels::new(), record: None }
}

fn commit<'a>(key: &'a str, name: &'a str) -> Commit<'a> {
    Commit { key, name, parent: None, labels: Labels::new(), usage: Usage::default(), record: None }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn paths(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}
