//! The parts of an EROFS image, to the byte. Everything is little-endian.
//!
//! Only what [`image`](super::image) needs of the format is here: no compression, no shared extended attributes,
//! inodes of the long form only. All of it is as old as Linux 5.16.

use bytes::BufMut;

use crate::content::cache::BLOCK_SIZE;

/// Size of a block in bytes; the cache's blocks are of the same size, so that a layer's stream is a device as it is.
pub(super) const BLOCK: u64 = BLOCK_SIZE;
const BLOCK_BITS: u8 = BLOCK.trailing_zeros() as u8;

/// Where the superblock is.
pub(super) const SUPER_OFFSET: u64 = 1024;
/// Where the device table is: right behind the superblock.
pub(super) const DEVICES_OFFSET: u64 = SUPER_OFFSET + SUPER_SIZE;
const SUPER_SIZE: u64 = 128;
/// Size of an entry of the device table.
pub(super) const DEVICE_SIZE: u64 = 128;

/// Inodes begin at multiples of this, and their numbers count in it.
pub(super) const SLOT: u64 = 32;
/// Size of an inode of the long form, without what follows it.
pub(super) const INODE_SIZE: u64 = 64;
/// Size of a directory entry, without its name.
pub(super) const DIRENT_SIZE: u64 = 12;
/// Size of what says where the content of a file is.
pub(super) const CHUNK_INDEX_SIZE: u64 = 8;
/// The size of a file's chunk is a block's times a power of two; this is the largest power.
pub(super) const MAX_CHUNK_BITS: u32 = 31;

const MAGIC: u32 = 0xe0f5_e1e2;
/// Times are modification times.
const COMPAT_MTIME: u32 = 2;
const INCOMPAT_CHUNKED_FILE: u32 = 4;
const INCOMPAT_DEVICE_TABLE: u32 = 8;
const CHUNK_INDEXES: u16 = 0x20;
/// What precedes the inline extended attributes of an inode.
const XATTR_HEADER: u64 = 12;

/// Where the content of an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// There is none.
    Plain = 0,
    /// Less than a block, which follows the inode.
    Inline = 2,
    /// In chunks of other devices.
    Chunks = 4,
}

/// What a superblock says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Super {
    pub(super) root: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) devices: u16,
}

impl Super {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(SUPER_SIZE as usize);
        raw.put_u32_le(MAGIC);
        // No checksum: the image never leaves the machine, nor outlives the mount.
        raw.put_u32_le(0);
        raw.put_u32_le(COMPAT_MTIME);
        raw.put_u8(BLOCK_BITS);
        raw.put_u8(0);
        raw.put_u16_le(self.root);
        raw.put_u64_le(self.inodes);
        // The time of inodes of the short form.
        raw.put_u64_le(0);
        raw.put_u32_le(0);
        raw.put_u32_le(self.blocks);
        // Inode numbers count from the start of the image, and there are no shared extended attributes.
        raw.put_u32_le(0);
        raw.put_u32_le(0);
        // UUID and name of the volume.
        raw.put_bytes(0, 32);
        raw.put_u32_le(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE);
        raw.put_u16_le(0);
        raw.put_u16_le(self.devices);
        raw.put_u16_le((DEVICES_OFFSET / DEVICE_SIZE) as u16);
        raw.resize(SUPER_SIZE as usize, 0);
        raw
    }
}

/// An entry of the device table: what the device is called, and how many blocks it has.
pub(super) fn device(tag: &str, blocks: u32) -> Vec<u8> {
    let mut raw = tag.as_bytes().to_vec();
    raw.resize(64, 0);
    raw.put_u32_le(blocks);
    raw.resize(DEVICE_SIZE as usize, 0);
    raw
}

/// What an inode says.
#[derive(Debug, Clone, Copy)]
pub(super) struct InodeFields {
    pub(super) layout: Layout,
    /// Bytes of extended attributes behind it, as [`xattrs`] gives them.
    pub(super) xattrs: u64,
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) size: u64,
    /// The device number, or the form of chunks, depending on what it is.
    pub(super) place: u32,
    pub(super) number: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) seconds: i64,
    pub(super) nanos: u32,
    pub(super) links: u32,
}

impl InodeFields {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(INODE_SIZE as usize);
        // The long form.
        raw.put_u16_le(1 | (self.layout as u16) << 1);
        let words = if self.xattrs == 0 { 0 } else { (self.xattrs - XATTR_HEADER) / 4 + 1 };
        raw.put_u16_le(words as u16);
        raw.put_u16_le(self.mode);
        raw.put_u16_le(0);
        raw.put_u64_le(self.size);
        raw.put_u32_le(self.place);
        raw.put_u32_le(self.number as u32);
        raw.put_u32_le(self.uid);
        raw.put_u32_le(self.gid);
        raw.put_i64_le(self.seconds);
        raw.put_u32_le(self.nanos);
        raw.put_u32_le(self.links);
        raw.resize(INODE_SIZE as usize, 0);
        raw
    }
}

/// The form of the chunks of a file that is one chunk: the smallest that holds it. `None` if it is too large.
pub(super) fn one_chunk(size: u64) -> Option<u32> {
    let blocks = size.div_ceil(BLOCK).max(1);
    let bits = blocks.checked_next_power_of_two()?.trailing_zeros();
    (bits <= MAX_CHUNK_BITS).then(|| bits | u32::from(CHUNK_INDEXES))
}

/// Where a chunk is.
pub(super) fn chunk_index(device: u16, block: u32) -> Vec<u8> {
    let mut raw = Vec::with_capacity(CHUNK_INDEX_SIZE as usize);
    raw.put_u16_le(0);
    raw.put_u16_le(device);
    raw.put_u32_le(block);
    raw
}

/// A directory entry.
pub(super) fn dirent(number: u64, name_offset: u16, file_type: u8) -> Vec<u8> {
    let mut raw = Vec::with_capacity(DIRENT_SIZE as usize);
    raw.put_u64_le(number);
    raw.put_u16_le(name_offset);
    raw.put_u8(file_type);
    raw.put_u8(0);
    raw
}

/// Prefixes of the names of extended attributes, and the numbers that stand for them.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The extended attributes of an inode, in the form in which they follow it; nothing if there are none, `None` if
/// one has a name or a size that the format does not know.
pub(super) fn xattrs<'x>(all: impl Iterator<Item = (&'x [u8], &'x [u8])>) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    for (name, value) in all {
        if raw.is_empty() {
            raw.resize(XATTR_HEADER as usize, 0);
        }
        let (prefix, index) = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix))?;
        let rest = &name[prefix.len()..];
        // The first kind is a name by itself, of the others something must follow.
        if prefix.ends_with(b".") == rest.is_empty() {
            return None;
        }
        if prefix.starts_with(b"system.posix_acl") && !is_acl(value) {
            return None;
        }
        raw.put_u8(u8::try_from(rest.len()).ok()?);
        raw.put_u8(*index);
        raw.put_u16_le(u16::try_from(value.len()).ok()?);
        raw.extend_from_slice(rest);
        raw.extend_from_slice(value);
        raw.resize(raw.len().next_multiple_of(4), 0);
    }
    // The inode counts them in units of 4 bytes.
    (raw.len() <= XATTR_HEADER as usize + 4 * (usize::from(u16::MAX) - 1)).then_some(raw)
}

/// Whether a value has the form of an access control list, version 2. The kernel would refuse all access to a file
/// with another.
fn is_acl(value: &[u8]) -> bool {
    value.strip_prefix(&2_u32.to_le_bytes()).is_some_and(|entries| entries.len().is_multiple_of(8))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

    use super::*;

    #[test]
    fn records_have_their_sizes() {
        let inode = InodeFields {
            layout: Layout::Chunks,
            xattrs: 20,
            mode: 0o100_644,
            size: 1,
            place: 0x20,
            number: 36,
            uid: 1,
            gid: 2,
            seconds: -1,
            nanos: 3,
            links: 4,
        };
        assert_eq!(inode.bytes().len() as u64, INODE_SIZE);
        assert_eq!(inode.bytes()[..6], [9, 0, 3, 0, 0xa4, 0x81]);
        let block = Super { root: 36, inodes: 1, blocks: 1, devices: 1 };
        assert_eq!(block.bytes().len() as u64, SUPER_SIZE);
        assert_eq!(device(&"a".repeat(64), 1).len() as u64, DEVICE_SIZE);
        assert_eq!(chunk_index(1, 2).len() as u64, CHUNK_INDEX_SIZE);
        assert_eq!(dirent(1, 2, 3).len() as u64, DIRENT_SIZE);
    }

    #[test]
    fn a_file_is_one_chunk_up_to_8_tib() {
        assert_eq!(one_chunk(1), Some(0x20));
        assert_eq!(one_chunk(4096), Some(0x20));
        assert_eq!(one_chunk(4097), Some(0x21));
        assert_eq!(one_chunk(1 << 43), Some(0x20 | 31));
        assert_eq!(one_chunk((1 << 43) + 1), None);
        assert_eq!(one_chunk(u64::MAX), None);
    }

    #[test]
    fn names_of_attributes_that_the_format_does_not_know_are_refused() {
        let of = |name: &[u8], length| xattrs([(name, vec![0; length].as_slice())].into_iter());
        for name in [&b"user.k"[..], b"trusted.overlay.opaque", b"security.x"] {
            assert!(of(name, 3).unwrap().len().is_multiple_of(4), "{}", name.escape_ascii());
        }
        for name in [&b"user."[..], b"system.posix_acl_accessx", b"system.x", b"btrfs.x", b"x", b""] {
            assert_eq!(of(name, 3), None, "{}", name.escape_ascii());
        }
        let acl = |value: &[u8]| xattrs([(&b"system.posix_acl_access"[..], value)].into_iter());
        assert!(acl(&[2, 0, 0, 0, 1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff]).is_some());
        for odd in [&[][..], &[2], &[1, 0, 0, 0], &[2, 0, 0, 0, 1]] {
            assert_eq!(acl(odd), None, "{odd:?}");
        }
        assert!(of(b"user.k", 65_535).is_some());
        assert_eq!(of(b"user.k", 65_536), None);
        let value = [0; 65_535];
        assert!(xattrs([(&b"user.k"[..], &value[..]); 3].into_iter()).is_some());
        assert_eq!(xattrs([(&b"user.k"[..], &value[..]); 4].into_iter()), None);
        assert_eq!(xattrs(std::iter::empty()), Some(Vec::new()));
    }
}
