//! Layers and images made to measure.
//!
//! [`LayerBuilder`] writes a tar [`Entry`] by entry, with its own header code so that every byte can be chosen, and
//! compresses it; [`ImageBuilder`] and [`IndexBuilder`] put layers into images. The same calls give the same bytes, and
//! so the same digests, every time. [`fixtures`] and [`host`] have whole layers ready.
//!
//! ```
//! use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder};
//!
//! let mut layer = LayerBuilder::new(Compression::GZIP);
//! layer.add(Entry::dir("etc").mode(0o755));
//! layer.add(Entry::file("etc/motd", "hello\n").xattr("user.k", "v").mtime(1_700_000_000, 5));
//! layer.add(Entry::whiteout("etc/passwd"));
//! let image = ImageBuilder::new().layer(layer.finish()).build();
//! assert!(image.digest().starts_with("sha256:"));
//! ```

mod assemble;
mod compress;
mod content;
mod entry;
pub mod fixtures;
mod frames;
pub mod host;
mod layer;
mod parts;
mod sparse;
mod tar;

#[cfg(test)]
mod tests;

pub use self::assemble::{Image, ImageBuilder, ImageIndex, IndexBuilder, MediaTypes};
pub use self::compress::{Compression, ZstdForm};
pub use self::content::{Content, Texture};
pub use self::entry::{Entry, Format, Kind, MTIME};
pub use self::layer::{BlobData, End, Layer, LayerBuilder};
pub use self::sparse::SparseFormat;
