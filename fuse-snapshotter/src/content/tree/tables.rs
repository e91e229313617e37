//! The merged tree as flat tables, and how they are looked up.

use std::ops::Range;

use super::inode::{DirectoryAttributes, FileId, Inode, InodeId, InodeIndex, InodeKind};
use super::overlay::OverlayNamespace;
use super::path;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirent {
    pub(super) name: u32,
    pub(super) length: u8,
    pub(super) inode: InodeIndex,
}

#[derive(Debug, Clone)]
pub(super) struct Xattr {
    pub(super) name: Range<u32>,
    pub(super) value: Range<u32>,
}

/// The merged tree. See the [module](super).
#[derive(Debug, Default)]
pub struct Tree {
    pub(super) inodes: Vec<Inode>,
    pub(super) dirents: Vec<Dirent>,
    /// Inodes without a zTOC entry that names them: directories and whiteouts.
    pub(super) owned: Vec<InodeIndex>,
    /// Directories that no layer of the tree mentions itself, parents first.
    pub(super) implied: Vec<InodeIndex>,
    /// Per layer, per zTOC entry: its inode, or `u32::MAX`.
    pub(super) files: Vec<Vec<u32>>,
    pub(super) text: Vec<u8>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) total_size: u64,
    pub(super) hides_all_below: bool,
}

impl Tree {
    /// Whether the root is opaque: nothing below the tree shows through. Overlayfs does not look for the attribute
    /// on roots, so what is below must be left out of the mount.
    #[must_use]
    pub fn hides_all_below(&self) -> bool {
        self.hides_all_below
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> InodeIndex {
        InodeIndex(0)
    }

    /// The inode with this name.
    #[must_use]
    pub fn by_id(&self, id: InodeId) -> Option<InodeIndex> {
        match id {
            InodeId::Own(own) => self.owned.get(own as usize).copied(),
            InodeId::File(FileId { layer, entry }) => {
                let index = *self.files.get(usize::from(layer))?.get(entry as usize)?;
                (index != u32::MAX).then_some(InodeIndex(index))
            }
        }
    }

    /// Number of inodes that the tree itself names: [`InodeId::Own`] is below it.
    #[must_use]
    pub fn own_len(&self) -> usize {
        self.owned.len()
    }

    /// Number of zTOC entries of each layer, bottom first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = usize> {
        self.files.iter().map(Vec::len)
    }

    /// Attributes of an inode of this tree.
    #[must_use]
    pub fn inode(&self, index: InodeIndex) -> &Inode {
        &self.inodes[index.0 as usize]
    }

    /// All inodes, the root first. Those of the names in a directory follow one another.
    pub fn inodes(&self) -> impl ExactSizeIterator<Item = (InodeIndex, &Inode)> {
        // The tables of a tree have fewer than 2^32 rows.
        self.inodes.iter().enumerate().map(|(index, inode)| (InodeIndex(index as u32), inode))
    }

    /// Number of inodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Whether there is not even a root; never so for a merged tree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    /// Size of all files together, in bytes.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        self.total_size
    }

    /// Whether any inode has an extended attribute.
    #[must_use]
    pub fn has_xattrs(&self) -> bool {
        !self.xattrs.is_empty()
    }

    fn dirents(&self, directory: InodeIndex) -> &[Dirent] {
        let inode = self.inode(directory);
        match inode.kind {
            InodeKind::Directory => &self.dirents[inode.span.start as usize..inode.span.end as usize],
            _ => &[],
        }
    }

    fn name(&self, dirent: &Dirent) -> &[u8] {
        &self.text[dirent.name as usize..][..dirent.length.into()]
    }

    /// The child of a directory with this name.
    #[must_use]
    pub fn lookup(&self, directory: InodeIndex, name: &[u8]) -> Option<InodeIndex> {
        let dirents = self.dirents(directory);
        let found = dirents.binary_search_by(|dirent| self.name(dirent).cmp(name)).ok()?;
        Some(dirents[found].inode)
    }

    /// The names in a directory from position `start` on, sorted bytewise, without `.` and `..`.
    pub fn children(&self, directory: InodeIndex, start: usize) -> impl Iterator<Item = (&[u8], InodeIndex)> {
        let dirents = self.dirents(directory);
        dirents.get(start..).unwrap_or_default().iter().map(|dirent| (self.name(dirent), dirent.inode))
    }

    /// Target of a symbolic link; empty for all else.
    #[must_use]
    pub fn link_target(&self, index: InodeIndex) -> &[u8] {
        let inode = self.inode(index);
        match inode.kind {
            InodeKind::Symlink => self.text(&inode.span),
            _ => &[],
        }
    }

    fn text(&self, range: &Range<u32>) -> &[u8] {
        &self.text[range.start as usize..range.end as usize]
    }

    /// Extended attributes of an inode: names and values.
    pub fn xattrs(&self, index: InodeIndex) -> impl Iterator<Item = (&[u8], &[u8])> {
        let range = &self.inode(index).xattrs;
        self.xattrs[range.start as usize..range.end as usize]
            .iter()
            .map(|xattr| (self.text(&xattr.name), self.text(&xattr.value)))
    }

    /// Directories that no layer of the tree mentions itself, with their paths from the root. Over other layers they
    /// should have the attributes that those give them; so those that replace what is below are not among them.
    #[must_use]
    pub fn implied(&self) -> Vec<(Vec<u8>, InodeIndex)> {
        let mut found = Vec::new();
        if self.implied.is_empty() {
            return found;
        }
        let mut pending = vec![(Vec::new(), self.root())];
        while let Some((path, directory)) = pending.pop() {
            // What lies below an opaque directory is hidden, with its attributes.
            let opaque = self.xattrs(directory).any(|(name, _)| {
                [OverlayNamespace::Trusted, OverlayNamespace::User]
                    .iter()
                    .any(|n| n.opaque_attribute() == name)
            });
            for (name, child) in self.children(directory, 0).filter(|_| !opaque) {
                if self.inode(child).kind == InodeKind::Directory {
                    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    pending.push(([&path, separator, name].concat(), child));
                }
            }
            if self.implied.binary_search(&directory).is_ok() {
                found.push((path, directory));
            }
        }
        found
    }

    /// Gives a directory other attributes. Extended attributes are added to those it has.
    pub fn describe(&mut self, directory: InodeIndex, attributes: &DirectoryAttributes) {
        let own: Vec<_> =
            self.xattrs(directory).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let start = self.xattrs.len();
        for (name, value) in own.iter().chain(&attributes.xattrs) {
            let (Some(name), Some(value)) = (self.add_text(name), self.add_text(value)) else { return };
            self.xattrs.push(Xattr { name, value });
        }
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(self.xattrs.len())) else { return };
        let inode = &mut self.inodes[directory.0 as usize];
        inode.xattrs = start..end;
        inode.mode = attributes.mode;
        inode.uid = attributes.uid;
        inode.gid = attributes.gid;
        inode.mtime = attributes.mtime;
    }

    /// Appends to the texts; `None` beyond 4 GiB.
    fn add_text(&mut self, text: &[u8]) -> Option<Range<u32>> {
        let start = u32::try_from(self.text.len()).ok()?;
        let end = u32::try_from(self.text.len() + text.len()).ok()?;
        self.text.extend_from_slice(text);
        Some(start..end)
    }

    /// The inode at a path from the root; symbolic links are not followed.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<InodeIndex> {
        path::components(path)
            .ok()?
            .into_iter()
            .try_fold(self.root(), |directory, name| self.lookup(directory, name))
    }
}
