//! What is known about a snapshot, in containerd's terms.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// Labels of a snapshot. None has an empty value: giving a label one removes it.
pub type Labels = HashMap<String, String>;

/// Most bytes that a label's key and value have together; containerd's limit.
pub const MAX_LABEL_BYTES: usize = 4096;

/// Most bytes of a snapshot's key or name; the limit of containerd's database.
pub const MAX_KEY_BYTES: usize = 32768;

/// Most bytes of a snapshot's record. Records are read with each mount of a snapshot above, and are meant to be small.
pub const MAX_RECORD_BYTES: usize = 64 << 10;

/// How far a label's key is quoted in a message about its length; as far as in containerd.
const QUOTED_CHARACTERS: usize = 64;

/// State of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Read-only, goes away again.
    View,
    /// Being written.
    Active,
    /// Finished; may be a parent.
    Committed,
}

impl Kind {
    /// The name that filters use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

/// Space that a snapshot takes, without its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes.
    pub size: u64,
    /// Inodes.
    pub inodes: u64,
}

/// A snapshot, as `Stat` and `List` tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its state.
    pub kind: Kind,
    /// Key of an active snapshot or view, name of a committed one.
    pub name: String,
    /// Name of the parent, empty if it has none.
    pub parent: String,
    /// Labels.
    pub labels: Labels,
    /// When it was made, or committed.
    pub created: SystemTime,
    /// When it was made, committed or updated.
    pub updated: SystemTime,
}

/// A snapshot with all that is needed to mount it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Identifier: the name of its directory. The same before and after the commit.
    pub id: u64,
    /// Its state.
    pub kind: Kind,
    /// Its key or name.
    pub key: String,
    /// Labels.
    pub labels: Labels,
    /// The snapshotter's own bytes.
    pub record: Option<Vec<u8>>,
    /// Its parents, the nearest first.
    pub parents: Vec<Node>,
}

impl Snapshot {
    /// The snapshot itself and its parents, nearest first; for a committed one.
    #[must_use]
    pub fn as_chain(&self) -> Vec<Node> {
        let own = Node {
            id: self.id,
            key: self.key.clone(),
            record: self.record.clone(),
            labels: self.labels.clone(),
        };
        std::iter::once(own).chain(self.parents.iter().cloned()).collect()
    }
}

/// A committed snapshot in the chain of parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Identifier.
    pub id: u64,
    /// Its name.
    pub key: String,
    /// The snapshotter's own bytes.
    pub record: Option<Vec<u8>>,
    /// Labels.
    pub labels: Labels,
}

/// What [`super::SnapshotStore::create`] is to make.
#[derive(Debug, Clone)]
pub struct NewSnapshot<'a> {
    /// [`Kind::Active`] or [`Kind::View`].
    pub kind: Kind,
    /// Its key.
    pub key: &'a str,
    /// Name of a committed snapshot. Empty means none, as in the protocol.
    pub parent: Option<&'a str>,
    /// Labels; those with an empty value are left out.
    pub labels: Labels,
    /// The snapshotter's own bytes.
    pub record: Option<Vec<u8>>,
}

/// What [`super::SnapshotStore::commit`] is to make of an active snapshot.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// Key of the active snapshot.
    pub key: &'a str,
    /// Name of the committed snapshot.
    pub name: &'a str,
    /// A parent for a snapshot that has none yet (containerd's "rebase"). Empty means none.
    pub parent: Option<&'a str>,
    /// All its labels; those of the active snapshot are not inherited.
    pub labels: Labels,
    /// Space it takes.
    pub usage: Usage,
    /// The snapshotter's own bytes; those of the active snapshot stay if this is `None`.
    pub record: Option<Vec<u8>>,
}

/// A snapshot that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its identifier. No other snapshot has or had it.
    pub id: u64,
    /// Its parents, the nearest first.
    pub parents: Vec<Node>,
}

/// A snapshot that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its identifier.
    pub id: u64,
    /// Its state.
    pub kind: Kind,
    /// Name of its parent.
    pub parent: Option<String>,
    /// The snapshotter's own bytes.
    pub record: Option<Vec<u8>>,
}

/// The labels to store, checked.
///
/// containerd's metadata service checks the size before it calls a snapshotter; others call us directly.
pub(super) fn checked_labels(mut labels: Labels) -> Result<Labels, StoreError> {
    for (key, value) in &labels {
        let total = key.len() + value.len();
        if total > MAX_LABEL_BYTES {
            let quoted: String = key.chars().take(QUOTED_CHARACTERS).collect();
            return Err(StoreError::InvalidArgument(format!(
                "label key and value length ({total} bytes) greater than maximum size ({MAX_LABEL_BYTES} bytes), key: {quoted}"
            )));
        }
    }
    labels.retain(|_, value| !value.is_empty());
    if labels.contains_key("") {
        return Err(StoreError::InvalidArgument("label without a key".to_owned()));
    }
    Ok(labels)
}

pub(super) fn check_key(what: &str, key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        return Err(StoreError::InvalidArgument(format!("{what} is empty")));
    }
    if key.len() > MAX_KEY_BYTES {
        let length = key.len();
        return Err(StoreError::InvalidArgument(format!(
            "{what} of {length} bytes is longer than {MAX_KEY_BYTES}"
        )));
    }
    Ok(())
}

pub(super) fn check_record(record: &[u8]) -> Result<(), StoreError> {
    if record.len() > MAX_RECORD_BYTES {
        let length = record.len();
        return Err(StoreError::InvalidArgument(format!(
            "record of {length} bytes is longer than {MAX_RECORD_BYTES}"
        )));
    }
    Ok(())
}
