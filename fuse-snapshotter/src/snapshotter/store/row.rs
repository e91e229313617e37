//! One snapshot as it stands in the database, and the chain of its parents.
//!
//! Rows are JSON: fields can be added without a new format, and a damaged row is an error, never a panic.

use std::time::SystemTime;

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::info::{Info, Kind, Labels, Node, Usage};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<String>,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub(super) labels: Labels,
    pub(super) created: SystemTime,
    pub(super) updated: SystemTime,
    #[serde(default)]
    pub(super) usage: Usage,
}

impl Row {
    pub(super) fn encode(&self) -> Result<Vec<u8>, Failure> {
        serde_json::to_vec(self).map_err(|error| Failure::Damaged(error.to_string()))
    }

    pub(super) fn decode(key: &str, bytes: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(bytes).map_err(|error| Failure::Damaged(format!("snapshot {key}: {error}")))
    }

    pub(super) fn into_info(self, name: String) -> Info {
        let Self { kind, parent, labels, created, updated, .. } = self;
        Info { kind, name, parent: parent.unwrap_or_default(), labels, created, updated }
    }
}

/// Now, or 1970 on a machine whose clock is before that: such a time has no form in JSON.
pub(super) fn now() -> SystemTime {
    SystemTime::now().max(SystemTime::UNIX_EPOCH)
}

pub(super) fn row(
    snapshots: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<Row>, Failure> {
    match snapshots.get(key)? {
        Some(value) => Row::decode(key, value.value()).map(Some),
        None => Ok(None),
    }
}

pub(super) fn record(
    records: &impl ReadableTable<u64, &'static [u8]>,
    id: u64,
) -> Result<Option<Vec<u8>>, Failure> {
    Ok(records.get(id)?.map(|value| value.value().to_vec()))
}

/// The chain that begins with `parent`, the nearest first.
pub(super) fn chain(
    snapshots: &impl ReadableTable<&'static str, &'static [u8]>,
    records: &impl ReadableTable<u64, &'static [u8]>,
    parent: Option<String>,
) -> Result<Vec<Node>, Failure> {
    // No chain is longer than that, unless the store says that a snapshot is its own ancestor.
    let limit = snapshots.len()?;
    let mut nodes = Vec::new();
    let mut next = parent;
    while let Some(key) = next {
        if nodes.len() as u64 >= limit {
            return Err(Failure::Damaged(format!("snapshot {key} is its own ancestor")));
        }
        let Some(row) = row(snapshots, &key)? else {
            return Err(Failure::Damaged(format!("parent snapshot {key} does not exist")));
        };
        nodes.push(Node { id: row.id, record: record(records, row.id)?, labels: row.labels, key });
        next = row.parent;
    }
    Ok(nodes)
}
