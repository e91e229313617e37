//! Zstandard layers: spans against an independent division into frames, and what damaged and hostile layers come to.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use bytes::Bytes;
use proptest::prelude::*;
use ztoc::{BuildError, BuildOptions, Builder, Built, Compression, Error, Sha256Digest, SpanDecoder, Ztoc};

/// A tar of files with these contents.
fn tar<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut tar = Vec::new();
    for (index, data) in files.into_iter().enumerate() {
        let mut header = [0u8; 512];
        let name = format!("file{index}");
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[136..147].copy_from_slice(b"14524720400");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend(header);
        tar.extend(data);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if seed.is_multiple_of(3) {
                (state >> 32) as u8
            } else {
                b"etaoin shrdlu"[(state >> 40) as usize % (1 + i % 13)]
            }
        })
        .collect()
}

fn frame(data: &[u8], level: i32) -> Vec<u8> {
    zstd::encode_all(data, level).unwrap()
}

fn skippable(nibble: u8, data: &[u8]) -> Vec<u8> {
    [&[0x50 | nibble, 0x2a, 0x4d, 0x18], &(data.len() as u32).to_le_bytes()[..], data].concat()
}

fn options(span_size: u64) -> BuildOptions {
    BuildOptions { span_size, ..BuildOptions::new(Compression::Zstd) }
}

fn build_with(layer: &[u8], options: BuildOptions, chunk: usize) -> Result<Built, BuildError> {
    let mut builder = Builder::new(options)?;
    for chunk in layer.chunks(chunk) {
        builder.push(Bytes::copy_from_slice(chunk))?;
    }
    builder.finish()
}

fn build(layer: &[u8], span_size: u64) -> Result<Ztoc, BuildError> {
    Ok(Ztoc::parse(build_with(layer, options(span_size), 100_000)?.bytes).unwrap())
}

/// A layer of 300 KB in frames of 10,000 bytes, with its archive.
fn sample() -> (Vec<u8>, Vec<u8>) {
    let archive = tar([&content(1, 200_000)[..], &[], &content(3, 100_000)]);
    (archive.chunks(10_000).flat_map(|part| frame(part, 3)).collect(), archive)
}

/// Where spans begin by the rule of the format, with zstd's own idea of where frames end.
fn expected(layer: &[u8], span_size: u64) -> (Vec<(u64, u64)>, Vec<u8>) {
    let (mut marks, mut archive, mut at) = (vec![(0, 0)], Vec::new(), 0);
    while at < layer.len() {
        let length = zstd::zstd_safe::find_frame_compressed_size(&layer[at..]).unwrap();
        let output = archive.len() as u64;
        if layer[at] == 0x28 {
            if output - marks.last().unwrap().1 >= span_size {
                marks.push((at as u64, output));
            }
            archive.extend(zstd::decode_all(&layer[at..at + length]).unwrap());
        }
        at += length;
    }
    (marks, archive)
}

fn check(layer: &[u8], ztoc: &Ztoc, marks: &[(u64, u64)], archive: &[u8]) {
    let spans = ztoc.spans();
    assert_eq!((spans.len(), spans.compression()), (marks.len(), Compression::Zstd));
    for (span, (input, output)) in marks.iter().enumerate() {
        let (at, range) = (spans.compressed(span), spans.uncompressed(span));
        assert_eq!((at.start, range.start), (*input, *output));
        let bytes = &layer[at.start as usize..at.end as usize];
        spans.verify(span, bytes).unwrap();
        assert_eq!(ztoc.window_range(span), None);
        let wanted = &archive[range.start as usize..range.end as usize];
        assert!(ztoc.extract(range, bytes).unwrap() == wanted, "span {span}");
    }
    assert_eq!(spans.compressed(spans.len() - 1).end, layer.len() as u64);
}

#[derive(Debug, Clone)]
struct Piece {
    length: usize,
    level: i32,
    skippable: Option<(u8, usize)>,
}

fn piece() -> impl Strategy<Value = Piece> {
    let skippable = prop::option::weighted(0.3, (0u8..16, 0usize..40));
    (0usize..60_000, -3i32..6, skippable).prop_map(|(length, level, skippable)| Piece {
        length,
        level,
        skippable,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spans_are_runs_of_frames_and_extract_what_was_packed(
        files in prop::collection::vec((0usize..50_000, any::<u64>()), 0..6),
        pieces in prop::collection::vec(piece(), 1..12),
        span_size in prop::sample::select(vec![1u64, 5_000, 30_000, 65_536, 4 << 20]),
        chunk in prop::sample::select(vec![1usize, 3, 17, 1_000, 65_536, 1 << 20]),
        range in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let files: Vec<_> = files.iter().map(|(length, seed)| content(*seed, *length)).collect();
        let archive = tar(files.iter().map(Vec::as_slice));
        let (mut layer, mut rest) = (Vec::new(), archive.as_slice());
        for (index, piece) in pieces.iter().enumerate() {
            let take = if index + 1 == pieces.len() { rest.len() } else { piece.length.min(rest.len()) };
            let (now, later) = rest.split_at(take);
            rest = later;
            if let Some((nibble, length)) = piece.skippable {
                layer.extend(skippable(nibble, &vec![0x28; length]));
            }
            layer.extend(frame(now, piece.level));
        }
        layer.extend(skippable(14, b"seek table"));
        let options = BuildOptions { accept_single_frame: true, ..options(span_size) };
        let built = build_with(&layer, options, chunk).unwrap();
        prop_assert_eq!(built.blob_digest, Sha256Digest::of(&layer));
        let ztoc = Ztoc::parse(built.bytes).unwrap();
        prop_assert_eq!((ztoc.len(), ztoc.uncompressed_size()), (files.len(), archive.len() as u64));
        let (marks, decoded) = expected(&layer, span_size);
        prop_assert!(decoded == archive);
        check(&layer, &ztoc, &marks, &archive);

        let (a, b) = (range.0.index(archive.len()), range.1.index(archive.len()));
        let range = a.min(b) as u64..a.max(b) as u64;
        let of = ztoc.spans().spans_of(&range);
        if !of.is_empty() {
            let spans = ztoc.spans();
            let bytes = spans.compressed(of.start).start as usize..spans.compressed(of.end - 1).end as usize;
            let wanted = &archive[range.start as usize..range.end as usize];
            prop_assert!(ztoc.extract(range, &layer[bytes]).unwrap() == wanted);
        }
    }
}

#[test]
fn frames_of_the_spans_size_are_a_span_each() {
    let (layer, archive) = sample();
    let ztoc = build(&layer, 10_000).unwrap();
    assert_eq!(ztoc.spans().len(), archive.len().div_ceil(10_000));
    assert_eq!(ztoc.spans().uncompressed(3), 30_000..40_000);
    assert_eq!(ztoc.spans().span_size(), 10_000);
    // Smaller frames are gathered to at least the span's size.
    assert_eq!(build(&layer, 10_001).unwrap().spans().uncompressed(1), 20_000..40_000);
}

#[test]
fn a_single_frame_is_refused_unless_it_is_asked_for() {
    let (_, archive) = sample();
    let layer = [skippable(0, b"x"), frame(&archive, 3), skippable(0, b"y")].concat();
    let error = build(&layer, 65_536).unwrap_err();
    assert!(matches!(error, BuildError::SingleFrame { size } if size == archive.len() as u64), "{error}");
    assert!(error.to_string().contains("zstd:chunked"));
    let options = BuildOptions { accept_single_frame: true, ..options(65_536) };
    let ztoc = Ztoc::parse(build_with(&layer, options, 999).unwrap().bytes).unwrap();
    check(&layer, &ztoc, &[(0, 0)], &archive);
    // However small it is: it would be read as a whole in any case.
    assert!(matches!(build(&layer, 4 << 20), Err(BuildError::SingleFrame { .. })));
}

#[test]
fn what_is_no_whole_stream_of_frames_is_refused() {
    let (layer, _) = sample();
    let truncated = |layer: &[u8]| matches!(build(layer, 4096), Err(BuildError::TruncatedStream { .. }));
    assert!(truncated(&[]) && truncated(&skippable(3, b"nothing else")) && truncated(&layer[..7]));
    for end in (0..layer.len()).step_by(1009) {
        // At a frame's end the stream is whole, and the archive is not; in its last padding it may be.
        assert!(build(&layer[..end], 4096).is_err(), "{end}");
    }
    for junk in [&b"junk"[..], &[0; 512], &[0x1f, 0x8b, 8, 0]] {
        let error = build(&[&layer, junk].concat(), 4096).unwrap_err();
        assert!(
            matches!(error, BuildError::Corrupt { offset, .. } if offset == layer.len() as u64),
            "{error}"
        );
    }
    // A few bytes of junk are the start of something that never comes.
    assert!(truncated(&[&layer[..], b"abc"].concat()));
    for (header, reason) in [(&[0, 255][..], "128 MiB"), (&[1, 0, 9], "dictionary")] {
        let error = build(&[&layer[..], &[0x28, 0xb5, 0x2f, 0xfd], header].concat(), 4096).unwrap_err();
        assert!(matches!(error, BuildError::UnsupportedFrame { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn damaged_layers_never_panic_and_what_is_accepted_can_be_read() {
    let (layer, _) = sample();
    for at in (0..layer.len()).step_by(1009) {
        let mut damaged = layer.clone();
        damaged[at] ^= 1 << (at % 8);
        if let Ok(ztoc) = build(&damaged, 30_000) {
            let (marks, archive) = expected(&damaged, 30_000);
            check(&damaged, &ztoc, &marks, &archive);
        }
    }
}

/// The frame is 16 KB and holds half a gigabyte.
#[test]
fn a_bomb_is_not_held_in_memory() {
    let header = tar([]);
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    // RLE blocks of 128 KiB, of which the last is marked.
    for block in 0..4096u32 {
        let header = (128 << 10) << 3 | 1 << 1 | u32::from(block == 4095);
        bomb.extend(&header.to_le_bytes()[..3]);
        bomb.push(0);
    }
    let layer = [frame(&header, 1), bomb].concat();
    let ztoc = build(&layer, 4096).unwrap();
    assert_eq!(ztoc.uncompressed_size(), 1024);
    let before = resident();
    let mut decoder = SpanDecoder::new(&ztoc.checkpoint(0), 300 << 20).unwrap();
    let (mut input, mut buffer, mut total) = (&layer[..], vec![0; 65536], 0);
    while let Ok(written @ 1..) = decoder.decode(&mut input, &mut buffer) {
        total += written;
    }
    assert!(total == 300 << 20 && decoder.is_complete());
    assert!(resident() < before + (64 << 20));
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn lying_checkpoints_give_errors_and_no_bytes_beyond_their_range() {
    let (layer, archive) = sample();
    let ztoc = build(&layer, 30_000).unwrap();
    let (at, range) = (ztoc.spans().compressed(1), ztoc.spans().uncompressed(1));
    let bytes = &layer[at.start as usize..at.end as usize];
    let length = range.end - range.start;
    let decode = |bytes: &[u8], length: u64| {
        let mut decoder = SpanDecoder::new(&ztoc.checkpoint(1), length).unwrap();
        let (mut input, mut output, mut filled) = (bytes, vec![0xaa; 200_000], 0);
        loop {
            match decoder.decode(&mut input, &mut output[filled..]) {
                Ok(0) => break,
                Ok(made) => filled += made,
                Err(_) => return None,
            }
        }
        assert!(output[filled..].iter().all(|byte| *byte == 0xaa));
        output.truncate(filled);
        Some((output, decoder.missing()))
    };
    let wanted = &archive[range.start as usize..range.end as usize];
    // Less than there is, all there is, and more.
    for (claimed, made) in
        [(1, 1), (9_999, 9_999), (length, length), (length + 1, length), (u64::MAX, length)]
    {
        let (output, missing) = decode(bytes, claimed).unwrap();
        assert!(output == wanted[..made as usize] && missing == claimed - made, "{claimed}");
    }
    // In the midst of a frame, cut short, or of another kind.
    for (bytes, why) in
        [(&bytes[3..], "no start"), (b"\x1f\x8b\x08\x00\x00\x00", "gzip"), (&[0; 64], "zeros")]
    {
        assert!(decode(bytes, length).is_none(), "{why}");
    }
    for end in [0, 3, 5, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(ztoc.extract(range.clone(), &bytes[..end]), Err(Error::Incomplete { .. })), "{end}");
    }
    // An input that comes to nothing does not make the decoder give up.
    let mut decoder = SpanDecoder::new(&ztoc.checkpoint(1), length).unwrap();
    let mut output = vec![0; 200_000];
    assert!(decoder.decode(&mut &bytes[..100], &mut output).is_ok());
    for _ in 0..100 {
        assert_eq!(decoder.decode(&mut &[][..], &mut output).unwrap(), 0);
    }
    let mut rest = &bytes[100..];
    while !decoder.is_complete() {
        assert!(decoder.decode(&mut rest, &mut output).unwrap() > 0);
    }
}
