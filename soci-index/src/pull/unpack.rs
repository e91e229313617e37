//! From layers to snapshots.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use registry::{BlobReader, Descriptor, Digest};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::error::PullError;
use super::outcome::{LayerOutcome, PullEvent, PulledLayer};
use super::puller::Puller;
use super::stack::Stack;
use crate::containerd::labels::{self, Labels, MAX_LABEL};
use crate::containerd::{Containerd, ContainerdError, Prepared, Written};
use crate::source::RegistrySource;

/// Label of a snapshot that is prepared: the name it will have.
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Labels of a snapshot that is prepared: the image and its layers, as CRI and nerdctl set them.
const IMAGE_REF: &str = "containerd.io/snapshot/cri.image-ref";
const LAYER_DIGEST: &str = "containerd.io/snapshot/cri.layer-digest";
const MANIFEST_DIGEST: &str = "containerd.io/snapshot/cri.manifest-digest";
const IMAGE_LAYERS: &str = "containerd.io/snapshot/cri.image-layers";
/// Label of a snapshot that is prepared: the layer's compressed size in bytes.
pub const LABEL_LAYER_SIZE: &str = "containerd.io/snapshot/remote/soci.size";
/// Label of a snapshot that is prepared: the sizes of the layers in `cri.image-layers`, which must be as many.
pub const LABEL_LAYER_SIZES: &str = "containerd.io/snapshot/remote/image.layers.size";
/// Label of a snapshot that is prepared: the SOCI index to use.
pub const LABEL_INDEX_DIGEST: &str = "containerd.io/snapshot/remote/soci.index.digest";
/// Label by which snapshotters mark what they mounted lazily.
const REMOTE: &str = "containerd.io/snapshot/remote";

/// How often a snapshot that is said to exist is looked for. Another client may be making it just now.
const LOOKS: u32 = 25;
const PAUSE: Duration = Duration::from_millis(200);
/// How long a snapshotter may be away. containerd tries to reach it again after 3 seconds at most.
const RESTART: Duration = Duration::from_secs(5);

/// Downloads that have been started, by position of the layer.
struct Downloads {
    tasks: Vec<Option<AbortOnDropHandle<Result<(), ContainerdError>>>>,
    permits: Arc<Semaphore>,
}

impl Puller<'_> {
    /// Sees to it that every layer has its snapshot.
    pub(super) async fn unpack(&self, stack: &Stack<'_>) -> Result<Vec<PulledLayer>, PullError> {
        let snapshotter = &self.options.snapshotter;
        let mut done = Vec::with_capacity(stack.layers.len());
        let present = self.present(stack).await?;
        let mut downloads = Downloads {
            tasks: stack.layers.iter().map(|_| None).collect(),
            permits: Arc::new(Semaphore::new(self.options.concurrent_downloads.max(1))),
        };
        // A snapshotter that takes layers over may take the next one too, so only the one that is needed is downloaded. One
        // that has not taken any will want them all, and they may come at the same time.
        let mut takes_over = false;
        let each = stack.layers.iter().zip(&stack.chain).zip(&stack.diff_ids).enumerate();
        for (position, ((layer, chain_id), diff_id)) in each {
            let outcome = if position < present {
                LayerOutcome::Present
            } else {
                let parent = position.checked_sub(1).and_then(|below| stack.chain.get(below));
                let labels = snapshot_labels(stack, position, layer, chain_id, self.options.index.as_ref());
                let (key, prepared) = self.prepare(chain_id, parent, &labels).await?;
                match prepared {
                    Prepared::Exists => {
                        takes_over = true;
                        if downloads.tasks.get_mut(position).and_then(Option::take).is_some() {
                            self.progress.layer(layer, PullEvent::Cancelled);
                        }
                        self.outcome(layer, chain_id).await?
                    }
                    Prepared::Mounts(mounts) => {
                        let end = if takes_over { position + 1 } else { stack.layers.len() };
                        for (position, layer) in stack.layers.iter().enumerate().take(end).skip(position) {
                            self.start(&mut downloads, position, layer);
                        }
                        let task = downloads.tasks.get_mut(position).and_then(Option::take);
                        let filled = async {
                            if let Some(task) = task {
                                task.await.map_err(|error| PullError::Internal(error.to_string()))??;
                            }
                            let actual = self.containerd().apply(layer, mounts).await?;
                            if actual != *diff_id {
                                let expected = diff_id.clone();
                                return Err(PullError::DiffId {
                                    layer: layer.digest.clone(),
                                    expected,
                                    actual,
                                });
                            }
                            Ok(self.containerd().commit(snapshotter, chain_id.as_str(), &key, labels).await?)
                        };
                        if let Err(error) = filled.await {
                            let removed = self.containerd().remove_snapshot(snapshotter, &key).await;
                            if let Err(error) = removed {
                                tracing::debug!(%error, key, "an unfinished snapshot stays until it is collected");
                            }
                            return Err(error);
                        }
                        let known = Labels::from([(labels::UNCOMPRESSED.to_owned(), diff_id.to_string())]);
                        self.containerd().label_content(&layer.digest, known).await?;
                        LayerOutcome::Downloaded
                    }
                }
            };
            self.progress.layer(layer, PullEvent::Done(outcome));
            done.push(PulledLayer {
                digest: layer.digest.clone(),
                size: layer.size,
                chain_id: chain_id.clone(),
                outcome,
            });
        }
        Ok(done)
    }

    /// Prepares a snapshot, under a key that it returns. While a snapshotter restarts, containerd says that it is not
    /// there, and tries to reach it every few seconds only.
    async fn prepare(
        &self,
        chain_id: &Digest,
        parent: Option<&Digest>,
        labels: &Labels,
    ) -> Result<(String, Prepared), PullError> {
        let parent = parent.map(Digest::as_str).unwrap_or_default();
        let end = Instant::now() + RESTART;
        loop {
            let key = unpack_key(chain_id);
            match self.containerd().prepare(&self.options.snapshotter, &key, parent, labels.clone()).await {
                Err(error)
                    if (error.is_gone() || error.code() == Some(Code::Unavailable))
                        && Instant::now() < end =>
                {
                    tracing::debug!(%error, "trying again");
                    tokio::time::sleep(PAUSE).await;
                }
                prepared => return Ok((key, prepared?)),
            }
        }
    }

    /// How many of the lowest layers have their snapshots. They are under the lease then.
    async fn present(&self, stack: &Stack<'_>) -> Result<usize, PullError> {
        let snapshotter = &self.options.snapshotter;
        for (position, chain_id) in stack.chain.iter().enumerate().rev() {
            let snapshot = self.containerd().snapshot(snapshotter, chain_id.as_str()).await?;
            if !snapshot.is_some_and(|snapshot| snapshot.committed) {
                continue;
            }
            match self.lease.add_snapshot(snapshotter, chain_id.as_str()).await {
                Ok(()) => return Ok(position + 1),
                // Collected in between.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }

    /// How a snapshotter got a layer that it took over.
    async fn outcome(&self, layer: &Descriptor, chain_id: &Digest) -> Result<LayerOutcome, PullError> {
        let snapshotter = &self.options.snapshotter;
        for _ in 0..LOOKS {
            if let Some(snapshot) = self.containerd().snapshot(snapshotter, chain_id.as_str()).await? {
                let lazy = snapshot.labels.contains_key(REMOTE);
                return Ok(if lazy { LayerOutcome::Lazy } else { LayerOutcome::Local });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(PullError::Vanished {
            snapshotter: snapshotter.clone(),
            layer: layer.digest.clone(),
            chain_id: chain_id.clone(),
        })
    }

    /// Starts the download of a layer, if it has not been started.
    fn start(&self, downloads: &mut Downloads, position: usize, layer: &Descriptor) {
        let Some(task @ None) = downloads.tasks.get_mut(position) else { return };
        let download = Download {
            source: Arc::clone(&self.source),
            containerd: self.containerd().clone(),
            layer: layer.clone(),
        };
        let (permits, progress) = (Arc::clone(&downloads.permits), Arc::clone(&self.progress));
        *task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            // Never closed.
            let _permit = permits.acquire().await;
            let layer = download.layer.clone();
            progress.layer(&layer, PullEvent::Downloading);
            download.run(|bytes| progress.layer(&layer, PullEvent::Advanced(bytes))).await?;
            progress.layer(&layer, PullEvent::Unpacking);
            Ok(())
        })));
    }
}

/// A layer on its way to the content store.
struct Download {
    source: Arc<RegistrySource>,
    containerd: Containerd,
    layer: Descriptor,
}

impl Download {
    async fn run(&self, advanced: impl Fn(u64)) -> Result<(), ContainerdError> {
        let (client, layer) = (self.source.client(), &self.layer);
        let repository = self.source.reference().repository();
        // What the last of several tries from the same place gave is verified by containerd.
        let open = async |offset: u64| {
            if offset == 0 {
                return client.blob_stream(repository, layer).await;
            }
            let blob = client.blob_reader(repository, layer.digest.clone(), layer.size);
            blob.read_range(offset..layer.size).await
        };
        let origin: Labels = labels::distribution_source(repository, &Labels::new()).into_iter().collect();
        let name = format!("layer-{}", layer.digest);
        if self.containerd.write_content(&name, layer, &origin, open, advanced).await? == Written::There {
            let now = self.containerd.content_info(&layer.digest).await?.map(|info| info.labels);
            let origin = labels::distribution_source(repository, &now.unwrap_or_default());
            self.containerd.label_content(&layer.digest, origin.into_iter().collect()).await?;
        }
        Ok(())
    }
}

/// A name for an active snapshot, in containerd's form.
fn unpack_key(chain_id: &Digest) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("extract-{}-{:06x} {chain_id}", now.subsec_nanos(), fastrand::u32(..1 << 24))
}

/// What a remote snapshotter has to know to get a layer by itself.
fn snapshot_labels(
    stack: &Stack<'_>,
    position: usize,
    layer: &Descriptor,
    chain_id: &Digest,
    index: Option<&Digest>,
) -> Labels {
    let mut labels = Labels::from([
        (SNAPSHOT_REF.to_owned(), chain_id.to_string()),
        (IMAGE_REF.to_owned(), stack.name.to_owned()),
        (LAYER_DIGEST.to_owned(), layer.digest.to_string()),
        (MANIFEST_DIGEST.to_owned(), stack.manifest.digest.to_string()),
        (LABEL_LAYER_SIZE.to_owned(), layer.size.to_string()),
    ]);
    // From this layer up, as far as a label can hold: the snapshotter may get those ahead.
    let (mut digests, mut sizes) = (String::new(), String::new());
    for layer in stack.layers.iter().skip(position) {
        let comma = if digests.is_empty() { "" } else { "," };
        let (digest, size) = (format!("{comma}{}", layer.digest), format!("{comma}{}", layer.size));
        let fits = |key: &str, list: &str, more: &str| key.len() + list.len() + more.len() <= MAX_LABEL;
        if !(fits(IMAGE_LAYERS, &digests, &digest) && fits(LABEL_LAYER_SIZES, &sizes, &size)) {
            break;
        }
        digests += &digest;
        sizes += &size;
    }
    labels.insert(IMAGE_LAYERS.to_owned(), digests);
    labels.insert(LABEL_LAYER_SIZES.to_owned(), sizes);
    labels.extend(index.map(|index| (LABEL_INDEX_DIGEST.to_owned(), index.to_string())));
    // containerd would refuse the whole snapshot. Only the name can be that long.
    labels.retain(|key, value| key.len() + value.len() <= MAX_LABEL);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(layers: usize, position: usize, index: Option<&Digest>) -> Labels {
        let layer = |i: usize| Descriptor::new("l", Digest::of(&i.to_le_bytes()), 10 + i as u64);
        let layers: Vec<Descriptor> = (0..layers).map(layer).collect();
        let ids: Vec<Digest> = layers.iter().map(|layer| layer.digest.clone()).collect();
        let manifest = Descriptor::new("m", Digest::of(b"m"), 1);
        let stack =
            Stack { name: "h/a:v", manifest: &manifest, layers: &layers, diff_ids: ids.clone(), chain: ids };
        snapshot_labels(&stack, position, &layers[position], &stack.chain[position], index)
    }

    #[test]
    fn labels_name_the_layers_from_this_one_up() {
        let all = labels(3, 1, None);
        assert_eq!(
            all[IMAGE_LAYERS],
            format!("{},{}", Digest::of(&1usize.to_le_bytes()), Digest::of(&2usize.to_le_bytes()))
        );
        assert_eq!(all[LABEL_LAYER_SIZES], "11,12");
        assert_eq!(all[LABEL_LAYER_SIZE], "11");
        assert_eq!(all[IMAGE_REF], "h/a:v");
        assert!(!all.contains_key(LABEL_INDEX_DIGEST));
        let index = Digest::of(b"index");
        assert_eq!(labels(3, 1, Some(&index))[LABEL_INDEX_DIGEST], index.to_string());
    }

    #[test]
    fn lists_end_before_containerds_limit_and_have_one_length() {
        let all = labels(127, 0, None);
        assert!(all.iter().all(|(key, value)| key.len() + value.len() <= MAX_LABEL));
        let count = |key: &str| all[key].split(',').count();
        // 4096 bytes, 36 of them the key; 71 for a digest and one for a comma.
        assert_eq!(count(IMAGE_LAYERS), 56);
        assert_eq!(count(LABEL_LAYER_SIZES), 56);
    }

    #[test]
    fn keys_have_containerds_form() {
        let chain_id = Digest::of(b"c");
        let key = unpack_key(&chain_id);
        assert!(key.starts_with("extract-") && key.ends_with(&format!(" {chain_id}")), "{key}");
        assert_ne!(key, unpack_key(&chain_id));
    }
}
