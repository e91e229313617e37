//! Reading a zTOC. Everything in it is taken for hostile until it is checked here.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::decode::SpanDecoder;
use super::error::Error;
use super::hash::Sha256Digest;
use super::spans::Checkpoint;
use crate::compression::Compression;
use crate::entry::{EntryKind, EntryRef, PaxRecords};
use crate::flat::Table;
use crate::spans::Spans;
use crate::verify;
use crate::write::{GZIP, UNCOMPRESSED, ZSTD};
use crate::zinfo::Zinfo;

const BLOCK: u64 = 512;

/// A zTOC that was read and checked. It keeps the bytes it was read from; entries are borrowed from them.
#[derive(Debug, Clone)]
pub struct Ztoc {
    bytes: Bytes,
    /// Places of the entries' tables in `bytes`, by offset in the archive.
    entries: Vec<u32>,
    spans: Spans,
    zinfo: std::sync::Arc<Zinfo>,
    /// Where the zinfo stands in `bytes`.
    zinfo_at: usize,
}

/// How much of a buffer may still be referred to. What an honest writer wrote is referred to once, so all of
/// it together is no longer than the buffer; a hostile one could refer to one large object many times.
struct Budget(usize);

impl Budget {
    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.0 = self.0.checked_sub(bytes).ok_or(Error::Malformed("objects are shared, or overlap"))?;
        Ok(())
    }
}

impl Ztoc {
    /// Reads and checks a zTOC.
    ///
    /// # Errors
    /// If it is malformed or contradicts itself; never panics, and allocates no more than a small multiple
    /// of the length of `bytes`.
    pub fn parse(bytes: Bytes) -> Result<Self, Error> {
        let root = Table::root(&bytes)?;
        let compressed_size = size(&root, 2)?;
        let uncompressed_size = size(&root, 3)?;
        let info = root.table(5)?.ok_or(Error::Malformed("there is no compression info"))?;
        let zinfo_blob = info.bytes(3)?;
        let mut budget = Budget(bytes.len());
        budget.spend(zinfo_blob.len())?;
        let digests = span_digests(&info, &mut budget)?;
        if i64::from(info.i32(1)?) != digests.len() as i64 - 1 {
            return Err(Error::Checkpoints("there is not one digest for each span"));
        }
        let (compression, zinfo) = match info.i8(0, GZIP)? {
            GZIP => (Compression::Gzip, Zinfo::parse_gzip(zinfo_blob)?),
            UNCOMPRESSED => {
                (Compression::Uncompressed, Zinfo::parse_tar(zinfo_blob, compressed_size, digests.len())?)
            }
            ZSTD => (Compression::Zstd, Zinfo::parse_zstd(zinfo_blob)?),
            _ => return Err(Error::Malformed("unknown compression algorithm")),
        };
        let spans = Spans {
            compression,
            span_size: zinfo.span_size,
            marks: zinfo.marks.clone(),
            digests,
            compressed_size,
            uncompressed_size,
        }
        .validate()?;
        let entries = entries(&root, &mut budget, uncompressed_size)?;
        let zinfo_at = zinfo_blob.as_ptr().addr() - bytes.as_ptr().addr();
        Ok(Self { entries, spans, zinfo: std::sync::Arc::new(zinfo), zinfo_at, bytes })
    }

    fn text(&self, id: usize) -> &[u8] {
        Table::root(&self.bytes).and_then(|root| root.bytes(id)).unwrap_or_default()
    }

    /// Format version, `0.9` in all known zTOCs. Not checked, as in the reference.
    #[must_use]
    pub fn version(&self) -> &[u8] {
        self.text(0)
    }

    /// Name of the tool that built it.
    #[must_use]
    pub fn build_tool_identifier(&self) -> &[u8] {
        self.text(1)
    }

    /// Size of the layer, in bytes.
    #[must_use]
    pub fn compressed_size(&self) -> u64 {
        self.spans.compressed_size
    }

    /// Size of the archive up to and including its end mark, in bytes.
    #[must_use]
    pub fn uncompressed_size(&self) -> u64 {
        self.spans.uncompressed_size
    }

    /// The serialised zTOC.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entry `index`, by offset in the archive, or `None` if there are fewer.
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<EntryRef<'_>> {
        let table = Table::at(&self.bytes, *self.entries.get(index)? as usize).ok()?;
        read_entry(&table, index).ok()
    }

    /// All entries, by offset in the archive.
    pub fn entries(&self) -> impl Iterator<Item = EntryRef<'_>> {
        (0..self.len()).filter_map(|index| self.entry(index))
    }

    /// Where the tar header (all of its blocks) of entry `index` stands in the archive.
    #[must_use]
    pub fn header_range(&self, index: usize) -> Option<Range<u64>> {
        let entry = self.entry(index)?;
        let start = match index.checked_sub(1) {
            Some(previous) => data_end(&self.entry(previous)?),
            None => 0,
        };
        Some(start..entry.offset)
    }

    /// The spans.
    #[must_use]
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Where in [`Ztoc::bytes`] the window of checkpoint `index` stands; `None` if it needs none. With it a
    /// window can be read from a stored zTOC when it is needed, instead of keeping all of them in memory.
    #[must_use]
    pub fn window_range(&self, index: usize) -> Option<Range<usize>> {
        let window = self.zinfo.window(index)?;
        Some(self.zinfo_at + window.start..self.zinfo_at + window.end)
    }

    /// Checkpoint `index` with its window.
    ///
    /// # Panics
    /// If there is no such span.
    #[must_use]
    pub fn checkpoint(&self, index: usize) -> Checkpoint<'_> {
        let window = self.window_range(index).and_then(|range| self.bytes.get(range)).unwrap_or_default();
        self.spans.checkpoint(index, Cow::Borrowed(window))
    }

    /// Extracts a range of the archive. `layer` holds the compressed bytes of
    /// [`spans_of`](Spans::spans_of)`(&range)`, from the start of the first to the end of the last span. The
    /// spans' digests are not checked here: see [`Spans::verify`].
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the range lies outside the archive, and what [`SpanDecoder`] says of the
    /// bytes; never fewer bytes than asked for.
    pub fn extract(&self, range: Range<u64>, layer: &[u8]) -> Result<Vec<u8>, Error> {
        let size = self.uncompressed_size();
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.end > size {
            return Err(Error::OutOfRange { start: range.start, end: range.end, size });
        }
        let first = self.spans.span_of(range.start);
        let skip = range.start - self.spans.uncompressed(first).start;
        let length = range.end - range.start;
        let mut decoder = SpanDecoder::new(&self.checkpoint(first), skip + length)?;
        let mut input = layer;
        let mut skipped = 0;
        let mut scratch = vec![0; WINDOW.min(usize::try_from(skip).unwrap_or(WINDOW))];
        while skipped < skip {
            let room = usize::try_from(skip - skipped).map_or(scratch.len(), |left| left.min(scratch.len()));
            let produced = decoder.decode(&mut input, &mut scratch[..room])?;
            if produced == 0 {
                return Err(Error::Incomplete { missing: decoder.missing() });
            }
            skipped += produced as u64;
        }
        // Grown as output comes, not at once: the length is the zTOC's word, which the data need not keep.
        let mut output = Vec::new();
        while !decoder.is_complete() {
            let filled = output.len();
            let step = usize::try_from(decoder.missing()).map_or(WINDOW, |left| left.min(WINDOW.max(filled)));
            output.resize(filled + step, 0);
            let produced = decoder.decode(&mut input, &mut output[filled..])?;
            output.truncate(filled + produced);
            if produced == 0 {
                return Err(Error::Incomplete { missing: decoder.missing() });
            }
        }
        Ok(output)
    }

    /// Checks the tar header of entry `index` against the entry; see [`verify_header`](crate::verify_header).
    ///
    /// # Errors
    /// [`Error::HeaderMismatch`], or [`Error::Entry`] if there is no such entry.
    pub fn verify_header(&self, index: usize, header: &[u8]) -> Result<(), Error> {
        let entry = self.entry(index).ok_or(Error::Entry { index, reason: "there is no such entry" })?;
        verify::verify_header(&entry, header)
    }
}

/// Step of extraction, in bytes.
const WINDOW: usize = 64 * 1024;

/// End of an entry's data, padded to whole blocks.
fn data_end(entry: &EntryRef<'_>) -> u64 {
    (entry.offset + entry.size).next_multiple_of(BLOCK)
}

fn size(table: &Table<'_>, id: usize) -> Result<u64, Error> {
    u64::try_from(table.i64(id)?).map_err(|_| Error::Malformed("an archive size is negative"))
}

fn span_digests(info: &Table<'_>, budget: &mut Budget) -> Result<Vec<Option<Sha256Digest>>, Error> {
    let Some(vector) = info.vector(2)? else { return Ok(Vec::new()) };
    (0..vector.len())
        .map(|span| {
            let text = vector.bytes(span)?;
            budget.spend(4 + text.len())?;
            Ok(Sha256Digest::parse(text))
        })
        .collect()
}

/// Finds and checks all entries: they must tile the archive, each behind a header of at least a block.
fn entries(root: &Table<'_>, budget: &mut Budget, archive_size: u64) -> Result<Vec<u32>, Error> {
    let Some(vector) = root.table(4)?.map_or(Ok(None), |toc| toc.vector(0))? else { return Ok(Vec::new()) };
    let mut places = Vec::with_capacity(vector.len());
    let mut tiling = Tiling { cursor: 0, archive_size };
    let mut in_order = true;
    for index in 0..vector.len() {
        let table = vector.table(index)?;
        let entry = read_entry(&table, index)?;
        // The table itself, its reference, and all it refers to.
        budget.spend(8)?;
        for text in [entry.name, entry.link_name, entry.uname, entry.gname, entry.mod_time] {
            budget.spend(text.len())?;
        }
        if let Some(records) = entry.pax.vector {
            for record in 0..records.len() {
                let record = records.table(record)?;
                budget.spend(8 + record.bytes(0)?.len() + record.bytes(1)?.len())?;
            }
        }
        let place = u32::try_from(table.position()).map_err(|_| Error::Malformed("the zTOC is too large"))?;
        places.push((entry.offset, place));
        in_order = in_order && tiling.add(index, &entry).is_ok();
    }
    if !in_order {
        places.sort_by_key(|(offset, _)| *offset);
        tiling.cursor = 0;
        for (index, (_, place)) in places.iter().enumerate() {
            tiling.add(index, &read_entry(&root.sibling(*place as usize)?, index)?)?;
        }
    }
    Ok(places.into_iter().map(|(_, place)| place).collect())
}

/// Walks over entries that must follow each other within the archive.
struct Tiling {
    cursor: u64,
    archive_size: u64,
}

impl Tiling {
    fn add(&mut self, index: usize, entry: &EntryRef<'_>) -> Result<(), Error> {
        if entry.offset < self.cursor + BLOCK {
            return Err(Error::Entry { index, reason: "it overlaps the one before" });
        }
        if entry.offset + entry.size > self.archive_size {
            return Err(Error::Entry { index, reason: "it lies outside the archive" });
        }
        self.cursor = data_end(entry);
        Ok(())
    }
}

fn read_entry<'a>(table: &Table<'a>, index: usize) -> Result<EntryRef<'a>, Error> {
    let kind =
        EntryKind::from_name(table.bytes(1)?).ok_or(Error::Entry { index, reason: "its type is unknown" })?;
    let number = |id| match table.i64(id).map(u64::try_from)? {
        // Sums of offsets and sizes must not overflow, so both stay far below 2^63.
        Ok(number) if number <= 1 << 60 => Ok(number),
        _ => Err(Error::Entry { index, reason: "its offset or size is out of range" }),
    };
    Ok(EntryRef {
        name: table.bytes(0)?,
        kind,
        offset: number(2)?,
        // The reference stores the header's size field for links and directories too, where no data follow.
        size: if kind == EntryKind::Regular { number(3)? } else { 0 },
        link_name: table.bytes(4)?,
        mode: table.i64(5)?,
        uid: table.u32(6)?,
        gid: table.u32(7)?,
        uname: table.bytes(8)?,
        gname: table.bytes(9)?,
        mod_time: table.bytes(10)?,
        devmajor: table.i64(11)?,
        devminor: table.i64(12)?,
        pax: PaxRecords { vector: table.vector(13)? },
    })
}
