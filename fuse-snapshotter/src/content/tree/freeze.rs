//! From a draft to the flat tables of a [`Tree`].

use std::collections::VecDeque;
use std::ops::Range;

use ztoc::{Timestamp, Ztoc};

use super::draft::{Directory, Draft, Meta, Node};
use super::inode::{FileId, Inode, InodeId, InodeIndex, InodeKind, OWN};
use super::overlay::Below;
use super::tables::{Dirent, Tree, Xattr};

/// Extended attributes that overlayfs takes for its own marks. From an image they would be an attack.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The mode of every symbolic link. Linux takes it from no header: it is that of unpacked links, whoever made the
/// archive.
const SYMLINK_MODE: u16 = 0o777;

/// Why there is no tree: the layer, the entry's name, and the reason.
pub(super) type FreezeError<'a> = (u16, &'a [u8], &'static str);

const TOO_LARGE: FreezeError<'static> = (0, b"", "the tables of the merged tree exceed 4 GiB");

pub(super) fn freeze<'a>(
    draft: &Draft<'a>,
    layers: &[&'a Ztoc],
    below: Below,
) -> Result<Tree, FreezeError<'a>> {
    let mut freezer = Freezer {
        draft,
        layers,
        below,
        tree: Tree {
            files: layers.iter().map(|ztoc| vec![u32::MAX; ztoc.len()]).collect(),
            ..Tree::default()
        },
        indexes: vec![u32::MAX; draft.nodes.len()],
        queue: VecDeque::new(),
    };
    freezer.inode(0)?;
    // Breadth first: a directory's names and its sub-directories' inodes end up side by side.
    while let Some((node, index)) = freezer.queue.pop_front() {
        freezer.directory(node, index)?;
    }
    let Freezer { mut tree, .. } = freezer;
    let files = tree.inodes.iter().filter(|inode| inode.kind == InodeKind::Regular);
    tree.total_size = files.map(|inode| inode.size).fold(0, u64::saturating_add);
    tree.hides_all_below = draft.directory(0).is_some_and(|root| root.opaque);
    tree.inodes.shrink_to_fit();
    tree.dirents.shrink_to_fit();
    tree.text.shrink_to_fit();
    Ok(tree)
}

struct Freezer<'d, 'a> {
    draft: &'d Draft<'a>,
    layers: &'d [&'a Ztoc],
    below: Below,
    tree: Tree,
    /// Per node of the draft: its inode, or `u32::MAX`.
    indexes: Vec<u32>,
    /// Directories whose names are still to be listed.
    queue: VecDeque<(u32, u32)>,
}

impl<'a> Freezer<'_, 'a> {
    /// The inode of a node, made on first sight. Further names of a file count as links.
    fn inode(&mut self, node: u32) -> Result<u32, FreezeError<'a>> {
        let node = match self.draft.nodes[node as usize] {
            Node::Alias(target) => target,
            _ => node,
        };
        let known = self.indexes[node as usize];
        if known != u32::MAX {
            let inode = &mut self.tree.inodes[known as usize];
            inode.links = inode.links.saturating_add(1);
            return Ok(known);
        }
        let index = u32::try_from(self.tree.inodes.len()).map_err(|_| TOO_LARGE)?;
        let inode = match &self.draft.nodes[node as usize] {
            Node::Directory(directory) => self.new_directory(directory, index).ok_or(TOO_LARGE)?,
            Node::File(kind, meta) => self.new_file(*kind, meta, index).ok_or(TOO_LARGE)?,
            Node::Link(link) => {
                return Err((link.layer, link.name, "a hard link to a file that is not there"));
            }
            // Resolved above, and always to a file.
            Node::Alias(_) | Node::Whiteout => {
                let id = self.own(index).ok_or(TOO_LARGE)?;
                blank(InodeKind::Char, 0, id)
            }
        };
        self.tree.inodes.push(inode);
        self.indexes[node as usize] = index;
        if matches!(self.draft.nodes[node as usize], Node::Directory(_)) {
            self.queue.push_back((node, index));
        }
        Ok(index)
    }

    /// A name for what has no zTOC entry to be named by.
    fn own(&mut self, index: u32) -> Option<InodeId> {
        let own = u32::try_from(self.tree.owned.len()).ok()?;
        self.tree.owned.push(InodeIndex(index));
        Some(InodeId::Own(own))
    }

    fn new_directory(&mut self, directory: &Directory<'a>, index: u32) -> Option<Inode> {
        let id = self.own(index)?;
        let marks = match self.below {
            Below::Nothing => Vec::new(),
            Below::Layers(namespace) if directory.opaque => vec![(namespace.opaque_attribute(), &b"y"[..])],
            // Overlayfs looks for whiteouts only where it expects some. In a directory that nothing lies below it
            // would list them.
            Below::Layers(namespace) if self.has_whiteouts(directory) => {
                vec![(namespace.origin_attribute(), &b""[..])]
            }
            Below::Layers(_) => Vec::new(),
        };
        // A parent that no layer mentions is root's, as unpacking would make it.
        let mut inode = blank(InodeKind::Directory, 0o755, id);
        inode.links = 2;
        inode.size = 4096;
        // What takes the place of a directory below does not take over its attributes.
        if directory.meta.is_none() && !directory.replaces {
            self.tree.implied.push(InodeIndex(index));
        }
        if let Some(meta) = &directory.meta {
            describe(&mut inode, meta);
        }
        inode.xattrs = self.xattrs(directory.meta.as_ref(), &marks)?;
        Some(inode)
    }

    fn has_whiteouts(&self, directory: &Directory<'a>) -> bool {
        directory.children.values().any(|child| matches!(self.draft.nodes[*child as usize], Node::Whiteout))
    }

    fn new_file(&mut self, kind: InodeKind, meta: &Meta<'a>, index: u32) -> Option<Inode> {
        let mut inode = blank(kind, 0, InodeId::File(meta.file));
        describe(&mut inode, meta);
        match kind {
            InodeKind::Symlink => {
                inode.mode = SYMLINK_MODE;
                inode.span = self.text(meta.link_name)?;
                inode.size = meta.link_name.len() as u64;
            }
            InodeKind::Char | InodeKind::Block => inode.device = meta.device,
            InodeKind::Regular => inode.size = meta.size,
            _ => {}
        }
        inode.xattrs = self.xattrs(Some(meta), &[])?;
        self.tree.files[usize::from(meta.file.layer)][meta.file.entry as usize] = index;
        Some(inode)
    }

    fn directory(&mut self, node: u32, index: u32) -> Result<(), FreezeError<'a>> {
        let Some(directory) = self.draft.directory(node) else { return Ok(()) };
        let mut children: Vec<_> = directory.children.iter().map(|(name, child)| (*name, *child)).collect();
        children.sort_unstable();
        let start = u32::try_from(self.tree.dirents.len()).map_err(|_| TOO_LARGE)?;
        for (name, child) in children {
            match &self.draft.nodes[child as usize] {
                // Nothing is below that could be hidden.
                Node::Whiteout if self.below == Below::Nothing || directory.opaque => continue,
                Node::Directory(_) => self.tree.inodes[index as usize].links += 1,
                _ => {}
            }
            let inode = InodeIndex(self.inode(child)?);
            let length = u8::try_from(name.len()).map_err(|_| TOO_LARGE)?;
            let name = self.text(name).ok_or(TOO_LARGE)?.start;
            self.tree.dirents.push(Dirent { name, length, inode });
        }
        self.tree.inodes[index as usize].span =
            start..u32::try_from(self.tree.dirents.len()).map_err(|_| TOO_LARGE)?;
        Ok(())
    }

    fn xattrs(&mut self, meta: Option<&Meta<'a>>, marks: &[(&[u8], &[u8])]) -> Option<Range<u32>> {
        let start = u32::try_from(self.tree.xattrs.len()).ok()?;
        let entry = meta
            .filter(|m| m.has_xattrs)
            .and_then(|m| self.layers[usize::from(m.file.layer)].entry(m.file.entry as usize));
        let mut found: Vec<(&[u8], &[u8])> = entry.map(|e| e.xattrs().collect()).unwrap_or_default();
        found.retain(|(name, _)| {
            !name.is_empty()
                && name.len() <= 255
                && !name.contains(&0)
                && !OVERLAY_PREFIXES.iter().any(|p| name.starts_with(p))
        });
        // Of equal names the last one counts.
        found.reverse();
        found.sort_by_key(|(name, _)| *name);
        found.dedup_by_key(|(name, _)| *name);
        found.extend(marks);
        for (name, value) in found {
            let xattr = Xattr { name: self.text(name)?, value: self.text(value)? };
            self.tree.xattrs.push(xattr);
        }
        Some(start..u32::try_from(self.tree.xattrs.len()).ok()?)
    }

    fn text(&mut self, text: &[u8]) -> Option<Range<u32>> {
        let start = u32::try_from(self.tree.text.len()).ok()?;
        self.tree.text.extend_from_slice(text);
        Some(start..u32::try_from(self.tree.text.len()).ok()?)
    }
}

fn blank(kind: InodeKind, mode: u16, id: InodeId) -> Inode {
    let (layer, entry) = match id {
        InodeId::Own(own) => (OWN, own),
        InodeId::File(FileId { layer, entry }) => (layer, entry),
    };
    Inode {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Timestamp { seconds: 0, nanos: 0 },
        links: 1,
        device: (0, 0),
        layer,
        entry,
        span: 0..0,
        xattrs: 0..0,
    }
}

fn describe(inode: &mut Inode, meta: &Meta<'_>) {
    inode.mode = meta.mode;
    inode.uid = meta.uid;
    inode.gid = meta.gid;
    inode.mtime = meta.mtime;
}
