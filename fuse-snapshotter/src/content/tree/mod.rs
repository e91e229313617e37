//! The immutable directory tree of an image, merged from the zTOCs of its layers.
//!
//! [`Tree::merge`] applies layers bottom to top, in two steps a layer: `draft` turns a zTOC into the layer's
//! own tree (names cleaned, missing parents added, hard links joined, whiteouts set apart), and `merge` lays
//! that over what is below. The result is frozen into flat tables ([`Tree`]): inodes, and per directory a
//! run of names sorted bytewise, so that a look-up is a binary search and a listing is a slice.
//!
//! Inodes are named deterministically ([`InodeId`]): what has a zTOC entry by its layer and entry, directories by
//! their place in this tree. [`crate::fronts::forest`] makes inode numbers of that.

mod check;
mod draft;
mod freeze;
mod merge;
mod path;

#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

use ztoc::{EntryKind, Timestamp, Ztoc};

pub use check::Needs;

/// What lies below the layers of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// Nothing: whiteouts and opaque markers have done their work once the layers are merged.
    Nothing,
    /// Other layers, stacked by overlayfs: whiteouts are shown as character devices 0:0 and opaque
    /// directories carry the overlayfs attribute of this namespace, and so do directories with whiteouts. For the root
    /// see [`Tree::hides_all_below`].
    Layers(OverlayNamespace),
}

/// Which extended attributes overlayfs uses for its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayNamespace {
    /// `trusted.overlay.*`, the default.
    Trusted,
    /// `user.overlay.*`, for mounts with the option `userxattr`.
    User,
}

impl OverlayNamespace {
    /// Name of the attribute that marks a directory as opaque (value `y`).
    #[must_use]
    pub fn opaque_attribute(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.opaque",
            Self::User => b"user.overlay.opaque",
        }
    }

    /// Name of the attribute that says that a directory was merged with one below once, and so may contain
    /// whiteouts (value empty).
    #[must_use]
    pub fn origin_attribute(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.origin",
            Self::User => b"user.overlay.origin",
        }
    }
}

/// Why a layer cannot be served from its zTOC.
#[derive(Debug, thiserror::Error)]
#[error("layer {layer}: {name:?}: {reason}")]
pub struct TreeError {
    /// Index of the layer among those that were to be merged, bottom first.
    pub layer: usize,
    /// The entry's name.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The zTOC entry of anything but a directory; for a regular file that is where its content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Index of the layer, bottom first.
    pub layer: u16,
    /// Index of the zTOC entry.
    pub entry: u32,
}

/// What names an inode within its tree, the same whenever the tree is merged from the same layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InodeId {
    /// A directory or a whiteout, numbered within this tree; the root is 0.
    Own(u32),
    /// Anything else.
    File(FileId),
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InodeKind {
    /// A directory; its names are [`Tree::children`].
    Directory,
    /// A regular file with content.
    Regular,
    /// A symbolic link; see [`Tree::link_target`].
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

/// Attributes of a directory that come from outside the tree; see [`Tree::describe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryAttributes {
    /// Permission bits with setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Index of an inode within its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeIndex(u32);

impl InodeIndex {
    /// Its position among [`Tree::inodes`].
    #[must_use]
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// Attributes of a file or directory.
#[derive(Debug, Clone)]
pub struct Inode {
    /// What it is.
    pub kind: InodeKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes; of a symbolic link the length of its target.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Names of a file; 2 and one for each sub-directory of a directory.
    pub links: u32,
    /// Device numbers, major and minor.
    pub device: (u32, u32),
    /// The layer of [`FileId`], or [`OWN`].
    layer: u16,
    /// The entry of [`FileId`], or the number among the tree's own.
    entry: u32,
    /// Directories: range in `dirents`. Links: range in `text`.
    span: Range<u32>,
    /// Range in `xattrs`.
    xattrs: Range<u32>,
}

impl Inode {
    /// What names it.
    #[must_use]
    pub fn id(&self) -> InodeId {
        match self.layer {
            OWN => InodeId::Own(self.entry),
            layer => InodeId::File(FileId { layer, entry: self.entry }),
        }
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
struct Dirent {
    name: u32,
    length: u8,
    inode: InodeIndex,
}

#[derive(Debug, Clone)]
struct Xattr {
    name: Range<u32>,
    value: Range<u32>,
}

/// The merged tree. See the [module](self).
#[derive(Debug, Default)]
pub struct Tree {
    inodes: Vec<Inode>,
    dirents: Vec<Dirent>,
    /// Inodes without a zTOC entry that names them: directories and whiteouts.
    owned: Vec<InodeIndex>,
    /// Directories that no layer of the tree mentions itself, parents first.
    implied: Vec<InodeIndex>,
    /// Per layer, per zTOC entry: its inode, or `u32::MAX`.
    files: Vec<Vec<u32>>,
    text: Vec<u8>,
    xattrs: Vec<Xattr>,
    total_size: u64,
    hides_all_below: bool,
}

/// In place of a layer: named by the tree. No layer has this index, see [`Tree::merge`].
const OWN: u16 = u16::MAX;

impl Tree {
    /// Merges the layers of a chain, bottom first.
    ///
    /// # Errors
    /// [`TreeError`] names the layer that makes no sense, so that it can be unpacked instead.
    pub fn merge(layers: &[&Ztoc], below: Below) -> Result<Self, TreeError> {
        let mut image = draft::Draft::new();
        for (index, ztoc) in layers.iter().enumerate() {
            let error = |(name, reason): (&[u8], _)| TreeError {
                layer: index,
                name: String::from_utf8_lossy(name).into_owned(),
                reason,
            };
            let slot = u16::try_from(index).ok().filter(|slot| *slot != OWN);
            let slot = slot.ok_or_else(|| error((b"", "an image has at most 65,535 layers")))?;
            let layer = draft::Draft::of_layer(ztoc, slot).map_err(error)?;
            if index == 0 {
                image = merge::lowest(layer);
            } else {
                merge::apply(&mut image, layer, below == Below::Nothing).map_err(error)?;
            }
        }
        freeze::freeze(&image, layers, below).map_err(|(layer, name, reason)| TreeError {
            layer: layer.into(),
            name: String::from_utf8_lossy(name).into_owned(),
            reason,
        })
    }

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

fn kind(kind: EntryKind) -> Option<InodeKind> {
    Some(match kind {
        EntryKind::Directory => InodeKind::Directory,
        EntryKind::Regular => InodeKind::Regular,
        EntryKind::Symlink => InodeKind::Symlink,
        EntryKind::Char => InodeKind::Char,
        EntryKind::Block => InodeKind::Block,
        EntryKind::Fifo => InodeKind::Fifo,
        EntryKind::Hardlink => return None,
    })
}
