//! What the fuzz targets of `ztoc` have in common: they use a zTOC for all it offers, and hold it to its promises.

use std::ops::Range;

use bytes::Bytes;
use ztoc::{BuildOptions, Builder, Compression, Ztoc};

/// Entries whose content is extracted: more would only repeat them.
const EXTRACTED: usize = 2;

/// Bytes of a layer that are inflated for each entry. Deflate makes a thousand times as many at most.
const LAYER: usize = 2048;

/// Uses all that a zTOC offers. `layer` stands for bytes of the layer, which need not be those that the zTOC is about.
pub fn exercise(ztoc: &Ztoc, layer: &[u8]) {
    let layer = &layer[..layer.len().min(LAYER)];
    let spans = ztoc.spans();
    let mut end = 0;
    let mut text = 0;
    for (index, entry) in ztoc.entries().enumerate() {
        let header = ztoc.header_range(index).expect("an entry has a header");
        assert!(end <= header.start && header.end == entry.offset, "headers and contents follow each other");
        assert!(header.end - header.start >= 512, "a header has a block");
        end = entry.offset + entry.size;
        assert!(end <= ztoc.uncompressed_size(), "contents lie within the archive");
        text += entry.name.len() + entry.pax.iter().count() + entry.xattrs().count();
        let _ = (entry.mtime(), ztoc.verify_header(index, layer));
        let range = entry.offset..end;
        let covered = spans.spans_of(&range);
        assert!(range.is_empty() || (!covered.is_empty() && covered.end <= spans.len()));
        if index < EXTRACTED
            && let Ok(bytes) = ztoc.extract(range.clone(), layer)
        {
            assert_eq!(bytes.len() as u64, range.end - range.start, "never fewer bytes than asked for");
        }
    }
    assert_eq!(ztoc.entries().count(), ztoc.len(), "every entry was checked when the zTOC was read");
    assert!(text <= 2 * ztoc.bytes().len(), "nothing is referred to again and again");
    for span in 0..spans.len() {
        let (at, range) = (spans.compressed(span), spans.uncompressed(span));
        assert!(at.start < at.end && at.end <= ztoc.compressed_size(), "spans lie within the layer");
        assert!(range.start <= range.end, "spans go forward");
        let checkpoint = ztoc.checkpoint(span);
        assert!(checkpoint.bits < 8 && matches!(checkpoint.window.len(), 0 | ztoc::WINDOW_SIZE));
    }
}

/// Spans that are decoded by themselves.
const DECODED: usize = 8;

/// Pieces in which a layer is given to a builder, at most: each is handed to another thread, which takes time.
const PIECES: usize = 8;

/// Builds a zTOC of `layer`, which comes in pieces of about this size; `None` if the layer cannot be indexed.
pub fn build(layer: &[u8], compression: Compression, span_size: u64, piece: usize) -> Option<Bytes> {
    let options = BuildOptions { span_size, accept_single_frame: true, ..BuildOptions::new(compression) };
    let mut builder = Builder::new(options).expect("a builder starts");
    for piece in layer.chunks(piece.max(layer.len().div_ceil(PIECES))) {
        builder.push(Bytes::copy_from_slice(piece)).ok()?;
    }
    Some(builder.finish().ok()?.bytes)
}

/// Checks that a zTOC that was built of `layer` describes it: each span has its digest, every span by itself gives the
/// bytes that all together give, and every header says what its entry does. Returns the archive.
pub fn check_built(ztoc: Bytes, layer: &[u8]) -> Vec<u8> {
    let ztoc = Ztoc::parse(ztoc).expect("what was built can be read");
    let spans = ztoc.spans();
    assert_eq!(ztoc.compressed_size(), layer.len() as u64);
    // A gzip layer begins with a header, which belongs to no span.
    let first = if spans.is_empty() { 0 } else { spans.compressed(0).start as usize };
    let archive =
        ztoc.extract(0..ztoc.uncompressed_size(), &layer[first..]).expect("the archive can be extracted");
    for span in 0..spans.len() {
        let bytes = &layer[as_usize(spans.compressed(span))];
        spans.verify(span, bytes).expect("a span has its digest");
        let range = spans.uncompressed(span);
        // Behind the end of the archive there may be spans of nothing but padding.
        if !range.is_empty() && span < DECODED {
            let alone = ztoc.extract(range.clone(), bytes).expect("a span can be decoded by itself");
            assert!(alone == archive[as_usize(range)], "a span gives its part of the archive");
        }
    }
    for index in 0..ztoc.len() {
        let header = ztoc.header_range(index).expect("an entry has a header");
        ztoc.verify_header(index, &archive[as_usize(header)]).expect("the header says what the entry does");
    }
    exercise(&ztoc, layer);
    archive
}

fn as_usize(range: Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}
