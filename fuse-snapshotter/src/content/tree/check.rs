//! Looking at one layer before there is a tree.

use ztoc::Ztoc;

use super::draft::Draft;
use super::error::TreeError;
use super::tables::Tree;

/// Most entries of a layer: an entry's number is part of an inode number.
const MAX_ENTRIES: usize = 1 << 26;

/// What a layer needs of the layers below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: it merges with whatever is below.
    Nothing,
    /// It has hard links to files of layers below. Whether it makes sense only merging can tell.
    LinksBelow,
}

impl Tree {
    /// Whether a layer can be part of a tree.
    ///
    /// # Errors
    /// If the zTOC makes no sense whatever is below; [`TreeError::layer`] is 0.
    pub fn check(ztoc: &Ztoc) -> Result<Needs, TreeError> {
        let error = |name: &[u8], reason| TreeError {
            layer: 0,
            name: String::from_utf8_lossy(name).into_owned(),
            reason,
        };
        if ztoc.len() > MAX_ENTRIES {
            return Err(error(b"", "the layer has more than 67,108,864 entries"));
        }
        let layer = Draft::of_layer(ztoc, 0).map_err(|(name, reason)| error(name, reason))?;
        Ok(if layer.links.is_empty() { Needs::Nothing } else { Needs::LinksBelow })
    }
}
