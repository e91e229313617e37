//! Serialising a zTOC, byte for byte as the reference does.
//!
//! A FlatBuffer is written from its end, and the order in which objects are created decides their place. This
//! is the order of the reference's Go code; generated Rust code would add fields in another one. Field slots
//! are 4 + 2 * id. Strings are byte strings: tar names need not be UTF-8.

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, TableFinishedWIPOffset, WIPOffset};

use super::entry::Entry;
use super::error::BuildError;
use super::hash::Sha256Digest;
use crate::compression::Compression;

/// The zTOC format version that is written, and that every known zTOC carries.
pub const ZTOC_VERSION: &str = "0.9";

/// A FlatBuffer's offsets are signed 32-bit numbers.
const MAX_SIZE: usize = (1 << 31) - 1;

/// What goes into a zTOC.
pub(crate) struct Contents<'a> {
    pub(crate) build_tool_identifier: &'a str,
    pub(crate) compressed_size: u64,
    pub(crate) uncompressed_size: u64,
    pub(crate) entries: &'a [Entry],
    pub(crate) compression: Compression,
    pub(crate) zinfo: &'a [u8],
    pub(crate) span_digests: &'a [Sha256Digest],
}

type Table = WIPOffset<ForwardsUOffset<()>>;

/// # Errors
/// [`BuildError::TocTooLarge`] if the zTOC would not fit into a FlatBuffer.
pub(crate) fn serialise(contents: &Contents<'_>) -> Result<Bytes, BuildError> {
    let weight: usize = contents.entries.iter().map(Entry::weight).sum();
    let capacity = weight + contents.zinfo.len() + contents.span_digests.len() * 96 + 1024;
    if capacity > MAX_SIZE {
        return Err(BuildError::TocTooLarge { limit: MAX_SIZE as u64 });
    }
    let mut b = FlatBufferBuilder::with_capacity(capacity);
    let version = b.create_byte_string(ZTOC_VERSION.as_bytes());
    let tool = b.create_byte_string(contents.build_tool_identifier.as_bytes());
    let mut entries: Vec<Table> =
        contents.entries.iter().rev().map(|entry| self::entry(&mut b, entry)).collect();
    entries.reverse();
    let entries = b.create_vector(&entries);
    let toc = b.start_table();
    b.push_slot_always(4, entries);
    let toc = as_table(b.end_table(toc));

    let zinfo = b.create_vector(contents.zinfo);
    let digests: Vec<_> = contents
        .span_digests
        .iter()
        .map(|digest| b.create_byte_string(digest.to_string().as_bytes()))
        .collect();
    let digests = b.create_vector(&digests);
    let info = b.start_table();
    let max_span_id = i32::try_from(contents.span_digests.len()).unwrap_or(i32::MAX) - 1;
    b.push_slot(6, max_span_id, 0);
    b.push_slot_always(8, digests);
    b.push_slot_always(10, zinfo);
    b.push_slot(4, algorithm(contents.compression), GZIP);
    let info = as_table(b.end_table(info));

    let ztoc = b.start_table();
    b.push_slot_always(4, version);
    b.push_slot_always(6, tool);
    b.push_slot_always(12, toc);
    b.push_slot(8, contents.compressed_size.cast_signed(), 0);
    b.push_slot(10, contents.uncompressed_size.cast_signed(), 0);
    b.push_slot_always(14, info);
    let ztoc = b.end_table(ztoc);
    b.finish_minimal(ztoc);
    let (buffer, start) = b.collapse();
    Ok(Bytes::from(buffer).slice(start..))
}

/// Value of `compression_algorithm`; gzip is the schema's default and therefore never stored.
pub(crate) const GZIP: i8 = 1;
pub(crate) const UNCOMPRESSED: i8 = 2;
/// Of this project: the reference knows no such layers.
pub(crate) const ZSTD: i8 = 3;

fn algorithm(compression: Compression) -> i8 {
    match compression {
        Compression::Gzip => GZIP,
        Compression::Uncompressed => UNCOMPRESSED,
        Compression::Zstd => ZSTD,
    }
}

fn as_table(offset: WIPOffset<TableFinishedWIPOffset>) -> Table {
    WIPOffset::new(offset.value())
}

fn entry(b: &mut FlatBufferBuilder<'_>, entry: &Entry) -> Table {
    let name = b.create_byte_string(&entry.name);
    let kind = b.create_byte_string(entry.kind.as_str().as_bytes());
    let link_name = b.create_byte_string(&entry.link_name);
    let uname = b.create_byte_string(&entry.uname);
    let gname = b.create_byte_string(&entry.gname);
    let mod_time = b.create_byte_string(entry.mtime.format().as_bytes());
    let records: Vec<Table> = entry
        .pax
        .iter()
        .map(|(key, value)| {
            let key = b.create_byte_string(key);
            let value = b.create_byte_string(value);
            let record = b.start_table();
            b.push_slot_always(4, key);
            b.push_slot_always(6, value);
            as_table(b.end_table(record))
        })
        .collect();
    let records = b.create_vector(&records);
    let table = b.start_table();
    b.push_slot_always(4, name);
    b.push_slot_always(6, kind);
    b.push_slot(8, entry.offset.cast_signed(), 0);
    b.push_slot(10, entry.size.cast_signed(), 0);
    b.push_slot_always(12, link_name);
    b.push_slot(14, entry.mode, 0);
    b.push_slot(16, entry.uid, 0);
    b.push_slot(18, entry.gid, 0);
    b.push_slot_always(20, uname);
    b.push_slot_always(22, gname);
    b.push_slot_always(24, mod_time);
    b.push_slot(26, entry.devmajor, 0);
    b.push_slot(28, entry.devminor, 0);
    b.push_slot_always(30, records);
    as_table(b.end_table(table))
}
