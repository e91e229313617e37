//! What is told while an image is copied.

use registry::Descriptor;

/// Receives the events of a copy. Called from several tasks at once; must not block.
pub trait CopyProgress: Send + Sync {
    /// Something happened to a blob.
    fn blob(&self, blob: &Descriptor, event: CopyEvent);
}

/// What happened to a blob. Every blob ends with `Done`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyEvent {
    /// Its bytes begin to move.
    Started,
    /// This many more bytes have moved.
    Advanced(u64),
    /// It is at its destination.
    Done(Copied),
}

/// How a blob got to its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copied {
    /// It was there before.
    There,
    /// The registry took it over from another repository of its own.
    Mounted,
    /// Its bytes were moved.
    Moved,
}
