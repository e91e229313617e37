//! An image's layers, made ready: to be read lazily, or unpacked.
//!
//! * `origin` is where an image comes from, and what this machine has of it already.
//! * `index` looks for its SOCI index; `blob_opener` opens its layers meanwhile.
//! * `ztocs` is the shelf of zTOCs on this disk, and `assemble` puts a lazy layer together from what is there.
//! * `open` holds the layers that the daemon serves ([`OpenLayers`]), each once however many images share it, with its
//!   number, its sources and its background fetch; `collect` removes those that no snapshot uses.
//! * `sources` reads a layer from all repositories that have it; `twin` from a layer with the same content.
//! * `eager` fetches and unpacks a layer, or indexes a local copy of it, with `pipeline` ahead of it and by means of
//!   `unpack`; `inherit` gives directories that a layer only implies the attributes that they have below.
//! * `served` has the words for how a layer is served, and why it is not read lazily; `stacking` says what an image is
//!   stacked from.

pub(crate) mod assemble;
mod blob_opener;
mod collect;
mod containerd;
pub(crate) mod eager;
pub(crate) mod index;
pub(crate) mod inherit;
mod layer_blob;
mod layer_key;
mod layer_numbers;
mod open;
mod open_layer;
mod origin;
mod pipeline;
mod recorded_layer;
mod served;
mod sources;
pub(crate) mod stacking;
mod twin;
pub mod unpack;
mod ztocs;

pub use assemble::OpenError;
pub(crate) use blob_opener::OpenedBlobs;
pub use collect::Collected;
pub use containerd::ContainerdContent;
pub use eager::{CopyError, UnpackFailure};
pub use layer_blob::OpenBlobError;
pub use layer_key::LayerKey;
pub use layer_numbers::{LayerNumbers, NumberError};
pub use open::{OpenLayers, OpenOptions};
pub use open_layer::{Background, OpenLayer};
pub use origin::{FetchArtifactError, ImageOrigin, LocalContent};
pub use recorded_layer::{OtherSource, RecordedLayer};
pub use served::{Served, WhyNotLazy};
pub(crate) use sources::{MAX_SOURCES, Seek, name_of};
pub(crate) use twin::Chain;
pub(crate) use ztocs::ZtocShelf;
