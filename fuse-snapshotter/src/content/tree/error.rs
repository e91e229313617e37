//! Why there is no tree.

/// Why a layer cannot be served from its zTOC.
#[derive(Debug, thiserror::Error)]
#[error("layer {layer}: {name:?}: {reason}")]
pub struct TreeError {
    /// Index of the layer among those that were to be merged, bottom first.
    pub layer: usize,
    /// The entry's name.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}
