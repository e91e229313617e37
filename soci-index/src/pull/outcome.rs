//! What a pull tells of its layers.

use registry::{Descriptor, Digest};

/// A layer of a pulled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledLayer {
    /// Its digest.
    pub digest: Digest,
    /// Its compressed size in bytes.
    pub size: u64,
    /// Its snapshot.
    pub chain_id: Digest,
    /// How it got there.
    pub outcome: LayerOutcome,
}

/// How a layer got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerOutcome {
    /// The snapshot was there before.
    Present,
    /// The snapshotter mounted it without downloading it.
    Lazy,
    /// The snapshotter had it, or downloaded and unpacked it itself.
    Local,
    /// It was downloaded to containerd, and unpacked by it.
    Downloaded,
}

impl LayerOutcome {
    /// One word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Lazy => "lazy",
            Self::Local => "local",
            Self::Downloaded => "downloaded",
        }
    }
}

/// What happened to a layer during a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullEvent {
    /// It is being downloaded.
    Downloading,
    /// This many more bytes of it have arrived.
    Advanced(u64),
    /// All of it has arrived (or was there), and it waits to be unpacked or is.
    Unpacking,
    /// Its download was not needed after all.
    Cancelled,
    /// Its snapshot is there.
    Done(LayerOutcome),
}

/// Receives the events of a pull. Called from several tasks at once; must not block.
pub trait PullProgress: Send + Sync {
    /// Something happened to a layer. Two layers of an image may have one digest.
    fn layer(&self, layer: &Descriptor, event: PullEvent);
}
