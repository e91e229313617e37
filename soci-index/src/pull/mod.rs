//! Pulling an image into containerd through a snapshotter.
//!
//! This is what nerdctl and containerd's own client do: manifests and configuration go to the content store with the labels
//! that keep what they name; then each layer's snapshot is prepared, lowest first, with labels that tell a remote
//! snapshotter which layer of which image it is to hold. If it has or gets the layer itself, nothing is downloaded. If it
//! gives a place to unpack to, the layer is downloaded, containerd unpacks it, and what came out is compared with the image's
//! configuration. The image's name comes last, so that nobody sees an image that is not complete.
//!
//! All of it happens under a lease. A pull that fails or is dropped leaves nothing that containerd would not collect.

mod error;
mod outcome;
mod puller;
mod stack;
mod unpack;

pub use error::PullError;
pub use outcome::{LayerOutcome, PullEvent, PullProgress, PulledLayer};
pub use puller::{DEFAULT_CONCURRENT_DOWNLOADS, PullOptions, Pulled, pull};
pub use unpack::{LABEL_INDEX_DIGEST, LABEL_LAYER_SIZE, LABEL_LAYER_SIZES};
