//! The snapshotter with all its parts but containerd: a registry in this process, images made to measure, real mounts.
//!
//! [`Rig`] has the registry and the snapshotter, [`Client`] does what containerd does: it asks for one layer after the
//! other, looks for the label when it is told that a layer is there, and unpacks what it is given mounts for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cleanup;
mod client;
mod concurrent;
mod prefetch;
mod pull;
mod rebase;
mod restart;
mod sources;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use registry::{Client as RegistryClient, ClientConfig, Digest, RetryPolicy};
use soci_index::manifest::{IndexManifest, IndexVersion};
use soci_index::oci::{IMAGE_MANIFEST, ImageManifest};
use testdata::image::{Entry, Image, ImageBuilder, Layer};
use testdata::need::{Need, available};
use testdata::registry::TestRegistry;
use testdata::walk::{compare, walk};
use tokio::runtime::Handle;

use super::Snapshotter;
use super::layout::Layout;
use super::mounts::Mount;
use super::options::Options;
use super::restart::detach_all;
use crate::fronts::mount_point::detach;
use client::Client;

/// The repository that images are in.
const REPOSITORY: &str = "team/app";

/// Small, so that even test layers have several.
const SPAN: u64 = 1 << 16;

/// A snapshotter and the registry that it pulls from.
pub(super) struct Rig {
    pub(super) registry: TestRegistry,
    options: Options,
    snapshotter: Option<Arc<Snapshotter>>,
    directory: tempfile::TempDir,
}

impl Rig {
    /// None if this machine has not what is needed.
    async fn new() -> Option<Self> {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Option<Self> {
        if !available(&[Need::Root, Need::Fuse]) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut retry = RetryPolicy::default();
        retry.max_retries = 0;
        let client = RegistryClient::new(ClientConfig { retry, ..ClientConfig::default() }).unwrap();
        let mut options = Options {
            user_namespace_program: (
                PathBuf::from("unshare"),
                ["--user", "sh", "-c", "printf 1; exec cat"].map(str::to_owned).to_vec(),
            ),
            ..Options::new(directory.path().join("root"), client)
        };
        change(&mut options);
        let registry = TestRegistry::builder().start().await;
        let mut rig = Self { registry, options, snapshotter: None, directory };
        rig.start().await;
        Some(rig)
    }

    pub(super) fn snapshotter(&self) -> &Arc<Snapshotter> {
        self.snapshotter.as_ref().unwrap()
    }

    fn layout(&self) -> Layout {
        self.snapshotter().layout.clone()
    }

    async fn start(&mut self) {
        for _ in 0..500 {
            let options = self.options.clone();
            let opening = tokio::task::spawn_blocking(|| Snapshotter::open(options, Handle::current()));
            match opening.await.unwrap() {
                Ok(opened) => return self.snapshotter = Some(opened),
                // The threads that serve the kernel are not waited for, and let go of the cache when they end.
                Err(error) if error.to_string().contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("somebody still uses the old one");
    }

    /// Ends the snapshotter as a process ends, with its mounts left behind, and starts another one.
    async fn restart(&mut self) {
        let old = self.snapshotter.take().unwrap();
        // Tasks of its own, such as a tree that is mounted ahead.
        eventually("nobody uses the old one", || Arc::strong_count(&old) == 1).await;
        tokio::task::spawn_blocking(move || drop(old)).await.unwrap();
        self.start().await;
    }

    /// Puts an image into the registry.
    fn push(&self, image: &Image) {
        image.put_into(&self.registry, REPOSITORY, "1");
    }

    /// Puts an image and an index of some of its layers into the registry; the digest of the index.
    fn push_indexed(&self, image: &Image, indexed: &[usize]) -> Digest {
        self.push(image);
        self.index_as(image, indexed, |position| position)
    }

    /// An index in which the zTOC of layer `i` is that of layer `of(i)`.
    fn index_as(&self, image: &Image, indexed: &[usize], of: impl Fn(usize) -> usize) -> Digest {
        Self::index_in(&self.registry, image, indexed, of)
    }

    /// The same in any registry.
    fn index_in(
        registry: &TestRegistry,
        image: &Image,
        indexed: &[usize],
        of: impl Fn(usize) -> usize,
    ) -> Digest {
        let manifest = ImageManifest::parse(&image.manifest()).unwrap();
        let descriptor = |position: &usize| {
            let ztoc = ztoc_of(&image.layers()[of(*position)]);
            let digest = registry.put_blob(ztoc.clone()).parse().unwrap();
            let layer = &manifest.layers[*position];
            IndexManifest::ztoc_descriptor(digest, ztoc.len() as u64, layer, SPAN, false)
        };
        let subject = ::registry::Descriptor::new(
            image.media_type(),
            image.digest().parse().unwrap(),
            image.manifest().len() as u64,
        );
        let ztocs = indexed.iter().map(descriptor).collect();
        let index = IndexManifest::new(IndexVersion::V1, ztocs, Some(&subject), "test").encode();
        registry.put_blob("{}");
        let digest = Digest::of(&index);
        registry.put_manifest(REPOSITORY, digest.as_ref(), IMAGE_MANIFEST, index);
        digest
    }

    /// Mounts what containerd would mount.
    async fn mount(&self, mounts: &[Mount]) -> Mounted {
        let target = tempfile::tempdir_in(self.directory.path()).unwrap().keep();
        let [mount] = mounts else { panic!("{mounts:?}") };
        let (mount, path) = (mount.clone(), target.clone());
        tokio::task::spawn_blocking(move || {
            if mount.kind == "bind" {
                return rustix::mount::mount_bind(&mount.source, &path).unwrap();
            }
            let options = std::ffi::CString::new(mount.options.join(",")).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount(&*mount.source, &path, &*mount.kind, flags, Some(options.as_c_str()))
                .unwrap_or_else(|error| panic!("{mount:?}: {error}"));
        })
        .await
        .unwrap();
        Mounted(target)
    }

    /// Trees, layers, directories and caches are all gone.
    async fn assert_empty(&self) {
        let snapshotter = Arc::clone(self.snapshotter());
        eventually("scratch directories are gone", || count(&snapshotter.layout.unpack()) == 0).await;
        assert_eq!(snapshotter.layout.list().unwrap(), []);
        assert_eq!(snapshotter.trees.len(), 0);
        assert_eq!(snapshotter.trees.mounted().map_or(0, |forest| names(&forest)), 0);
        assert_eq!(snapshotter.layers.all().len(), 0);
        assert_eq!(snapshotter.cache.used(), 0);
        assert_eq!(count(&snapshotter.layout.ztocs()), 0);
        for space in ["trees", "layers"] {
            let numbers = snapshotter.store.numbers(space).unwrap();
            assert_eq!(numbers.len(), 1, "{numbers:?}");
        }
        let mounts = mounts_below(&snapshotter.layout.mounts());
        assert!(mounts.iter().all(|path| *path == snapshotter.layout.trees()), "{mounts:?}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(snapshotter) = self.snapshotter.take() {
            snapshotter.unmount_all();
        }
        if let Ok(layout) = Layout::create(&self.directory.path().join("root")) {
            detach_all(&layout);
        }
    }
}

/// A mount that goes when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// That the tree there is what the layers make.
    async fn assert_shows(&self, layers: &[Layer]) {
        self.compare(layers, false).await;
    }

    /// The same with an upper directory, which has a time of its own.
    async fn assert_shows_writable(&self, layers: &[Layer]) {
        self.compare(layers, true).await;
    }

    async fn compare(&self, layers: &[Layer], own_time: bool) {
        let (path, mut expected) = (self.0.clone(), testdata::expected::merge(layers));
        let walking = tokio::task::spawn_blocking(move || {
            let found = walk(&path);
            if own_time {
                expected.0.get_mut(&b""[..]).unwrap().mtime = found.0[&b""[..]].mtime;
            }
            compare(&found, &expected)
        });
        walking.await.unwrap().unwrap();
    }

    /// Reads a file as a process of the container does, which has this for its root.
    async fn read_inside(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let (root, path) = (self.0.clone(), Path::new("/").join(path));
        let reading = std::thread::spawn(move || {
            // Of this thread alone.
            #[expect(
                deprecated,
                reason = "what is unsafe about it, to have other file descriptors, is not asked for"
            )]
            rustix::thread::unshare(rustix::thread::UnshareFlags::FS)?;
            rustix::process::chroot(&root)?;
            std::fs::read(path)
        });
        tokio::task::spawn_blocking(move || reading.join().unwrap()).await.unwrap()
    }

    /// Reads a file as a process of the host.
    async fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let path = self.0.join(path);
        tokio::task::spawn_blocking(move || std::fs::read(path)).await.unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

fn ztoc_of(layer: &Layer) -> bytes::Bytes {
    let options = ztoc::BuildOptions { span_size: SPAN, ..ztoc::BuildOptions::new(ztoc::Compression::Gzip) };
    let mut builder = ztoc::Builder::new(options).unwrap();
    builder.push(layer.bytes()).unwrap();
    builder.finish().unwrap().bytes
}

fn layer(entries: impl IntoIterator<Item = Entry>) -> Layer {
    entries.into_iter().collect()
}

fn image(layers: impl IntoIterator<Item = Layer>) -> Image {
    layers.into_iter().fold(ImageBuilder::new(), ImageBuilder::layer).build()
}

/// Three layers with a file each, the last with a change to the first.
fn simple() -> Image {
    image([
        layer([
            Entry::dir("a").mode(0o711).owner(5, 6),
            Entry::file("a/one", "1".repeat(1000)),
            Entry::file("a/two", "22"),
        ]),
        layer([Entry::dir("b"), Entry::file("b/three", "333")]),
        layer([Entry::whiteout("a/two"), Entry::file("a/four", "4444")]),
    ])
}

fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

fn names(forest: &crate::fronts::forest::Forest) -> usize {
    let mut names = 0;
    forest
        .list(crate::fronts::forest::ROOT, 0, |_, _| {
            names += 1;
            false
        })
        .unwrap();
    names
}

fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let paths = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    paths.filter(|path| path.starts_with(directory)).collect()
}

/// Waits for something that others do.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still not: {what}");
}
