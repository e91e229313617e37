//! Mounting an image, and fetching what its program reads first, as soon as its topmost layer is there.

use std::sync::Arc;

use ztoc::Ztoc;

use super::mounts::Lower;
use super::pull::Pulled;
use super::service::Snapshotter;
use crate::foresight::forecast::{Forecast, Root};
use crate::fronts::forest::ROOT;
use crate::image::stacking::StackPart;

impl Snapshotter {
    /// Mounts the trees of an image as soon as its topmost layer is there, and fetches what its program will read
    /// first: a container will want that next.
    pub(super) fn mount_ahead(
        self: &Arc<Self>,
        pulled: Option<Pulled>,
        target: &str,
        ztoc: Option<Arc<Ztoc>>,
    ) {
        let Some(pulled) = pulled else { return };
        let (snapshotter, target) = (Arc::clone(self), target.to_owned());
        tokio::spawn(async move {
            let found = {
                let target = target.clone();
                snapshotter.store(move |store| store.get_any(&target)).await
            };
            // Removed already, if it is not there.
            let Ok(snapshot) = found else { return };
            let mounted = snapshotter.lower(&snapshot.as_chain()).await;
            // Until now, so that the tree did not need to parse it again.
            drop(ztoc);
            match mounted {
                Ok(lower) => snapshotter.expect_start(pulled, &lower).await,
                Err(error) => {
                    tracing::warn!(chain = target, %error, "cannot mount the image ahead of its container");
                }
            }
            let _ = tokio::task::spawn_blocking(crate::base::sys::give_back).await;
        });
    }

    /// Fetches what a container of an image will read first.
    async fn expect_start(&self, pulled: Pulled, lower: &Lower) {
        if !self.prefetch.guesses(pulled.manifest()) {
            return;
        }
        let Some(forest) = self.trees.mounted() else { return };
        let Some(command) = pulled.command().await else { return };
        // It holds the layers.
        drop(pulled);
        let mut trees = Vec::new();
        let parts = lower.directories.iter().rev().map(|(id, path)| {
            match forest.lookup(ROOT, id.to_string().as_bytes()) {
                Ok(root) => {
                    trees.push(*id);
                    StackPart::Tree(root.number)
                }
                Err(_) => StackPart::Directory(path.clone()),
            }
        });
        let root = Root::new(Arc::clone(&forest), parts.collect());
        let forecast = Forecast::new(root, command);
        self.trees.expect(&trees, &forecast);
    }
}
