//! Indexes that the configuration chooses for images, for clients that cannot say which one they want.
//!
//! A client that pulls through containerd's transfer service (nerdctl from 2.2 on, `ctr`, CRI) gives the snapshotter no
//! labels of its own, so that nerdctl's `--soci-index-digest` is lost on the way.

use std::collections::HashMap;

use registry::{Digest, Reference};

/// Which index is used for which image, and no other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChosenIndexes(HashMap<String, Digest>);

impl ChosenIndexes {
    /// The index for an image, if one was chosen: for its full reference, or for its repository without a tag.
    #[must_use]
    pub fn of(&self, image: &Reference) -> Option<&Digest> {
        let repository = image.repository();
        let all_of_it = || self.0.get(&format!("{}/{}", repository.host(), repository.name()));
        self.0.get(&image.to_string()).or_else(all_of_it)
    }
}

impl FromIterator<(String, Digest)> for ChosenIndexes {
    /// From full references, and repositories with their host.
    fn from_iter<T: IntoIterator<Item = (String, Digest)>>(chosen: T) -> Self {
        Self(chosen.into_iter().collect())
    }
}
