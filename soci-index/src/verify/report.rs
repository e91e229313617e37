//! What a verification found.

use registry::{Descriptor, Digest};

use crate::manifest::IndexVersion;
use crate::source::SourceError;

/// Where an index was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Beside the image: the image names it, or it is among its referrers.
    Image,
    /// In the artifact store.
    Store,
}

/// What came of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The zTOC is, byte for byte, what the layer gives.
    Identical,
    /// It has other bytes and means the same.
    Equivalent,
    /// The index has no zTOC for it.
    NoZtoc,
    /// What is wrong, in words.
    Wrong(Vec<String>),
    /// Why the layer or its zTOC could not be read, so that nothing is known about them.
    Unchecked(String),
}

/// A layer, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerReport {
    /// The layer.
    pub layer: Descriptor,
    /// Its zTOC.
    pub ztoc: Option<Digest>,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The image manifest.
    pub image: Descriptor,
    /// Digest of the index manifest.
    pub index: Digest,
    /// Its version.
    pub version: IndexVersion,
    /// Where it was found.
    pub origin: Origin,
    /// What is wrong with the index itself.
    pub problems: Vec<String>,
    /// What of it could not be read, and why.
    pub unchecked: Vec<String>,
    /// The image's layers, lowest first.
    pub layers: Vec<LayerReport>,
}

impl Report {
    /// Whether everything was checked and nothing is wrong. Layers without a zTOC are no fault.
    pub fn is_ok(&self) -> bool {
        let is_right = |layer: &LayerReport| {
            matches!(layer.verdict, Verdict::Identical | Verdict::Equivalent | Verdict::NoZtoc)
        };
        self.problems.is_empty() && self.unchecked.is_empty() && self.layers.iter().all(is_right)
    }

    /// Whether something is wrong, whatever else could not be checked.
    pub fn is_wrong(&self) -> bool {
        let is_wrong = |layer: &LayerReport| matches!(layer.verdict, Verdict::Wrong(_));
        !self.problems.is_empty() || self.layers.iter().any(is_wrong)
    }
}

/// Why something did not pass.
pub(super) enum Trouble {
    /// It was read and is not what it should be.
    Wrong(String),
    /// It could not be read.
    Unread(String),
}

impl From<String> for Trouble {
    fn from(problem: String) -> Self {
        Self::Wrong(problem)
    }
}

impl From<&str> for Trouble {
    fn from(problem: &str) -> Self {
        Self::Wrong(problem.to_owned())
    }
}

impl Trouble {
    /// Of reading a layer, which the index is not to blame for.
    pub(super) fn of_layer(error: &SourceError) -> Self {
        if error.is_corrupt() { Self::Wrong(error.to_string()) } else { Self::Unread(error.to_string()) }
    }

    /// Of reading what the index names, which should be there.
    pub(super) fn of_artifact(error: &SourceError) -> Self {
        let problem = format!("it cannot be read: {error}");
        if error.is_corrupt() || error.is_missing() { Self::Wrong(problem) } else { Self::Unread(problem) }
    }
}
