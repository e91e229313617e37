//! A tree under construction; and how one layer's zTOC becomes one.

use std::collections::HashMap;

use ztoc::{EntryKind, EntryRef, Timestamp, Ztoc};

use super::inode::{FileId, InodeKind, kind_of};
use super::path;

/// What is wrong, and with which entry.
pub(super) type DraftError<'a> = (&'a [u8], &'static str);

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

/// Attributes of a node, borrowed from the zTOC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta<'a> {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) device: (u32, u32),
    pub(super) link_name: &'a [u8],
    pub(super) file: FileId,
    /// Whether the entry has extended attributes: most have none, and reading an entry again takes time.
    pub(super) has_xattrs: bool,
}

impl<'a> Meta<'a> {
    fn new(entry: &EntryRef<'a>, file: FileId) -> Self {
        Self {
            mode: (entry.mode & 0o7777) as u16,
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            mtime: entry.mtime(),
            // The kernel has 12 bits of major and 20 of minor numbers.
            device: ((entry.devmajor & 0xfff) as u32, (entry.devminor & 0xf_ffff) as u32),
            link_name: entry.link_name,
            file,
            has_xattrs: entry.xattrs().next().is_some(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Directory<'a> {
    pub(super) children: HashMap<&'a [u8], u32>,
    /// Nothing below shows through.
    pub(super) opaque: bool,
    /// Takes the place of what is below instead of merging with it.
    pub(super) replaces: bool,
    /// `None` for a parent that the layer does not mention itself.
    pub(super) meta: Option<Meta<'a>>,
}

#[derive(Debug)]
pub(super) enum Node<'a> {
    Directory(Directory<'a>),
    File(InodeKind, Meta<'a>),
    /// Another name of this file, which a layer below has.
    Alias(u32),
    /// A hard link whose target the layer itself does not have.
    Link(LinkBelow<'a>),
    Whiteout,
}

/// A name for a file of a layer below.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkBelow<'a> {
    pub(super) layer: u16,
    pub(super) name: &'a [u8],
    pub(super) target: &'a [u8],
}

/// Longest target of a symbolic link, in bytes: what readlink(2) and FUSE can return.
const MAX_TARGET: usize = 4095;

/// Directories that a layer may imply without an entry for each of its entries: archivers that leave them out imply
/// one or two. Without a limit a path of 4096 bytes would cost 2000 directories.
const MAX_IMPLIED: usize = 16;

/// Directories that even the smallest layer may imply: two of the longest paths.
const MIN_ALLOWANCE: usize = 4096;

/// A tree under construction. Node 0 is the root.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    /// The nodes that are [`Node::Link`].
    pub(super) links: Vec<u32>,
    /// How many more directories may be implied.
    allowance: usize,
}

fn directory<'a>(meta: Option<Meta<'a>>) -> Node<'a> {
    Node::Directory(Directory { children: HashMap::new(), opaque: false, replaces: false, meta })
}

impl<'a> Draft<'a> {
    /// An empty root.
    pub(super) fn new() -> Self {
        Self { nodes: vec![directory(None)], links: Vec::new(), allowance: 0 }
    }

    pub(super) fn directory(&self, node: u32) -> Option<&Directory<'a>> {
        match &self.nodes[node as usize] {
            Node::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, node: u32) -> Option<&mut Directory<'a>> {
        match &mut self.nodes[node as usize] {
            Node::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn child(&self, parent: u32, name: &[u8]) -> Option<u32> {
        self.directory(parent)?.children.get(name).copied()
    }

    /// The node at a path from the root.
    pub(super) fn find(&self, components: &[&[u8]]) -> Option<u32> {
        components.iter().try_fold(0, |node, name| self.child(node, name))
    }

    fn add(&mut self, node: Node<'a>) -> Result<u32, &'static str> {
        let index = u32::try_from(self.nodes.len()).map_err(|_| "too many entries")?;
        self.nodes.push(node);
        Ok(index)
    }

    pub(super) fn insert(&mut self, parent: u32, name: &'a [u8], node: u32) {
        if let Some(directory) = self.directory_mut(parent) {
            directory.children.insert(name, node);
        }
    }

    /// Removes a child; returns whether it was a directory.
    fn remove(&mut self, parent: u32, name: &[u8]) -> bool {
        let removed = self.directory_mut(parent).and_then(|directory| directory.children.remove(name));
        removed.is_some_and(|node| self.directory(node).is_some())
    }

    /// The child directory with this name. One that is missing is added, and one that takes the place of
    /// something else replaces it: links are never followed, so a file or link cannot be a parent.
    fn descend(&mut self, parent: u32, name: &'a [u8]) -> Result<u32, &'static str> {
        match self.child(parent, name) {
            Some(child) if self.directory(child).is_some() => Ok(child),
            _ if self.allowance == 0 => Err("too many directories without entries"),
            _ => {
                self.allowance -= 1;
                self.add_directory(parent, name, None)
            }
        }
    }

    fn add_directory(
        &mut self,
        parent: u32,
        name: &'a [u8],
        meta: Option<Meta<'a>>,
    ) -> Result<u32, &'static str> {
        let child = self.add(directory(meta))?;
        self.insert(parent, name, child);
        Ok(child)
    }

    /// The tree of one layer on its own.
    pub(super) fn of_layer(ztoc: &'a Ztoc, layer: u16) -> Result<Self, DraftError<'a>> {
        let mut draft = Self::new();
        draft.nodes.reserve(ztoc.len());
        draft.allowance = MAX_IMPLIED.saturating_mul(ztoc.len()).saturating_add(MIN_ALLOWANCE);
        let mut whiteouts = Vec::new();
        // Entries mostly come directory by directory, so the latest parent is most likely the next one, too.
        let mut latest: Option<(&[u8], u32)> = None;
        for (index, entry) in ztoc.entries().enumerate() {
            let error = |reason| (entry.name, reason);
            let file = FileId { layer, entry: u32::try_from(index).map_err(|_| error("too many entries"))? };
            let (parent_path, parent, name) = match latest {
                Some((path, node)) if plain_child(path, entry.name).is_some() => {
                    (path, node, plain_child(path, entry.name))
                }
                _ => {
                    let mut components = path::components(entry.name).map_err(error)?;
                    let name = components.pop();
                    let mut parent = 0;
                    for component in components {
                        parent = draft.descend(parent, component).map_err(error)?;
                    }
                    (parent_path(entry.name), parent, name)
                }
            };
            latest = plain_child(parent_path, entry.name).map(|_| (parent_path, parent));
            let Some(name) = name else {
                // `./`: the root itself.
                if let (EntryKind::Directory, Some(root)) = (entry.kind, draft.directory_mut(0)) {
                    root.meta = Some(Meta::new(&entry, file));
                }
                continue;
            };
            if name == OPAQUE_MARKER {
                if let Some(directory) = draft.directory_mut(parent) {
                    directory.opaque = true;
                }
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
                // `.wh..wh.*` is bookkeeping of aufs; the others are no names.
                if !hidden.starts_with(WHITEOUT_PREFIX) && !matches!(hidden, b"" | b"." | b"..") {
                    whiteouts.push((parent, hidden));
                }
            } else if entry.kind == EntryKind::Char && (entry.devmajor, entry.devminor) == (0, 0) {
                // An entry like any other, too: it replaces what the layer had there.
                if draft.remove(parent, name) {
                    latest = None;
                }
                whiteouts.push((parent, name));
            } else {
                let replaced = draft.place(parent, name, &entry, file).map_err(error)?;
                if replaced {
                    latest = None;
                }
            }
        }
        draft.place_whiteouts(&whiteouts).map_err(|reason| (&b""[..], reason))?;
        Ok(draft)
    }

    /// Puts an entry into its directory; returns whether that removed a directory.
    fn place(
        &mut self,
        parent: u32,
        name: &'a [u8],
        entry: &EntryRef<'a>,
        file: FileId,
    ) -> Result<bool, &'static str> {
        let existing = self.child(parent, name);
        let was_directory = existing.is_some_and(|node| self.directory(node).is_some());
        let meta = Meta::new(entry, file);
        match kind_of(entry.kind) {
            Some(InodeKind::Directory) => {
                match existing.and_then(|node| self.directory_mut(node)) {
                    // A directory that comes again keeps its children and takes the later attributes.
                    Some(directory) => directory.meta = Some(meta),
                    None => drop(self.add_directory(parent, name, Some(meta))?),
                }
                return Ok(false);
            }
            Some(kind) => {
                if kind == InodeKind::Symlink && !is_target(entry.link_name) {
                    return Err("a symbolic link's target is empty, too long, or contains a NUL byte");
                }
                let node = self.add(Node::File(kind, meta))?;
                self.insert(parent, name, node);
            }
            None => {
                let target = path::components(entry.link_name)?;
                match self.find(&target) {
                    Some(node) if self.directory(node).is_some() => return Err("a hard link to a directory"),
                    Some(node) => self.insert(parent, name, node),
                    None => {
                        let link = LinkBelow { layer: file.layer, name: entry.name, target: entry.link_name };
                        let node = self.add(Node::Link(link))?;
                        self.links.push(node);
                        self.insert(parent, name, node);
                    }
                }
            }
        }
        Ok(was_directory)
    }

    /// Whiteouts come last: they hide what is below the layer, never what the layer itself adds.
    fn place_whiteouts(&mut self, whiteouts: &[(u32, &'a [u8])]) -> Result<(), &'static str> {
        for &(parent, name) in whiteouts {
            match self.child(parent, name) {
                Some(child) => {
                    if let Some(directory) = self.directory_mut(child) {
                        directory.replaces = true;
                    }
                }
                None => {
                    let node = self.add(Node::Whiteout)?;
                    self.insert(parent, name, node);
                }
            }
        }
        Ok(())
    }
}

fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= MAX_TARGET && !target.contains(&0)
}

/// The part of a name before its last component, with its slash.
fn parent_path(name: &[u8]) -> &[u8] {
    let trimmed = name.strip_suffix(b"/").unwrap_or(name);
    let slash = trimmed.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    &name[..slash]
}

/// The last component of `name`, if it is `parent` and then one plain component.
fn plain_child<'a>(parent: &[u8], name: &'a [u8]) -> Option<&'a [u8]> {
    let rest = name.strip_prefix(parent)?;
    let child = rest.strip_suffix(b"/").unwrap_or(rest);
    let plain = !child.is_empty()
        && child.len() <= 255
        && name.len() <= 4096
        && child != b"."
        && child != b".."
        && !child.iter().any(|b| *b == b'/' || *b == 0);
    plain.then_some(child)
}
