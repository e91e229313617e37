//! Hostile and damaged zTOCs and spans give errors: no panic, no endless loop, no wrong bytes, no allocation
//! beyond the size of the input. The W-numbers are the reference's weaknesses that these tests keep out.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, WIPOffset};
use proptest::prelude::*;
use ztoc::{BuildOptions, Builder, Compression, Error, Sha256Digest, SpanDecoder, Ztoc};

const CHECKPOINT: usize = 32_785;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../testdata/golden/layers/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn build(layer: &[u8], compression: Compression, span_size: u64) -> Bytes {
    let mut builder = Builder::new(BuildOptions { span_size, ..BuildOptions::new(compression) }).unwrap();
    builder.push(Bytes::copy_from_slice(layer)).unwrap();
    builder.finish().unwrap().bytes
}

type Table = WIPOffset<ForwardsUOffset<()>>;

/// A zTOC with whatever numbers an attacker likes.
#[derive(Clone)]
struct Crafted {
    compressed_size: i64,
    uncompressed_size: i64,
    algorithm: i8,
    max_span_id: i32,
    digests: Vec<String>,
    zinfo: Vec<u8>,
    /// name, type, offset, size.
    entries: Vec<(&'static str, &'static str, i64, i64)>,
}

impl Crafted {
    fn gzip(checkpoints: &[(i64, i64, u8)]) -> Self {
        let mut zinfo = (checkpoints.len() as i32).to_le_bytes().to_vec();
        zinfo.extend(4096i64.to_le_bytes());
        for (input, output, bits) in checkpoints {
            zinfo.extend(input.to_le_bytes());
            zinfo.extend(output.to_le_bytes());
            zinfo.push(*bits);
            zinfo.resize(zinfo.len() + CHECKPOINT - 17, 0);
        }
        Self {
            compressed_size: 10_000,
            uncompressed_size: 100_000,
            algorithm: 1,
            max_span_id: checkpoints.len() as i32 - 1,
            digests: vec![Sha256Digest::of(b"").to_string(); checkpoints.len()],
            zinfo,
            entries: Vec::new(),
        }
    }

    fn zstd(checkpoints: &[(i64, i64)]) -> Self {
        let mut zinfo = 1i32.to_le_bytes().to_vec();
        zinfo.extend((checkpoints.len() as i32).to_le_bytes());
        zinfo.extend(4096i64.to_le_bytes());
        for (input, output) in checkpoints {
            zinfo.extend(input.to_le_bytes());
            zinfo.extend(output.to_le_bytes());
        }
        let gzip = vec![FIRST; checkpoints.len()];
        Self { algorithm: 3, zinfo, ..Self::gzip(&gzip) }
    }

    fn tar(version: i32, span_size: i64, size: i64, spans: usize) -> Self {
        let mut b = FlatBufferBuilder::new();
        let table = b.start_table();
        b.push_slot(4, version, 0);
        b.push_slot(6, span_size, 0);
        b.push_slot(8, size, 0);
        let table = b.end_table(table);
        b.finish_minimal(table);
        Self {
            compressed_size: size,
            uncompressed_size: size,
            algorithm: 2,
            max_span_id: spans as i32 - 1,
            digests: vec![Sha256Digest::of(b"").to_string(); spans],
            zinfo: b.finished_data().to_vec(),
            entries: Vec::new(),
        }
    }

    fn bytes(&self) -> Bytes {
        let mut b = FlatBufferBuilder::new();
        let entries: Vec<Table> = self
            .entries
            .iter()
            .map(|(name, kind, offset, size)| {
                let (name, kind) = (b.create_string(name), b.create_string(kind));
                let table = b.start_table();
                b.push_slot_always(4, name);
                b.push_slot_always(6, kind);
                b.push_slot(8, *offset, 0);
                b.push_slot(10, *size, 0);
                WIPOffset::new(b.end_table(table).value())
            })
            .collect();
        let entries = b.create_vector(&entries);
        let toc = b.start_table();
        b.push_slot_always(4, entries);
        let toc: Table = WIPOffset::new(b.end_table(toc).value());
        let zinfo = b.create_vector(&self.zinfo);
        let digests: Vec<_> = self.digests.iter().map(|d| b.create_string(d)).collect();
        let digests = b.create_vector(&digests);
        let info = b.start_table();
        b.push_slot(4, self.algorithm, 1);
        b.push_slot(6, self.max_span_id, 0);
        b.push_slot_always(8, digests);
        b.push_slot_always(10, zinfo);
        let info: Table = WIPOffset::new(b.end_table(info).value());
        let root = b.start_table();
        b.push_slot(8, self.compressed_size, 0);
        b.push_slot(10, self.uncompressed_size, 0);
        b.push_slot_always(12, toc);
        b.push_slot_always(14, info);
        let root = b.end_table(root);
        b.finish_minimal(root);
        Bytes::copy_from_slice(b.finished_data())
    }

    fn parse(&self) -> Result<Ztoc, Error> {
        Ztoc::parse(self.bytes())
    }
}

const FIRST: (i64, i64, u8) = (10, 0, 0);

#[test]
fn the_crafted_baseline_is_accepted() {
    let mut crafted = Crafted::gzip(&[FIRST, (500, 5000, 3)]);
    crafted.entries = vec![("a", "reg", 512, 700), ("b", "dir", 2048, 0)];
    assert_eq!(crafted.parse().unwrap().len(), 2);
    assert_eq!(Crafted::tar(2, 4096, 10_000, 3).parse().unwrap().spans().len(), 3);
}

#[test]
fn w1_a_checkpoint_count_that_overflows_32_bits_is_refused() {
    // 131,005 * 32,785 = 4,294,998,925 = 31,629 modulo 2^32; with the header: 31,641 bytes.
    let mut crafted = Crafted::gzip(&[FIRST]);
    crafted.zinfo = 131_005i32.to_le_bytes().to_vec();
    crafted.zinfo.resize(31_641, 0);
    crafted.max_span_id = 131_004;
    assert!(matches!(crafted.parse(), Err(Error::Checkpoints(_))));
    for count in [-1, i32::MIN, i32::MAX] {
        crafted.zinfo[..4].copy_from_slice(&i32::to_le_bytes(count));
        assert!(matches!(crafted.parse(), Err(Error::Checkpoints(_))), "{count}");
    }
}

#[test]
fn w2_w5_too_little_input_is_an_error_and_ends() {
    let layer = golden("multi-member.tar.gz");
    let ztoc = Ztoc::parse(build(&layer, Compression::Gzip, 65536)).unwrap();
    for span in 0..ztoc.spans().len() {
        let at = ztoc.spans().compressed(span);
        let range = ztoc.spans().uncompressed(span);
        let bytes = &layer[at.start as usize..at.end as usize];
        for cut in [0, 1, 9, bytes.len() / 2] {
            let error = ztoc.extract(range.clone(), &bytes[..cut]).unwrap_err();
            assert!(matches!(error, Error::Incomplete { missing } if missing > 0), "{error}");
        }
        // More output than the whole layer has.
        let mut decoder = SpanDecoder::new(&ztoc.checkpoint(span), u64::MAX).unwrap();
        let (mut input, mut buffer, mut total) = (&layer[at.start as usize..], vec![0; 65536], 0);
        while let Ok(written @ 1..) = decoder.decode(&mut input, &mut buffer) {
            total += written;
        }
        assert!(total < 10 << 20 && !decoder.is_complete());
    }
}

#[test]
fn w3_no_checkpoint_is_refused() {
    let mut crafted = Crafted::gzip(&[]);
    crafted.max_span_id = -1;
    assert!(matches!(crafted.parse(), Err(Error::Checkpoints(_))));
    // An empty uncompressed layer has no span, and nothing can be read from it.
    let empty = Crafted::tar(2, 4096, 0, 0).parse().unwrap();
    assert_eq!(empty.spans().spans_of(&(0..1)), 0..0);
    assert!(empty.extract(0..1, &[]).is_err());
}

#[test]
fn w4_a_primed_span_uses_no_byte_beyond_its_input() {
    let layer = golden("multi-member.tar.gz");
    let ztoc = Ztoc::parse(build(&layer, Compression::Gzip, 65536)).unwrap();
    let primed = (0..ztoc.spans().len()).find(|span| ztoc.checkpoint(*span).bits > 0).unwrap();
    let at = ztoc.spans().compressed(primed);
    let one_byte = &layer[at.start as usize..at.start as usize + 1];
    let range = ztoc.spans().uncompressed(primed);
    assert!(matches!(ztoc.extract(range, one_byte), Err(Error::Incomplete { .. })));
    for bits in [8, 9, 255] {
        assert!(matches!(Crafted::gzip(&[(10, 0, bits)]).parse(), Err(Error::Checkpoints(_))), "{bits}");
    }
}

#[test]
fn w6_a_hostile_tar_zinfo_is_refused() {
    for (crafted, why) in [
        (Crafted::tar(2, 0, 10_000, 3), "span size 0"),
        (Crafted::tar(2, -4096, 10_000, 3), "negative span size"),
        (Crafted::tar(2, 4096, -1, 1), "negative size"),
        (Crafted::tar(1, 4096, 10_000, 3), "version"),
        (Crafted::tar(2, 4096, 10_000, 4), "too many spans"),
        (Crafted::tar(2, 1, i64::MAX, 3), "too few spans"),
        (Crafted { zinfo: vec![0xff; 64], ..Crafted::tar(2, 4096, 10_000, 3) }, "garbage"),
        (Crafted { zinfo: vec![], ..Crafted::tar(2, 4096, 10_000, 3) }, "nothing"),
        (Crafted { compressed_size: 9_999, ..Crafted::tar(2, 4096, 10_000, 3) }, "another size"),
    ] {
        assert!(crafted.parse().is_err(), "{why}");
    }
    assert!(
        Builder::new(BuildOptions { span_size: 0, ..BuildOptions::new(Compression::Uncompressed) }).is_err()
    );
}

#[test]
fn w7_entries_outside_the_archive_are_refused() {
    for (entries, why) in [
        (vec![("a", "reg", 512, 99_489)], "beyond the end"),
        (vec![("a", "reg", i64::MAX, 1)], "offset overflow"),
        (vec![("a", "reg", 512, i64::MAX)], "size overflow"),
        (vec![("a", "reg", -512, 1)], "negative offset"),
        (vec![("a", "reg", 512, -1)], "negative size"),
        (vec![("a", "reg", 0, 1)], "no room for a header"),
        (vec![("a", "reg", 512, 600), ("b", "reg", 1024, 1)], "overlap"),
        (vec![("a", "wormhole", 512, 1)], "unknown type"),
    ] {
        let crafted = Crafted { entries, ..Crafted::gzip(&[FIRST]) };
        assert!(matches!(crafted.parse(), Err(Error::Entry { .. })), "{why}");
    }
    // A file that ends exactly at the end of an archive of whole spans.
    let crafted = Crafted { entries: vec![("a", "reg", 512, 7680)], ..Crafted::tar(2, 4096, 8192, 2) };
    let ztoc = crafted.parse().unwrap();
    assert_eq!(ztoc.spans().spans_of(&(512..8192)), 0..2);
    assert_eq!(ztoc.extract(8191..8192, &[7; 4096]).unwrap(), [7]);
    assert!(matches!(ztoc.extract(8191..8193, &[7; 4096]), Err(Error::OutOfRange { .. })));
}

#[test]
fn checkpoints_that_do_not_ascend_are_refused() {
    for (checkpoints, why) in [
        (vec![(10, 5, 0)], "does not start at 0"),
        (vec![FIRST, (10, 4096, 0)], "no input between"),
        (vec![FIRST, (9, 4096, 0)], "input goes back"),
        (vec![FIRST, (500, 4096, 0), (600, 4095, 0)], "output goes back"),
        (vec![FIRST, (10_001, 4096, 0)], "outside the layer"),
        (vec![(-1, 0, 0)], "negative input"),
        (vec![FIRST, (500, -1, 0)], "negative output"),
        (vec![(0, 0, 3)], "bits of a byte before the first"),
    ] {
        assert!(matches!(Crafted::gzip(&checkpoints).parse(), Err(Error::Checkpoints(_))), "{why}");
    }
    // What older versions of the reference wrote for an empty first member.
    assert!(Crafted::gzip(&[FIRST, (30, 0, 0), (60, 0, 0)]).parse().is_ok());
    let crafted = Crafted { max_span_id: 1, ..Crafted::gzip(&[FIRST]) };
    assert!(crafted.parse().is_err());
    let crafted = Crafted { digests: vec![], ..Crafted::gzip(&[FIRST]) };
    assert!(crafted.parse().is_err());
    let crafted = Crafted { algorithm: 7, ..Crafted::gzip(&[FIRST]) };
    assert!(crafted.parse().is_err());
}

#[test]
fn a_hostile_zstd_zinfo_is_refused() {
    let good = Crafted::zstd(&[(0, 0), (500, 5000)]);
    let ztoc = good.parse().unwrap();
    assert_eq!(ztoc.spans().compressed(1), 500..10_000);
    assert_eq!((ztoc.spans().uncompressed(1), ztoc.checkpoint(1).bits), (5000..100_000, 0));
    for (at, bytes, why) in [
        (0, 2i32.to_le_bytes(), "a version to come"),
        (0, 0i32.to_le_bytes(), "version 0"),
        (4, 1i32.to_le_bytes(), "too few"),
        (4, 3i32.to_le_bytes(), "too many"),
        (4, (2i32 | 1 << 28).to_le_bytes(), "a count that overflows 32 bits"),
        (4, i32::MIN.to_le_bytes(), "a negative count"),
        (8, 0i32.to_le_bytes(), "span size 0"),
        (12, i32::MIN.to_le_bytes(), "a negative span size"),
        (36, i32::MIN.to_le_bytes(), "a negative input"),
        (44, i32::MIN.to_le_bytes(), "a negative output"),
        (32, 0i32.to_le_bytes(), "no input between"),
        (32, 10_000i32.to_le_bytes(), "outside the layer"),
    ] {
        let mut crafted = good.clone();
        crafted.zinfo[at..at + 4].copy_from_slice(&bytes);
        if at == 4 {
            let count = i32::from_le_bytes(bytes).clamp(0, 10);
            crafted.max_span_id = count - 1;
            crafted.digests.resize(count as usize, String::new());
        }
        assert!(matches!(crafted.parse(), Err(Error::Checkpoints(_))), "{why}");
    }
    for length in [0, 15, 16, 47, 49] {
        let mut crafted = good.clone();
        crafted.zinfo.resize(length, 0);
        assert!(crafted.parse().is_err(), "{length}");
    }
    assert!(Crafted::zstd(&[]).parse().is_err());
    assert!(Crafted { algorithm: 1, ..good.clone() }.parse().is_err());
    assert!(Crafted { algorithm: 3, ..Crafted::gzip(&[FIRST]) }.parse().is_err());
}

#[test]
fn a_malformed_digest_matches_nothing() {
    for digest in ["", "sha256:", "sha512:00", &Sha256Digest::of(b"x").to_string().to_uppercase()] {
        let crafted = Crafted { digests: vec![digest.to_string()], ..Crafted::gzip(&[FIRST]) };
        let ztoc = crafted.parse().unwrap();
        assert!(matches!(ztoc.spans().verify(0, b"x"), Err(Error::SpanDigest { span: 0 })), "{digest}");
    }
}

#[test]
fn legacy_zinfo_without_the_first_checkpoint_is_read() {
    let layer = golden("full-flush.tar.gz");
    assert_eq!(layer[3], 0, "the legacy format knows no optional header fields");
    let current = Ztoc::parse(build(&layer, Compression::Gzip, 65536)).unwrap();
    let count = current.spans().len();
    let mut legacy = Crafted::gzip(&[FIRST]);
    legacy.compressed_size = layer.len() as i64;
    legacy.uncompressed_size = current.uncompressed_size() as i64;
    legacy.max_span_id = count as i32 - 1;
    legacy.digests = (0..count).map(|i| current.spans().digest(i).unwrap().to_string()).collect();
    let zinfo = current.window_range(0).unwrap().start - 17 - 12;
    let stored = current.bytes().slice(zinfo..zinfo + 12 + count * CHECKPOINT);
    legacy.zinfo = [&stored[..12], &stored[12 + CHECKPOINT..]].concat();
    let ztoc = legacy.parse().unwrap();
    for span in 0..count {
        let at = ztoc.spans().compressed(span);
        let bytes = &layer[at.start as usize..at.end as usize];
        let range = ztoc.spans().uncompressed(span);
        assert_eq!(ztoc.extract(range.clone(), bytes).unwrap(), current.extract(range, bytes).unwrap());
    }
}

#[test]
fn shared_objects_cannot_multiply() {
    // One large name, referred to from many entries: 64 KiB that would unfold to 64 MiB.
    let mut b = FlatBufferBuilder::new();
    let name = b.create_byte_string(&[b'x'; 65536]);
    let kind = b.create_string("reg");
    let entries: Vec<Table> = (1..1000i64)
        .map(|i| {
            let table = b.start_table();
            b.push_slot_always(4, name);
            b.push_slot_always(6, kind);
            b.push_slot(8, i * 512, 0);
            WIPOffset::new(b.end_table(table).value())
        })
        .collect();
    let entries = b.create_vector(&entries);
    let toc = b.start_table();
    b.push_slot_always(4, entries);
    let toc: Table = WIPOffset::new(b.end_table(toc).value());
    let zinfo = b.create_vector(&Crafted::gzip(&[FIRST]).zinfo);
    let digest = b.create_string("");
    let digests = b.create_vector(&[digest]);
    let info = b.start_table();
    b.push_slot_always(8, digests);
    b.push_slot_always(10, zinfo);
    let info: Table = WIPOffset::new(b.end_table(info).value());
    let root = b.start_table();
    b.push_slot(8, 1_000i64, 0);
    b.push_slot(10, 1_000_000i64, 0);
    b.push_slot_always(12, toc);
    b.push_slot_always(14, info);
    let root = b.end_table(root);
    b.finish_minimal(root);
    let error = Ztoc::parse(Bytes::copy_from_slice(b.finished_data())).unwrap_err();
    assert!(error.to_string().contains("shared"), "{error}");
}

/// Uses all that a reader offers; it must neither panic nor take long.
fn exercise(ztoc: &Ztoc) {
    let mut total = 0;
    for (index, entry) in ztoc.entries().enumerate() {
        total += entry.name.len() + entry.pax.iter().count() + entry.xattrs().count();
        let _ = (entry.mtime(), ztoc.header_range(index));
        let _ = ztoc.verify_header(index, &[0; 512]);
        let range = entry.offset..entry.offset + entry.size;
        let _ = ztoc.extract(range, &[0x55; 4096]);
    }
    for span in 0..ztoc.spans().len() {
        let at = ztoc.spans().compressed(span);
        assert!(at.start < at.end && at.end <= ztoc.compressed_size(), "span {span}");
        let _ = (ztoc.checkpoint(span), ztoc.spans().uncompressed(span));
    }
    assert!(total <= ztoc.bytes().len() * 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A few flipped bits anywhere in a real zTOC, and cut-off ends.
    #[test]
    fn damaged_ztocs_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        small in any::<bool>(),
    ) {
        let (name, compression) =
            if small { ("plain-padded.tar", Compression::Uncompressed) } else { ("gnu.tar.gz", Compression::Gzip) };
        let mut bytes = build(&golden(name), compression, 4096).to_vec();
        // Windows are most of a gzip zTOC and any content is a legal window: flip elsewhere.
        let toc = bytes.len() - bytes.len() % CHECKPOINT.min(bytes.len());
        for (at, bit) in flips {
            let at = if small { at.index(bytes.len()) } else { bytes.len() - 1 - at.index(toc.min(2000)) };
            bytes[at] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(ztoc) = Ztoc::parse(bytes.into()) {
            exercise(&ztoc);
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(ztoc) = Ztoc::parse(bytes.into()) {
            exercise(&ztoc);
        }
    }
}

#[test]
fn damaged_layers_never_panic_the_builder() {
    for name in ["gnu.tar.gz", "pax.tar.gz", "header-fields.tar.gz", "special.tar.gz", "plain-padded.tar"] {
        let layer = golden(name);
        let compression = if name.ends_with("gz") { Compression::Gzip } else { Compression::Uncompressed };
        for at in 0..layer.len().min(3000) {
            let mut damaged = layer.clone();
            damaged[at] ^= 1 << (at % 8);
            let mut builder = Builder::new(BuildOptions::new(compression)).unwrap();
            // Whatever is accepted can be read.
            if builder.push(damaged.into()).is_ok()
                && let Ok(built) = builder.finish()
            {
                exercise(&Ztoc::parse(built.bytes).unwrap());
            }
        }
        for end in 0..layer.len().min(2000) {
            let mut builder = Builder::new(BuildOptions::new(compression)).unwrap();
            let ok = builder.push(layer[..end].to_vec().into()).is_ok() && builder.finish().is_ok();
            assert!(!ok || compression == Compression::Uncompressed, "{name} cut at {end}");
        }
    }
}
