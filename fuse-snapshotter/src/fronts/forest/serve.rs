//! The answers to the kernel's requests.

use std::sync::Arc;
use std::time::Instant;

use super::attr::{Attributes, FileSystemStats};
use super::error::FsError;
use super::file_system::Forest;
use super::inode_number::{Number, ROOT};
use super::operation_counts::Operation;
use super::state_files;
use super::tree_table::Found;
use crate::base::metrics;
use crate::content::LazyLayer;
use crate::content::cache::BLOCK_SIZE;
use crate::content::tree::InodeKind;

/// Content that is not in the cache, and that [`Forest::read_cached`] leaves to be fetched.
#[derive(Debug, Clone)]
pub struct Missing {
    layer: Arc<LazyLayer>,
    entry: usize,
    offset: u64,
    length: usize,
    /// When the kernel asked.
    asked: Instant,
}

/// Reads from an entry of a layer if the cache has the content. `buffer` is resized to `length`; the range must lie
/// within the content.
///
/// # Errors
/// Why the content cannot be read.
pub(crate) fn read_entry(
    layer: &Arc<LazyLayer>,
    entry: usize,
    offset: u64,
    length: usize,
    buffer: &mut Vec<u8>,
) -> Result<Option<Missing>, FsError> {
    let asked = Instant::now();
    buffer.resize(length, 0);
    if length == 0 || layer.try_read(entry, offset, buffer)?.is_some() {
        layer.metrics().served(length as u64, asked.elapsed());
        return Ok(None);
    }
    Ok(Some(Missing { layer: Arc::clone(layer), entry, offset, length, asked }))
}

impl Forest {
    /// Whether any inode may have an extended attribute, now or later.
    #[must_use]
    pub fn serves_xattrs(&self) -> bool {
        self.serves_xattrs
    }

    /// Whether the attributes of an inode, or the names in it, may be different the next time.
    #[must_use]
    pub fn is_volatile(&self, number: u64) -> bool {
        match Number::decode(number) {
            Some(Number::StateDirectory(_) | Number::StateFile(_)) => true,
            _ => number == ROOT && !self.single,
        }
    }

    fn is_forest_root(&self, number: u64) -> bool {
        number == ROOT && !self.single
    }

    /// The child of a directory. The kernel counts this as a reference; see [`Forest::forget`].
    ///
    /// # Errors
    /// [`FsError::NotFound`], or [`FsError::NotDirectory`].
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attributes, FsError> {
        let table = self.table.load();
        if self.is_forest_root(parent) {
            let placed = table.named(name).ok_or(FsError::NotFound)?;
            return Ok(placed.attributes(placed.tree.root()));
        }
        let number = Number::decode(parent).ok_or(FsError::Stale)?;
        match number {
            Number::StateDirectory(slot) => {
                let placed = table.tree(slot).ok_or(FsError::Stale)?;
                return self.state_files.lookup(placed, name);
            }
            Number::StateFile(counter) => {
                self.state_files.attributes(counter)?;
                return Err(FsError::NotDirectory);
            }
            Number::Own(..) | Number::File(..) => {}
        }
        let Found { placed, index, .. } = table.find(number)?;
        placed.counts.add(Operation::Lookup);
        let tree = &placed.tree;
        if tree.inode(index).kind != InodeKind::Directory {
            return Err(FsError::NotDirectory);
        }
        match tree.lookup(index, name) {
            Some(child) => Ok(placed.attributes(child)),
            None if index == tree.root() && name == state_files::NAME => Ok(state_files::directory(placed)),
            None => Err(FsError::NotFound),
        }
    }

    /// The kernel has dropped all its references to an inode.
    pub fn forget(&self, number: u64) {
        // All other inodes are computed from their numbers, so nothing is kept of them.
        if let Some(Number::StateFile(counter)) = Number::decode(number) {
            self.state_files.forget(counter);
        }
    }

    /// Attributes of an inode by its number.
    ///
    /// # Errors
    /// [`FsError::Stale`] if there is none.
    pub fn getattr(&self, number: u64) -> Result<Attributes, FsError> {
        let table = self.table.load();
        if self.is_forest_root(number) {
            let mut root = Attributes::of_our_own(ROOT, InodeKind::Directory, 0o700, 4096);
            root.links = root.links.saturating_add(u32::try_from(table.trees().count()).unwrap_or(u32::MAX));
            return Ok(root);
        }
        match Number::decode(number).ok_or(FsError::Stale)? {
            Number::StateDirectory(slot) => {
                table.tree(slot).map(|placed| state_files::directory(placed)).ok_or(FsError::Stale)
            }
            Number::StateFile(counter) => self.state_files.attributes(counter),
            number => {
                let Found { placed, index, .. } = table.find(number)?;
                placed.counts.add(Operation::Getattr);
                Ok(placed.attributes(index))
            }
        }
    }

    /// Hands the names in a directory to `full`, from a position on, sorted, without `.` and `..`, until `full`
    /// returns true: it has not taken this name. The names that it has taken count as references if the kernel gets
    /// them with attributes.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`].
    pub fn list(
        &self,
        directory: u64,
        start: usize,
        mut full: impl FnMut(&[u8], &Attributes) -> bool,
    ) -> Result<(), FsError> {
        let table = self.table.load();
        if self.is_forest_root(directory) {
            let mut roots = table.by_name().skip(start);
            let _ = roots.any(|placed| full(placed.name.as_bytes(), &placed.attributes(placed.tree.root())));
            return Ok(());
        }
        let asked = Instant::now();
        let number = Number::decode(directory).ok_or(FsError::Stale)?;
        match number {
            Number::StateDirectory(slot) => {
                let placed = table.tree(slot).ok_or(FsError::Stale)?;
                for name in state_files::names(placed).iter().skip(start) {
                    let file = self.state_files.lookup(placed, name.as_bytes())?;
                    if full(name.as_bytes(), &file) {
                        self.forget(file.number);
                        break;
                    }
                }
                return Ok(());
            }
            Number::StateFile(_) => return Err(FsError::NotDirectory),
            Number::Own(..) | Number::File(..) => {}
        }
        let Found { placed, index, .. } = table.find(number)?;
        placed.counts.add(Operation::Readdir);
        if placed.tree.inode(index).kind != InodeKind::Directory {
            return Err(FsError::NotDirectory);
        }
        let mut children = placed.tree.children(index, start);
        let _ = children.any(|(name, child)| full(name, &placed.attributes(child)));
        // A directory is merged of all layers; the topmost one stands for them.
        if let Some((_, layer)) = placed.layers.last() {
            layer.metrics().observe(metrics::Operation::NodeReaddir, asked.elapsed());
        }
        Ok(())
    }

    /// Counts a request that failed though it was a right one, for the layer that it was about.
    pub(crate) fn count_failure(&self, number: u64, operation: Operation, error: &FsError) {
        let layer = match Number::decode(number) {
            Some(Number::File(slot, _)) => self.layer(slot),
            _ => None,
        };
        let counters = layer.as_ref().map_or(self.metrics.no_layer(), |layer| layer.metrics());
        self.metrics.count_fuse_failure(counters, operation.failure_metric());
        if let FsError::Fetch(error) = error
            && let Some(kind) = error.kind()
        {
            self.metrics.count_fetch_error(kind);
        }
    }

    /// Answers an operation on an inode of an image; `None` if it is about another inode that exists.
    fn of_image<T>(
        &self,
        number: u64,
        operation: Operation,
        answer: impl FnOnce(Found<'_>) -> Result<T, FsError>,
    ) -> Result<Option<T>, FsError> {
        if self.is_forest_root(number) {
            return Ok(None);
        }
        let table = self.table.load();
        match Number::decode(number).ok_or(FsError::Stale)? {
            Number::StateDirectory(slot) => table.tree(slot).map(|_| None).ok_or(FsError::Stale),
            Number::StateFile(counter) => self.state_files.attributes(counter).map(|_| None),
            number => {
                let found = table.find(number)?;
                found.placed.counts.add(operation);
                answer(found).map(Some)
            }
        }
    }

    /// Notes that a file was opened.
    ///
    /// # Errors
    /// [`FsError::Stale`] if there is no such inode.
    pub fn open(&self, number: u64) -> Result<(), FsError> {
        self.of_image(number, Operation::Open, |_| Ok(())).map(drop)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if it is not one.
    pub fn readlink(&self, number: u64) -> Result<Vec<u8>, FsError> {
        let target = self.of_image(number, Operation::Readlink, |found| {
            match found.placed.tree.inode(found.index).kind {
                InodeKind::Symlink => Ok(found.placed.tree.link_target(found.index).to_vec()),
                _ => Err(FsError::Invalid),
            }
        })?;
        target.ok_or(FsError::Invalid)
    }

    /// Value of an extended attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`].
    pub fn getxattr(&self, number: u64, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let value = self.of_image(number, Operation::Getxattr, |found| {
            let mut xattrs = found.placed.tree.xattrs(found.index);
            let (_, value) = xattrs.find(|(candidate, _)| *candidate == name).ok_or(FsError::NoAttribute)?;
            let value = match &found.placed.ids {
                Some(ids) => ids.xattr(name, value).ok_or(FsError::NoAttribute)?,
                None => value.into(),
            };
            Ok(value.into_owned())
        })?;
        value.ok_or(FsError::NoAttribute)
    }

    /// Names of the extended attributes, each with a NUL behind it.
    ///
    /// # Errors
    /// [`FsError::Stale`] if there is no such inode.
    pub fn listxattr(&self, number: u64) -> Result<Vec<u8>, FsError> {
        let names = self.of_image(number, Operation::Listxattr, |found| {
            let xattrs = found.placed.tree.xattrs(found.index);
            Ok(xattrs.flat_map(|(name, _)| name.iter().copied().chain([0])).collect())
        })?;
        Ok(names.unwrap_or_default())
    }

    /// Where the content of a file is, if it has any: the layer, and the entry in its zTOC.
    pub(crate) fn content(&self, number: u64) -> Option<(Arc<LazyLayer>, usize)> {
        let Some(number @ Number::File(..)) = Number::decode(number) else { return None };
        let table = self.table.load();
        let (layer, entry) = table.find(number).ok()?.content?;
        Some((Arc::clone(layer), entry as usize))
    }

    /// Reads from a file if the cache has the content. `buffer` is resized to what there is to read: at most
    /// `length` bytes, fewer at the end of the file.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if it is not a file, or why its content cannot be read.
    pub fn read_cached(
        &self,
        number: u64,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Missing>, FsError> {
        if let Some(Number::StateFile(counter)) = Number::decode(number) {
            return self.state_files.read(counter, offset, length, buffer).map(|()| None);
        }
        let missing = self.of_image(number, Operation::Read, |found| {
            let inode = found.placed.tree.inode(found.index);
            let (InodeKind::Regular, Some((layer, entry))) = (inode.kind, found.content) else {
                return Err(if inode.kind == InodeKind::Directory {
                    FsError::IsDirectory
                } else {
                    FsError::Invalid
                });
            };
            let left = usize::try_from(inode.size.saturating_sub(offset)).unwrap_or(usize::MAX);
            read_entry(layer, entry as usize, offset, length.min(left), buffer)
        })?;
        missing.ok_or(FsError::IsDirectory)
    }

    /// Reads from a file, waiting for what has to be fetched.
    ///
    /// # Errors
    /// As [`Forest::read_cached`].
    pub async fn read(&self, number: u64, offset: u64, length: usize) -> Result<Vec<u8>, FsError> {
        let mut buffer = Vec::new();
        if let Some(missing) = self.read_cached(number, offset, length, &mut buffer)? {
            missing.read(&mut buffer).await?;
        }
        Ok(buffer)
    }

    /// Totals of the tree that an inode is in, or of all trees if it is in none.
    #[must_use]
    pub fn statfs(&self, number: u64) -> FileSystemStats {
        let table = self.table.load();
        let found = Number::decode(number).and_then(|number| table.find(number).ok());
        let trees: Vec<_> = match found {
            Some(found) => vec![found.placed],
            None => table.trees().collect(),
        };
        let size = trees.iter().fold(0_u64, |sum, placed| sum.saturating_add(placed.tree.total_size()));
        FileSystemStats {
            blocks: size.div_ceil(BLOCK_SIZE),
            files: trees.iter().map(|placed| placed.tree.len() as u64).sum(),
            block_size: BLOCK_SIZE as u32,
        }
    }
}

impl Missing {
    /// Fetches the content and reads it. `buffer` is resized to it.
    ///
    /// # Errors
    /// Why the content cannot be read.
    pub async fn read(&self, buffer: &mut Vec<u8>) -> Result<(), FsError> {
        buffer.resize(self.length, 0);
        let metrics = self.layer.metrics();
        metrics.count(metrics::Count::SynchronousReadRemoteFetch);
        self.layer.read(self.entry, self.offset, buffer).await?;
        metrics.served(self.length as u64, self.asked.elapsed());
        Ok(())
    }
}
