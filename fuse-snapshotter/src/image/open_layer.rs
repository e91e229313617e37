//! A layer that the daemon serves.

use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use ztoc::Ztoc;

use super::layer_key::LayerKey;
use super::sources::Sources;
use crate::base::lock::lock;
use crate::content::LazyLayer;

/// State of the fetch in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// Not wanted, or not begun: it begins when the layer is first mounted.
    Off,
    /// Under way.
    Running,
    /// Over; what is missing then is fetched when it is read.
    Done,
}

/// A layer that is read lazily.
#[derive(Debug)]
pub struct OpenLayer {
    pub(super) key: LayerKey,
    pub(super) number: u32,
    pub(super) layer: Arc<LazyLayer>,
    pub(super) sources: Sources,
    /// The parsed zTOC, as long as somebody else has it.
    pub(super) ztoc: Mutex<Weak<Ztoc>>,
    pub(super) background: Mutex<Option<AbortHandle>>,
    /// Whether nothing of it was in the cache when it was opened.
    pub(super) was_empty: bool,
}

impl OpenLayer {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> &LayerKey {
        &self.key
    }

    /// Its number, which is part of the inode numbers of its files.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its contents.
    #[must_use]
    pub fn lazy(&self) -> &Arc<LazyLayer> {
        &self.layer
    }

    /// What its reads wait for now, or what the last read that failed has failed of.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.sources.waiting().or_else(|| self.layer.last_error())
    }

    /// Whether nobody has read from it yet, and nothing of it was in the cache when it was opened.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        self.was_empty && self.layer.stats().served_bytes == 0
    }

    /// The state of the fetch in the background.
    #[must_use]
    pub fn background(&self) -> Background {
        match &*lock(&self.background) {
            None => Background::Off,
            Some(task) if task.is_finished() => Background::Done,
            Some(_) => Background::Running,
        }
    }
}

impl Drop for OpenLayer {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.background).take() {
            task.abort();
        }
    }
}
