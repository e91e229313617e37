//! What the contents of a snapshot are stacked from.

use super::error::SnapshotError;
use super::labels;
use super::record::Record;
use super::store::Node;
use crate::image::Chain;
use crate::image::stacking::{StackPart, stack_parts};

/// A snapshot's directory on this disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct SnapshotDirectory {
    pub(super) id: u64,
    /// Whether we unpacked it, and it may have whiteouts that an overlay has to hide.
    pub(super) unpacked: bool,
}

/// Consecutive lazy layers, which one tree shows.
#[derive(Debug, Clone)]
pub(super) struct LazyRun {
    /// The snapshot of the topmost one, which names the tree.
    pub(super) top: u64,
    /// That snapshot's name.
    pub(super) name: String,
    /// Bottom first.
    pub(super) layers: Vec<Record>,
    /// The chain of each of them.
    pub(super) chains: Vec<Chain>,
}

/// The chain ID of a snapshot of a layer.
pub(super) fn chain_id(node: &Node) -> &str {
    node.labels.get(labels::TARGET).unwrap_or(&node.key)
}

/// The parts of a chain of snapshots, which is given nearest first; the parts come bottom first.
pub(super) fn parts(chain: &[Node]) -> Result<Vec<StackPart<LazyRun, SnapshotDirectory>>, SnapshotError> {
    let mut layers = Vec::with_capacity(chain.len());
    for (position, node) in chain.iter().enumerate().rev() {
        layers.push(match Record::needed(node)? {
            Some(record) if record.lazy().is_some() => StackPart::Tree((position, record)),
            record => StackPart::Directory(SnapshotDirectory { id: node.id, unpacked: record.is_some() }),
        });
    }
    let parts = stack_parts(layers).into_iter().filter_map(|part| match part {
        StackPart::Tree(layers) => lazy_run(chain, layers).map(StackPart::Tree),
        StackPart::Directory(directory) => Some(StackPart::Directory(directory)),
    });
    Ok(parts.collect())
}

/// The run of some layers of a chain, with their positions in it.
fn lazy_run(chain: &[Node], layers: Vec<(usize, Record)>) -> Option<LazyRun> {
    let top = chain.get(layers.last()?.0)?;
    let chain_of = |position: usize| {
        let below = chain.get(position + 1).map(|below| chain_id(below).to_owned());
        Some(Chain { own: chain_id(chain.get(position)?).to_owned(), below })
    };
    let chains = layers.iter().filter_map(|(position, _)| chain_of(*position)).collect();
    let layers = layers.into_iter().map(|(_, record)| record).collect();
    Some(LazyRun { top: top.id, name: top.key.clone(), layers, chains })
}
