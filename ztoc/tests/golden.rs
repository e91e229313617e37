//! Our zTOCs have the bytes of the reference's, for every golden layer at every span size, and every byte of
//! the archive can be read back from their spans.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected stops there"
)]

use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use ztoc::{BuildError, BuildOptions, Builder, Built, Compression, Sha256Digest, Ztoc};

fn golden() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden"))
}

fn vectors() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(golden().join("golden.json")).unwrap()).unwrap()
}

fn layer(name: &str) -> Vec<u8> {
    std::fs::read(golden().join("layers").join(name)).unwrap()
}

fn compression(name: &str) -> Compression {
    if name.ends_with(".gz") { Compression::Gzip } else { Compression::Uncompressed }
}

fn build(name: &str, layer: &[u8], span_size: u64, chunk: usize) -> Result<Built, BuildError> {
    let mut builder = Builder::new(BuildOptions { span_size, ..BuildOptions::new(compression(name)) })?;
    for chunk in layer.chunks(chunk) {
        builder.push(Bytes::copy_from_slice(chunk))?;
    }
    builder.finish()
}

fn archive(name: &str, layer: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    match compression(name) {
        Compression::Gzip => {
            flate2::read::MultiGzDecoder::new(layer).read_to_end(&mut archive).unwrap();
        }
        Compression::Uncompressed | Compression::Zstd => archive = layer.to_vec(),
    }
    archive
}

#[test]
fn ztocs_are_byte_identical_to_the_reference() {
    let mut compared = 0;
    for (name, expected) in vectors()["layers"].as_object().unwrap() {
        let layer = layer(name);
        for (span_size, ztoc) in expected["ztoc"].as_object().unwrap() {
            let span_size = span_size.parse().unwrap();
            // The chunks in which the layer arrives make no difference.
            for chunk in [1 << 20, 4099, 61] {
                let built = build(name, &layer, span_size, chunk).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(built.bytes.len() as u64, ztoc["size"], "{name} at {span_size}, {chunk}");
                assert_eq!(built.digest.to_string(), ztoc["digest"], "{name} at {span_size}, {chunk}");
                assert_eq!(built.blob_digest.to_string(), expected["digest"], "{name}");
                assert_eq!(built.digest, Sha256Digest::of(&built.bytes));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 21 * 2 * 3);
}

#[test]
fn every_span_gives_the_bytes_of_the_archive() {
    for name in vectors()["layers"].as_object().unwrap().keys() {
        let layer = layer(name);
        let archive = archive(name, &layer);
        for span_size in [1, 1000, 65536, 4 << 20] {
            let ztoc = Ztoc::parse(build(name, &layer, span_size, 1 << 20).unwrap().bytes).unwrap();
            let spans = ztoc.spans();
            assert_eq!(ztoc.compressed_size(), layer.len() as u64);
            for span in 0..spans.len() {
                let at = spans.compressed(span);
                let bytes = &layer[at.start as usize..at.end as usize];
                spans.verify(span, bytes).unwrap_or_else(|e| panic!("{name} at {span_size}: {e}"));
                let range = spans.uncompressed(span);
                let wanted = &archive[range.start as usize..range.end as usize];
                let got = ztoc.extract(range, bytes).unwrap_or_else(|e| panic!("{name} span {span}: {e}"));
                assert!(got == wanted, "{name} at {span_size}, span {span}");
            }
        }
    }
}

#[test]
fn files_and_headers_can_be_read_alone() {
    for name in vectors()["layers"].as_object().unwrap().keys() {
        let layer = layer(name);
        let archive = archive(name, &layer);
        let ztoc = Ztoc::parse(build(name, &layer, 5000, 1 << 20).unwrap().bytes).unwrap();
        let read = |range: std::ops::Range<u64>| {
            let spans = ztoc.spans().spans_of(&range);
            if spans.is_empty() {
                return Vec::new();
            }
            let at = ztoc.spans().compressed(spans.start).start..ztoc.spans().compressed(spans.end - 1).end;
            ztoc.extract(range, &layer[at.start as usize..at.end as usize]).unwrap()
        };
        for (index, entry) in ztoc.entries().enumerate() {
            let range = entry.offset..entry.offset + entry.size;
            assert!(read(range.clone()) == archive[range.start as usize..range.end as usize], "{name}");
            let header = read(ztoc.header_range(index).unwrap());
            ztoc.verify_header(index, &header).unwrap_or_else(|e| panic!("{name} entry {index}: {e}"));
            // A header with one more bit set is another header.
            for at in [0, 104, 130, 140, header.len() - 1] {
                let mut other = header.clone();
                other[at] ^= 1;
                assert!(ztoc.verify_header(index, &other).is_err(), "{name} entry {index} byte {at}");
            }
        }
    }
}

#[test]
fn refused_layers_are_refused_with_a_reason() {
    let vectors = vectors();
    let refused = vectors["refused"].as_object().unwrap();
    assert_eq!(refused.len(), 7);
    for name in refused.keys() {
        let error = build(name, &layer(name), 65536, 4096).expect_err(name);
        let (fits, reason) = match name.as_str() {
            "global-pax.tar.gz" => (matches!(error, BuildError::UnsupportedEntry { typeflag: b'g' }), "g"),
            "file-cut-short.tar.gz" => (matches!(error, BuildError::TruncatedArchive { .. }), "truncated"),
            "truncated.tar.gz" => (matches!(error, BuildError::TruncatedStream { .. }), "truncated"),
            // The tar walk runs along with the inflater and may be the first to notice.
            "bit-flip.tar.gz" => (matches!(error, BuildError::Header { .. }), "checksum"),
            _ => (matches!(error, BuildError::Corrupt { .. }), "corrupt"),
        };
        assert!(fits, "{name}: {error}");
        assert!(error.to_string().contains(reason), "{name}: {error}");
    }
}
