//! Writing a tree as an EROFS image that has no contents.
//!
//! ```text
//! superblock | device table | inodes, each with its extended attributes and short contents | blocks of directories
//! ```
//!
//! Inodes are in the order of the tree, so those of the names in a directory are side by side. A file is one chunk
//! on the device of its layer: the stream in which each file of the layer begins at a block (see
//! [`crate::content::cache::LayerCache`]).
//!
//! A directory that is too long to follow its inode is one chunk, too, on a last device, which is the image once
//! more. The mount reads past the page cache, because the devices of the layers need that. A directory would then
//! be read from the disk, and the image would have to be written to the disk first; a device that FUSE serves
//! avoids that.

use std::io::{self, Write};
use std::ops::Range;

use super::error::ErofsError;
use super::format::{
    BLOCK, CHUNK_INDEX_SIZE, DEVICE_SIZE, DEVICES_OFFSET, DIRENT_SIZE, INODE_SIZE, InodeFields, Layout, SLOT,
    SUPER_OFFSET, Super, chunk_index, device, dirent, one_chunk, xattrs,
};
use crate::content::LayerTable;
use crate::content::tree::{FileId, Inode, InodeId, InodeIndex, InodeKind, Tree};
use crate::fronts::forest::kernel_device;

/// A layer as a device: its digest, in hexadecimal, and where its files are.
pub(super) type Device<'l> = (&'l str, &'l LayerTable);

/// Where an inode and its content are.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Offset of the inode in the image.
    inode: u64,
    /// Bytes of content that follow it, if the image has all of its content there.
    inline: u16,
    /// The first of its blocks behind the inodes.
    block: u32,
    /// How many of them it has.
    blocks: u32,
}

/// A tree with a place for everything in it.
#[derive(Debug)]
pub(super) struct Image<'t> {
    tree: &'t Tree,
    devices: &'t [Device<'t>],
    places: Vec<Place>,
    /// The parent of each inode. It means something for directories only.
    parents: Vec<InodeIndex>,
    /// Where the blocks behind the inodes begin.
    first_block: u32,
    blocks: u32,
}

fn inexpressible<T>(what: &'static str) -> Result<T, ErofsError> {
    Err(ErofsError::Inexpressible(what))
}

impl<'t> Image<'t> {
    /// Finds a place for everything in a tree over these layers, bottom first.
    ///
    /// # Errors
    /// If the format does not know something that the tree has.
    pub(super) fn plan(tree: &'t Tree, devices: &'t [Device<'t>]) -> Result<Self, ErofsError> {
        if !tree.entries().eq(devices.iter().map(|(_, table)| table.len())) {
            return inexpressible("layers that are not those of the tree");
        }
        let mut image = Self {
            tree,
            devices,
            places: Vec::with_capacity(tree.len()),
            parents: vec![tree.root(); tree.len()],
            first_block: 0,
            blocks: 0,
        };
        let (mut at, mut block) = (DEVICES_OFFSET + (devices.len() as u64 + 1) * DEVICE_SIZE, 0_u32);
        for (index, inode) in tree.inodes() {
            let (mut place, behind) = image.size(index, inode)?;
            at = at.next_multiple_of(SLOT);
            // Neither an inode nor the content behind it may cross the boundary of a block.
            let together = if place.inline > 0 { INODE_SIZE + behind } else { INODE_SIZE };
            if at % BLOCK + together > BLOCK {
                at = at.next_multiple_of(BLOCK);
            }
            place.inode = at;
            place.block = block;
            at += INODE_SIZE + behind;
            let next = block.checked_add(place.blocks);
            block = next.map_or_else(|| inexpressible("so many names"), Ok)?;
            image.places.push(place);
        }
        let first = u32::try_from(at.div_ceil(BLOCK)).ok();
        let total = first.and_then(|first| first.checked_add(block));
        let (Some(first), Some(total)) = (first, total) else { return inexpressible("so many files") };
        image.first_block = first;
        image.blocks = total;
        Ok(image)
    }

    /// Blocks and inline bytes of an inode, and all bytes behind it. Notes the parent of the directories in a
    /// directory.
    fn size(&mut self, index: InodeIndex, inode: &Inode) -> Result<(Place, u64), ErofsError> {
        let attributes = self.xattrs(index)?.len() as u64;
        let mut place = Place { inode: 0, block: 0, blocks: 0, inline: 0 };
        let content = match inode.kind {
            InodeKind::Directory => {
                let names = self.names(index);
                let directories = names.iter().filter(|(name, child)| {
                    self.tree.inode(*child).kind == InodeKind::Directory && !matches!(*name, b"." | b"..")
                });
                for child in directories.map(|(_, child)| child.position()) {
                    self.parents[child] = index;
                }
                let blocks = blocks_of(&names);
                let last = blocks.last().map_or(0, |last| length(&names[last.clone()]));
                (blocks.len() as u64 - 1) * BLOCK + last
            }
            InodeKind::Symlink => self.tree.link_target(index).len() as u64,
            InodeKind::Regular if inode.size > 0 => return Ok((place, chunked(attributes))),
            _ => return Ok((place, attributes)),
        };
        if INODE_SIZE + attributes + content <= BLOCK {
            place.inline = content as u16;
            return Ok((place, attributes + content));
        }
        let blocks = u32::try_from(content.div_ceil(BLOCK));
        place.blocks = blocks.or_else(|_| inexpressible("so large a directory"))?;
        Ok((place, chunked(attributes)))
    }

    fn xattrs(&self, index: InodeIndex) -> Result<Vec<u8>, ErofsError> {
        let all = xattrs(self.tree.xattrs(index));
        all.map_or_else(|| inexpressible("an extended attribute of unknown kind, or too large"), Ok)
    }

    /// The names in a directory, `.` and `..` among them, sorted bytewise.
    fn names(&self, directory: InodeIndex) -> Vec<(&'t [u8], InodeIndex)> {
        let tree = self.tree;
        let mut names: Vec<_> = tree.children(directory, 0).collect();
        let parent = self.parents[directory.position()];
        for dots in [(&b"."[..], directory), (b"..", parent)] {
            let at = names.partition_point(|(name, _)| *name < dots.0);
            names.insert(at, dots);
        }
        names
    }

    /// What the kernel calls an inode; it is its inode number, too.
    fn number(&self, index: InodeIndex) -> u64 {
        self.places[index.position()].inode / SLOT
    }

    /// Writes the image.
    ///
    /// # Errors
    /// If it cannot be written, or the layers do not have what the tree says.
    pub(super) fn write(&self, to: impl Write) -> Result<(), ErofsError> {
        let mut out = Output { to, at: 0 };
        let root = u16::try_from(self.number(self.tree.root()));
        let devices = u16::try_from(self.devices.len() + 1);
        let (Ok(root), Ok(devices)) = (root, devices) else { return inexpressible("so many layers") };
        out.pad_to(SUPER_OFFSET)?;
        out.put(&Super { root, devices, inodes: self.tree.len() as u64, blocks: self.blocks }.bytes())?;
        for (digest, table) in self.devices {
            out.put(&device(digest, table.block_count()))?;
        }
        out.put(&device("metadata", self.blocks))?;
        for (index, inode) in self.tree.inodes() {
            self.write_inode(index, inode, &mut out)?;
        }
        out.pad_to(u64::from(self.first_block) * BLOCK)?;
        for (index, inode) in self.tree.inodes() {
            let place = self.places[index.position()];
            if place.blocks > 0 {
                out.put(&self.content(index, inode))?;
                out.pad_to(out.at.next_multiple_of(BLOCK))?;
            }
        }
        out.pad_to(u64::from(self.blocks) * BLOCK)?;
        out.to.flush()?;
        Ok(())
    }

    fn write_inode(
        &self,
        index: InodeIndex,
        inode: &Inode,
        out: &mut Output<impl Write>,
    ) -> Result<(), ErofsError> {
        let place = self.places[index.position()];
        let (file_type, _) = types(inode.kind);
        let attributes = self.xattrs(index)?;
        let mut fields = InodeFields {
            layout: if place.inline > 0 { Layout::Inline } else { Layout::Plain },
            xattrs: attributes.len() as u64,
            mode: file_type | inode.mode & 0o7777,
            size: inode.size,
            place: 0,
            number: self.number(index),
            uid: inode.uid,
            gid: inode.gid,
            seconds: inode.mtime.seconds,
            nanos: inode.mtime.nanos,
            links: inode.links,
        };
        let mut behind = attributes;
        let chunk = match inode.kind {
            InodeKind::Regular if inode.size > 0 => Some(self.chunk(inode)?),
            InodeKind::Directory | InodeKind::Symlink => {
                let content = self.content(index, inode);
                fields.size = content.len() as u64;
                if place.blocks == 0 {
                    behind.extend(content);
                    None
                } else {
                    // The last device, and they are numbered from 1 on.
                    Some((self.devices.len() as u16 + 1, self.first_block + place.block))
                }
            }
            InodeKind::Char | InodeKind::Block => {
                fields.place = kernel_device(inode.device);
                None
            }
            _ => None,
        };
        if let Some((device, block)) = chunk {
            let Some(form) = one_chunk(fields.size) else {
                return inexpressible("a file of more than 8 TiB");
            };
            (fields.layout, fields.place) = (Layout::Chunks, form);
            behind.resize(behind.len().next_multiple_of(CHUNK_INDEX_SIZE as usize), 0);
            behind.extend(chunk_index(device, block));
        }
        out.pad_to(place.inode)?;
        out.put(&fields.bytes())?;
        out.put(&behind)?;
        Ok(())
    }

    /// Where a file is: the device, and the first block.
    fn chunk(&self, inode: &Inode) -> Result<(u16, u32), ErofsError> {
        let InodeId::File(FileId { layer, entry }) = inode.id() else {
            return inexpressible("a file of no layer");
        };
        let table = self.devices.get(usize::from(layer)).map(|(_, table)| table);
        let table = table.filter(|table| table.size(entry as usize) == inode.size);
        match (layer.checked_add(1), table.and_then(|table| table.first_block(entry as usize))) {
            (Some(device), Some(block)) => Ok((device, block)),
            _ => inexpressible("a file that its layer does not have"),
        }
    }

    /// What the image itself has of an inode's content.
    fn content(&self, index: InodeIndex, inode: &Inode) -> Vec<u8> {
        match inode.kind {
            InodeKind::Directory => {
                let names = self.names(index);
                let blocks = blocks_of(&names);
                let mut content = Vec::with_capacity(blocks.len() * BLOCK as usize);
                for block in blocks {
                    content.resize(content.len().next_multiple_of(BLOCK as usize), 0);
                    self.add_block(&names[block], &mut content);
                }
                content
            }
            _ => self.tree.link_target(index).to_vec(),
        }
    }

    /// Adds a block of a directory: its entries, and then their names.
    fn add_block(&self, names: &[(&[u8], InodeIndex)], content: &mut Vec<u8>) {
        let mut offset = names.len() * DIRENT_SIZE as usize;
        for (name, child) in names {
            let (_, file_type) = types(self.tree.inode(*child).kind);
            // Below the size of a block.
            content.extend(dirent(self.number(*child), offset as u16, file_type));
            offset += name.len();
        }
        for (name, _) in names {
            content.extend_from_slice(name);
        }
    }
}

/// Bytes behind an inode that has a chunk: its extended attributes, then, at a multiple of 8 bytes, the place of
/// the chunk.
fn chunked(attributes: u64) -> u64 {
    attributes.next_multiple_of(CHUNK_INDEX_SIZE) + CHUNK_INDEX_SIZE
}

/// Bytes that names take up in a directory.
fn length(names: &[(&[u8], InodeIndex)]) -> u64 {
    names.iter().map(|(name, _)| DIRENT_SIZE + name.len() as u64).sum()
}

/// Splits the names in a directory into what fits into a block each. A name has 255 bytes at most.
fn blocks_of(names: &[(&[u8], InodeIndex)]) -> Vec<Range<usize>> {
    let (mut blocks, mut start, mut used) = (Vec::new(), 0, 0);
    for (position, name) in names.iter().enumerate() {
        let more = length(std::slice::from_ref(name));
        if used + more > BLOCK {
            blocks.push(start..position);
            (start, used) = (position, 0);
        }
        used += more;
    }
    blocks.push(start..names.len());
    blocks
}

/// The type of a file in a mode, and in a directory.
fn types(kind: InodeKind) -> (u16, u8) {
    match kind {
        InodeKind::Regular => (0o100_000, 1),
        InodeKind::Directory => (0o040_000, 2),
        InodeKind::Char => (0o020_000, 3),
        InodeKind::Block => (0o060_000, 4),
        InodeKind::Fifo => (0o010_000, 5),
        InodeKind::Symlink => (0o120_000, 7),
    }
}

/// A writer that counts its bytes.
struct Output<W> {
    to: W,
    at: u64,
}

impl<W: Write> Output<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// Writes zeros up to an offset.
    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        while self.at < offset {
            let length = (offset - self.at).min(BLOCK) as usize;
            self.put(&ZEROS[..length])?;
        }
        Ok(())
    }
}
