//! The steps from the zTOCs of a chain of layers to a tree.

use ztoc::Ztoc;

use super::draft::Draft;
use super::error::TreeError;
use super::freeze::freeze;
use super::inode::OWN;
use super::merge::{apply, lowest};
use super::overlay::Below;
use super::tables::Tree;

impl Tree {
    /// Merges the layers of a chain, bottom first.
    ///
    /// # Errors
    /// [`TreeError`] names the layer that makes no sense, so that it can be unpacked instead.
    pub fn merge(layers: &[&Ztoc], below: Below) -> Result<Self, TreeError> {
        let mut image = Draft::new();
        for (index, ztoc) in layers.iter().enumerate() {
            let error = |(name, reason): (&[u8], _)| TreeError {
                layer: index,
                name: String::from_utf8_lossy(name).into_owned(),
                reason,
            };
            let slot = u16::try_from(index).ok().filter(|slot| *slot != OWN);
            let slot = slot.ok_or_else(|| error((b"", "an image has at most 65,535 layers")))?;
            let layer = Draft::of_layer(ztoc, slot).map_err(error)?;
            if index == 0 {
                image = lowest(layer);
            } else {
                apply(&mut image, layer, below == Below::Nothing).map_err(error)?;
            }
        }
        freeze(&image, layers, below).map_err(|(layer, name, reason)| TreeError {
            layer: layer.into(),
            name: String::from_utf8_lossy(name).into_owned(),
            reason,
        })
    }
}
