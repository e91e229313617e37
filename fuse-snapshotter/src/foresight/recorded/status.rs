//! How recordings and replays stand, for people.

use serde::{Deserialize, Serialize};

use super::replay::ReplaySource;

/// State of the recording of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordingStatus {
    /// Whether a start is being recorded now.
    pub running: bool,
    /// When it was taken, in seconds since 1970; 0 while it is running.
    pub taken: u64,
    /// Whether nothing had been read of the image before.
    pub cold: bool,
    /// Parts of files that were read.
    pub reads: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Reads that had to wait for the registry.
    pub waited: u64,
}

/// State of the replay of an image, since it was pulled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplayStatus {
    /// Where it is known from what will be read.
    pub source: ReplaySource,
    /// Whether it is not done yet.
    pub running: bool,
    /// Spans that it fetched. What was there already does not count.
    pub spans: u64,
    /// Compressed bytes of these.
    pub bytes: u64,
    /// Requests that failed.
    pub failed: u64,
}
