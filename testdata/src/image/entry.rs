//! One entry of a layer.

use std::collections::BTreeMap;

use super::content::{Content, Texture};
use super::sparse::SparseFormat;

/// What an entry is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A regular file.
    File(Content),
    /// Another name for the entry with this path in the layer.
    HardLink(Vec<u8>),
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
    /// A PAX global header (typeflag `g`); its records are the entry's `pax` records.
    Global,
    /// Some other typeflag, with data.
    Other(u8, Content),
}

/// How what does not fit into a ustar header is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// A PAX `x` header where one is needed: long or non-ASCII names, xattrs, fractions of a second, big numbers.
    #[default]
    Pax,
    /// GNU: `L` and `K` entries for long names, base-256 for big numbers. No xattrs, no fractions.
    Gnu,
    /// Only what a ustar header holds, with long names split into prefix and name.
    Ustar,
    /// The header of Unix V7: no magic, no owner names, no device numbers.
    V7,
}

/// One entry of a layer, as the tar header has it. Built by the functions named after what it is.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name exactly as written, except that a directory gets a final `/`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The mode field.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Owner's name.
    pub uname: Vec<u8>,
    /// Group's name.
    pub gname: Vec<u8>,
    /// Modification time: seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds on top.
    pub mtime_nanos: u32,
    /// Extended attributes, written as `SCHILY.xattr.` records.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Further PAX records, in this order, after all others.
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
    /// How it is written.
    pub format: Format,
    /// How holes are written, if the content has any.
    pub sparse: SparseFormat,
    /// The size field of an entry that has no data.
    pub header_size: u64,
}

/// The time stamp of entries that do not say otherwise: 2023-11-14 22:13:20 UTC.
pub const MTIME: i64 = 1_700_000_000;

impl Entry {
    /// An entry of any kind, with mode 0644.
    pub fn new(path: impl AsRef<[u8]>, kind: Kind) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            uname: Vec::new(),
            gname: Vec::new(),
            mtime: MTIME,
            mtime_nanos: 0,
            xattrs: BTreeMap::new(),
            pax: Vec::new(),
            format: Format::Pax,
            sparse: SparseFormat::Pax10,
            header_size: 0,
        }
    }

    /// A regular file, mode 0644.
    pub fn file(path: impl AsRef<[u8]>, content: impl Into<Content>) -> Self {
        Self::new(path, Kind::File(content.into()))
    }

    /// A regular file of made-up bytes, mode 0644.
    pub fn made(path: impl AsRef<[u8]>, texture: Texture, seed: u64, len: u64) -> Self {
        Self::new(path, Kind::File(Content::Made { texture, seed, len }))
    }

    /// A file with holes, mode 0644.
    pub fn sparse(path: impl AsRef<[u8]>, len: u64, pieces: &[(u64, &[u8])], format: SparseFormat) -> Self {
        let pieces = pieces.iter().map(|(at, data)| (*at, data.to_vec().into())).collect();
        Self { sparse: format, ..Self::new(path, Kind::File(Content::Sparse { pieces, len })) }
    }

    /// A directory, mode 0755.
    pub fn dir(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Dir).mode(0o755)
    }

    /// A symbolic link, mode 0777.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Symlink(target.as_ref().to_vec())).mode(0o777)
    }

    /// A hard link to the entry `target` of the layer.
    pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::HardLink(target.as_ref().to_vec()))
    }

    /// A character device.
    pub fn char_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::Char(major, minor))
    }

    /// A block device.
    pub fn block_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::Block(major, minor))
    }

    /// A named pipe.
    pub fn fifo(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Fifo)
    }

    /// The whiteout that hides `path` of the layers below.
    pub fn whiteout(path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let name = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
        Self::file([&path[..name], b".wh.", &path[name..]].concat(), "").mode(0)
    }

    /// The marker that hides everything in the directory `path` of the layers below.
    pub fn opaque(path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let slash: &[u8] = if path.is_empty() || path.ends_with(b"/") { b"" } else { b"/" };
        Self::file([path, slash, b".wh..wh..opq"].concat(), "").mode(0)
    }

    /// A PAX global header.
    pub fn global_pax(records: &[(&str, &str)]) -> Self {
        let mut entry = Self::new("pax_global_header", Kind::Global);
        entry.pax = records.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        entry
    }

    /// An entry with any typeflag.
    pub fn other(path: impl AsRef<[u8]>, typeflag: u8, content: impl Into<Content>) -> Self {
        Self::new(path, Kind::Other(typeflag, content.into()))
    }

    /// Sets the mode field.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets owner and group.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Sets the names of owner and group.
    #[must_use]
    pub fn owner_names(mut self, uname: &str, gname: &str) -> Self {
        (self.uname, self.gname) = (uname.into(), gname.into());
        self
    }

    /// Sets the modification time: seconds since 1970 and nanoseconds on top.
    #[must_use]
    pub fn mtime(mut self, seconds: i64, nanos: u32) -> Self {
        (self.mtime, self.mtime_nanos) = (seconds, nanos);
        self
    }

    /// Adds an extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.xattrs.insert(name.as_ref().to_vec(), value.as_ref().to_vec());
        self
    }

    /// Adds a PAX record as it is.
    #[must_use]
    pub fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Sets how it is written.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets the size field of an entry that has no data (some old tools write one for directories and links).
    #[must_use]
    pub fn header_size(mut self, size: u64) -> Self {
        self.header_size = size;
        self
    }

    /// The content, if it has any of its own.
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            Kind::File(content) | Kind::Other(_, content) => Some(content),
            _ => None,
        }
    }
}
