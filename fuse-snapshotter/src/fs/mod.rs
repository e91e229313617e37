//! The file system itself, over plain Rust types: what [`crate::fuse`] adapts to the kernel.
//!
//! Metadata come from the [`Tree`], at once and without I/O. Contents come from the layers' caches; only
//! [`ImageFs::read`] ever waits for the network.

mod attr;
mod error;

use std::sync::Arc;

pub use attr::{Attributes, FileSystemStats};
pub use error::FsError;

use crate::cache::BLOCK_SIZE;
use crate::fetch::LazyLayer;
use crate::tree::{FileId, InodeIndex, InodeKind, Tree};

/// One merged tree and the layers that its contents are in.
#[derive(Debug)]
pub struct ImageFs {
    tree: Tree,
    layers: Vec<Arc<LazyLayer>>,
}

/// Content that is not in the cache: what [`ImageFs::read`] has to fetch.
#[derive(Debug, Clone)]
pub struct Missing {
    layer: Arc<LazyLayer>,
    entry: usize,
    offset: u64,
    length: usize,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Name<'t> {
    /// The name.
    pub name: &'t [u8],
    /// What it names.
    pub inode: InodeIndex,
}

impl ImageFs {
    /// The file system of a tree over its layers, bottom first.
    #[must_use]
    pub fn new(tree: Tree, layers: Vec<Arc<LazyLayer>>) -> Self {
        Self { tree, layers }
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The layers, bottom first.
    #[must_use]
    pub fn layers(&self) -> &[Arc<LazyLayer>] {
        &self.layers
    }

    fn inode(&self, number: u64) -> Result<InodeIndex, FsError> {
        self.tree.by_number(number).ok_or(FsError::Stale)
    }

    /// The child of a directory.
    ///
    /// # Errors
    /// [`FsError::NotFound`], or [`FsError::NotDirectory`].
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attributes, FsError> {
        let parent = self.inode(parent)?;
        if self.tree.inode(parent).kind != InodeKind::Directory {
            return Err(FsError::NotDirectory);
        }
        let child = self.tree.lookup(parent, name).ok_or(FsError::NotFound)?;
        Ok(self.attributes(child))
    }

    /// Attributes of an inode by its number.
    ///
    /// # Errors
    /// [`FsError::Stale`] if there is none.
    pub fn getattr(&self, number: u64) -> Result<Attributes, FsError> {
        Ok(self.attributes(self.inode(number)?))
    }

    /// Attributes of an inode of this tree.
    #[must_use]
    pub fn attributes(&self, index: InodeIndex) -> Attributes {
        Attributes::of(self.tree.inode(index))
    }

    /// Names in a directory from a position on, sorted, without `.` and `..`.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`].
    pub fn names(&self, directory: u64, start: usize) -> Result<impl Iterator<Item = Name<'_>>, FsError> {
        let index = self.inode(directory)?;
        if self.tree.inode(index).kind != InodeKind::Directory {
            return Err(FsError::NotDirectory);
        }
        Ok(self.tree.children(index, start).map(|(name, inode)| Name { name, inode }))
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if it is not one.
    pub fn readlink(&self, number: u64) -> Result<&[u8], FsError> {
        let index = self.inode(number)?;
        match self.tree.inode(index).kind {
            InodeKind::Symlink => Ok(self.tree.link_target(index)),
            _ => Err(FsError::Invalid),
        }
    }

    /// Value of an extended attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`].
    pub fn getxattr(&self, number: u64, name: &[u8]) -> Result<&[u8], FsError> {
        let index = self.inode(number)?;
        let found = self.tree.xattrs(index).find(|(candidate, _)| *candidate == name);
        found.map(|(_, value)| value).ok_or(FsError::NoAttribute)
    }

    /// Names of the extended attributes, each with a NUL behind it.
    ///
    /// # Errors
    /// [`FsError::Stale`] if there is no such inode.
    pub fn listxattr(&self, number: u64) -> Result<Vec<u8>, FsError> {
        let index = self.inode(number)?;
        Ok(self.tree.xattrs(index).flat_map(|(name, _)| name.iter().copied().chain([0])).collect())
    }

    /// Reads from a file if the cache has the content. `buffer` is resized to what there is to read: at most
    /// `length` bytes, fewer at the end of the file.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if it is not a file, or why its content cannot be had.
    pub fn read_cached(
        &self,
        number: u64,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Missing>, FsError> {
        let index = self.inode(number)?;
        let inode = self.tree.inode(index);
        let (InodeKind::Regular, Some(FileId { layer, entry })) = (inode.kind, Tree::file_of(inode.number))
        else {
            return Err(if inode.kind == InodeKind::Directory {
                FsError::IsDirectory
            } else {
                FsError::Invalid
            });
        };
        let layer = self.layers.get(usize::from(layer)).ok_or(FsError::Stale)?;
        let left = usize::try_from(inode.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let missing =
            Missing { layer: Arc::clone(layer), entry: entry as usize, offset, length: length.min(left) };
        buffer.resize(missing.length, 0);
        if missing.length == 0 || missing.try_read(buffer)? {
            return Ok(None);
        }
        Ok(Some(missing))
    }

    /// Reads from a file, waiting for what has to be fetched.
    ///
    /// # Errors
    /// As [`ImageFs::read_cached`].
    pub async fn read(&self, number: u64, offset: u64, length: usize) -> Result<Vec<u8>, FsError> {
        let mut buffer = Vec::new();
        if let Some(missing) = self.read_cached(number, offset, length, &mut buffer)? {
            missing.read(&mut buffer).await?;
        }
        Ok(buffer)
    }

    /// Totals of the tree.
    #[must_use]
    pub fn statfs(&self) -> FileSystemStats {
        FileSystemStats {
            blocks: self.tree.total_size().div_ceil(BLOCK_SIZE),
            files: self.tree.len() as u64,
            block_size: BLOCK_SIZE as u32,
        }
    }
}

impl Missing {
    fn try_read(&self, buffer: &mut [u8]) -> Result<bool, FsError> {
        Ok(self.layer.try_read(self.entry, self.offset, buffer)?.is_some())
    }

    /// Fetches the content and reads it. `buffer` is resized to it.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn read(&self, buffer: &mut Vec<u8>) -> Result<(), FsError> {
        buffer.resize(self.length, 0);
        Ok(self.layer.read(self.entry, self.offset, buffer).await?)
    }
}
