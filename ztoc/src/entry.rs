//! Entries of the table of contents.

use crate::time::Timestamp;

/// What a tar entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A further name of an earlier entry.
    Hardlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

impl EntryKind {
    /// The name a zTOC uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "reg",
            Self::Directory => "dir",
            Self::Symlink => "symlink",
            Self::Hardlink => "hardlink",
            Self::Char => "char",
            Self::Block => "block",
            Self::Fifo => "fifo",
        }
    }

    /// The kind that a zTOC calls `name`.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Regular, Self::Directory, Self::Symlink, Self::Hardlink, Self::Char, Self::Block, Self::Fifo]
            .into_iter()
            .find(|kind| kind.as_str().as_bytes() == name)
    }
}

/// The PAX record prefix of extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// One entry, owned; what the tar walk yields. See [`EntryRef`] for the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `EntryRef`, which documents them")]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: EntryKind,
    pub offset: u64,
    pub size: u64,
    pub link_name: Vec<u8>,
    pub mode: i64,
    pub uid: u32,
    pub gid: u32,
    pub uname: Vec<u8>,
    pub gname: Vec<u8>,
    pub mtime: Timestamp,
    pub devmajor: i64,
    pub devminor: i64,
    /// All PAX records, sorted by key.
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Bytes this entry needs in memory or in a zTOC, roughly.
    pub(crate) fn weight(&self) -> usize {
        let text = self.name.len() + self.link_name.len() + self.uname.len() + self.gname.len();
        let pax: usize = self.pax.iter().map(|(key, value)| key.len() + value.len() + 32).sum();
        text + pax + 200
    }

    /// The extended attributes: name without `SCHILY.xattr.`, and value.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pax.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR_PREFIX)?, value.as_slice())))
    }
}

/// One entry of a [`Ztoc`](crate::Ztoc), borrowed from its bytes.
///
/// Names are raw bytes as they stand in the tar: not cleaned, not necessarily UTF-8, directories
/// usually with a trailing `/`.
#[derive(Debug, Clone, Copy)]
pub struct EntryRef<'a> {
    /// Name as in the archive.
    pub name: &'a [u8],
    /// What it is.
    pub kind: EntryKind,
    /// Offset of the first content byte in the uncompressed archive.
    pub offset: u64,
    /// Content size in bytes; 0 for all that is not a regular file.
    pub size: u64,
    /// Target of a symbolic or hard link, else empty.
    pub link_name: &'a [u8],
    /// The mode number of the tar header, which may include type bits.
    pub mode: i64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name.
    pub uname: &'a [u8],
    /// Group's name.
    pub gname: &'a [u8],
    /// RFC 3339 text of the modification time; see [`EntryRef::mtime`].
    pub mod_time: &'a [u8],
    /// Major device number.
    pub devmajor: i64,
    /// Minor device number.
    pub devminor: i64,
    /// All PAX records.
    pub pax: PaxRecords<'a>,
}

impl<'a> EntryRef<'a> {
    /// Modification time; [`Timestamp::ZERO`] if the text cannot be read.
    #[must_use]
    pub fn mtime(&self) -> Timestamp {
        Timestamp::parse(self.mod_time)
    }

    /// The extended attributes: name without `SCHILY.xattr.`, and value. Of equal names the last counts.
    pub fn xattrs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.pax.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR_PREFIX)?, value)))
    }
}

/// The PAX records of an entry: all of them, not only extended attributes.
#[derive(Debug, Clone, Copy)]
pub struct PaxRecords<'a> {
    pub(crate) vector: Option<crate::flat::Vector<'a>>,
}

impl<'a> PaxRecords<'a> {
    /// Keys and values, in the order they are stored.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let vector = self.vector;
        let count = vector.map_or(0, |v| v.len());
        // Whoever made this checked every record, so nothing is lost by passing over errors here.
        (0..count).filter_map(move |i| {
            let record = vector?.table(i).ok()?;
            Some((record.bytes(0).ok()?, record.bytes(1).ok()?))
        })
    }
}
