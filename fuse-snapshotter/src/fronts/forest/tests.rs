//! The file system without a kernel.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod observe;
mod serve;
mod state_files;
mod tree_table;

use std::path::PathBuf;
use std::sync::Arc;

use registry::{Digest, FileBlob};
use testdata::image::{Compression, Entry, LayerBuilder};
use ztoc::{BuildOptions, Builder, Ztoc};

use super::attr::Attributes;
use super::error::FsError;
use super::file_system::Forest;
use super::inode_number::{LayerSlot, TreeSlot};
use crate::content::cache::CacheRoot;
use crate::content::tree::{Below, Tree};
use crate::content::{FetchContext, LayerTable, LazyLayer};

/// Makes layers that are read from files, and keeps what they need.
pub(crate) struct Rig {
    directory: tempfile::TempDir,
    source: FetchContext,
}

/// A layer ready to be merged and read.
pub(crate) struct Made {
    pub(crate) ztoc: Ztoc,
    pub(crate) lazy: Arc<LazyLayer>,
    /// Its file, as it would be in a registry.
    pub(crate) blob: PathBuf,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = Arc::new(CacheRoot::open(&directory.path().join("cache"), u64::MAX).unwrap());
        Self { source: FetchContext::new(cache, 4), directory }
    }

    /// Where its layers count.
    fn metrics(&self) -> &crate::base::metrics::Metrics {
        self.source.metrics()
    }

    pub(crate) fn layer(&self, entries: &[Entry]) -> Made {
        let mut layer = LayerBuilder::new(Compression::GZIP);
        for entry in entries {
            layer.add(entry.clone());
        }
        let bytes = layer.finish().bytes();
        let mut builder =
            Builder::new(BuildOptions { span_size: 1 << 16, ..BuildOptions::new(ztoc::Compression::Gzip) })
                .unwrap();
        builder.push(bytes.clone()).unwrap();
        let ztoc = Ztoc::parse(builder.finish().unwrap().bytes).unwrap();
        let digest = Digest::of(&bytes);
        let blob = self.directory.path().join(digest.hex());
        std::fs::write(&blob, &bytes).unwrap();
        let lazy = self.open(&ztoc, &digest);
        Made { ztoc, lazy, blob }
    }

    /// A layer that was made before, opened once more.
    fn open(&self, ztoc: &Ztoc, digest: &Digest) -> Arc<LazyLayer> {
        let table = LayerTable::new(ztoc).unwrap();
        let cache =
            self.source.cache().layer(digest.hex(), Digest::of(ztoc.bytes()).hex(), table.block_count());
        let file = self.directory.path().join(format!("{}.ztoc", digest.hex()));
        std::fs::write(&file, ztoc.bytes()).unwrap();
        let file = std::fs::File::open(&file).unwrap();
        let blob = FileBlob::open(self.directory.path().join(digest.hex()), digest.clone()).unwrap();
        LazyLayer::new(Arc::new(blob), table, cache.unwrap(), file, self.source.clone())
    }
}

/// Layers merged into a tree, bottom first.
pub(crate) fn merge(layers: &[&Made]) -> Tree {
    let ztocs: Vec<_> = layers.iter().map(|made| &made.ztoc).collect();
    Tree::merge(&ztocs, Below::Nothing).unwrap()
}

/// Adds a tree of layers, bottom first, each with its slot.
pub(crate) fn add_tree(forest: &Forest, slot: u32, name: &str, layers: &[(u32, &Made)]) {
    forest.add_tree(TreeSlot(slot), name, tree_of(layers), slots(layers), None).unwrap();
}

fn tree_of(layers: &[(u32, &Made)]) -> Tree {
    merge(&layers.iter().map(|(_, made)| *made).collect::<Vec<_>>())
}

fn slots(layers: &[(u32, &Made)]) -> Vec<(LayerSlot, Arc<LazyLayer>)> {
    layers.iter().map(|(slot, made)| (LayerSlot(*slot), Arc::clone(&made.lazy))).collect()
}

/// What is at a path, with look-ups only.
fn at(forest: &Forest, path: &str) -> Result<Attributes, FsError> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .try_fold(forest.getattr(super::ROOT)?, |parent, name| forest.lookup(parent.number, name.as_bytes()))
}

fn names(forest: &Forest, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    let directory = at(forest, path).unwrap().number;
    let listed = forest.list(directory, 0, |name, _| {
        names.push(String::from_utf8(name.to_vec()).unwrap());
        false
    });
    listed.unwrap();
    names
}

/// Everything below a directory, as listings and look-ups say, which must be the same.
fn walk(forest: &Forest, path: &str) -> Vec<(String, Attributes)> {
    let mut all = Vec::new();
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let found = at(forest, &path).unwrap();
        assert_eq!(forest.getattr(found.number).unwrap(), found, "{path}");
        if found.kind == crate::content::tree::InodeKind::Directory {
            let mut children = Vec::new();
            let listed = forest.list(found.number, 0, |name, attributes| {
                children.push((name.to_vec(), *attributes));
                false
            });
            listed.unwrap();
            for (name, attributes) in children {
                assert_eq!(forest.lookup(found.number, &name).unwrap(), attributes);
                pending.push(format!("{path}/{}", String::from_utf8(name).unwrap()));
            }
        }
        all.push((path, found));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
