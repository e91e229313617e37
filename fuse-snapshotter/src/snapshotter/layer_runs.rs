//! What the contents of a snapshot are stacked from.

use super::error::SnapshotError;
use super::labels;
use super::record::Record;
use super::store::Node;
use crate::image::Chain;

/// Consecutive layers of one kind.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// A directory on this disk.
    Directory {
        id: u64,
        /// Whether we unpacked it, and it may have whiteouts that an overlay has to hide.
        unpacked: bool,
    },
    /// Lazy layers, which one tree shows.
    Run(Run),
}

/// Consecutive lazy layers.
#[derive(Debug, Clone)]
pub(super) struct Run {
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
pub(super) fn parts(chain: &[Node]) -> Result<Vec<Part>, SnapshotError> {
    let mut parts: Vec<Part> = Vec::new();
    for (position, node) in chain.iter().enumerate().rev() {
        let below = chain.get(position + 1).map(|below| chain_id(below).to_owned());
        let own = Chain { own: chain_id(node).to_owned(), below };
        match Record::needed(node)? {
            Some(record) if record.lazy().is_some() => match parts.last_mut() {
                Some(Part::Run(run)) => {
                    run.top = node.id;
                    run.name.clone_from(&node.key);
                    run.layers.push(record);
                    run.chains.push(own);
                }
                _ => {
                    let (layers, chains) = (vec![record], vec![own]);
                    parts.push(Part::Run(Run { top: node.id, name: node.key.clone(), layers, chains }));
                }
            },
            record => parts.push(Part::Directory { id: node.id, unpacked: record.is_some() }),
        }
    }
    Ok(parts)
}
