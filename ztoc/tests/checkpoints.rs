//! Checkpoints against an independent decoder: `miniz_oxide`, which stops at the same block boundaries but
//! shares no code with the inflater we use.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets something unexpected stops there")]

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression as Level, GzBuilder};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use proptest::prelude::*;
use ztoc::{BuildOptions, Builder, Compression, Ztoc};

const WINDOW: usize = 32 * 1024;

#[derive(Debug, PartialEq, Eq)]
struct Checkpoint {
    input: usize,
    output: usize,
    bits: u8,
    window: Vec<u8>,
}

/// Size of a gzip header with the flags we generate: optional file name and comment.
fn header_size(member: &[u8]) -> usize {
    let mut size = 10;
    for flag in [8, 16] {
        if member[3] & flag != 0 {
            size += member[size..].iter().position(|b| *b == 0).unwrap() + 1;
        }
    }
    size
}

/// The rule of the format, told with another decoder.
fn expected(layer: &[u8], span_size: usize) -> (Vec<Checkpoint>, Vec<u8>) {
    let mut output = Vec::new();
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    let mut at = 0;
    let mut add = |input: usize, bits: u8, output: &[u8]| {
        let due = checkpoints.last().is_none_or(|last: &Checkpoint| output.len() - last.output > span_size);
        if due {
            let mut window = vec![0; WINDOW];
            let have = output.len().min(WINDOW);
            window[WINDOW - have..].copy_from_slice(&output[output.len() - have..]);
            checkpoints.push(Checkpoint { input, output: output.len(), bits, window });
        }
    };
    while at < layer.len() {
        at += header_size(&layer[at..]);
        add(at, 0, &output);
        let member_start = output.len();
        let mut decoder = DecompressorOxide::new();
        // All of the member's output in one flat buffer, so that no wrapping is involved.
        let mut member = vec![0; 8 << 20];
        let mut filled = 0;
        loop {
            let flags = inflate_flags::TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY
                | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let (status, used, made) = decompress(&mut decoder, &layer[at..], &mut member, filled, flags);
            at += used;
            filled += made;
            output.truncate(member_start);
            output.extend_from_slice(&member[..filled]);
            match status {
                TINFLStatus::BlockBoundary => {
                    let state = decoder.block_boundary_state().unwrap();
                    add(at, state.num_bits, &output);
                }
                TINFLStatus::Done => break,
                other => panic!("{other:?}"),
            }
        }
        at += 8;
    }
    (checkpoints, output)
}

/// One zero-padded tar of a single file whose content is `data`.
fn tar(data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    header[136..147].copy_from_slice(b"14524720400");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = [&header, data].concat();
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

#[derive(Debug, Clone)]
struct Piece {
    level: u32,
    name: bool,
    length: usize,
    flush: bool,
    kind: u8,
}

fn piece() -> impl Strategy<Value = Piece> {
    (0u32..10, any::<bool>(), 0usize..200_000, any::<bool>(), 0u8..4)
        .prop_map(|(level, name, length, flush, kind)| Piece { level, name, length, flush, kind })
}

fn content(seed: u64, length: usize, kind: u8) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match kind {
                0 => (state >> 32) as u8,
                1 => b"etaoin shrdlu"[(state >> 40) as usize % 13],
                2 => (i / 1000) as u8,
                _ => (state >> 62) as u8 * (i % 7) as u8,
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn checkpoints_agree_with_miniz_oxide(
        pieces in prop::collection::vec(piece(), 1..5),
        seed in any::<u64>(),
        span_size in prop::sample::select(vec![1u64, 5_000, 65_536, 4 << 20]),
        chunk in 1usize..100_000,
    ) {
        let data: Vec<u8> =
            pieces.iter().enumerate().flat_map(|(i, p)| content(seed ^ i as u64, p.length, p.kind)).collect();
        let tar = tar(&data);
        // The members cut the tar where the pieces end.
        let mut layer = Vec::new();
        let mut rest = tar.as_slice();
        for (index, piece) in pieces.iter().enumerate() {
            let take = if index + 1 == pieces.len() { rest.len() } else { piece.length.min(rest.len()) };
            let (now, later) = rest.split_at(take);
            rest = later;
            let builder = if piece.name { GzBuilder::new().filename("layer.tar").comment("c") } else { GzBuilder::new() };
            let mut encoder = builder.write(Vec::new(), Level::new(piece.level));
            let (a, b) = now.split_at(now.len() / 3);
            encoder.write_all(a).unwrap();
            if piece.flush {
                encoder.flush().unwrap();
            }
            encoder.write_all(b).unwrap();
            layer.extend(encoder.finish().unwrap());
        }
        let (checkpoints, archive) = expected(&layer, usize::try_from(span_size).unwrap());
        prop_assert!(archive == tar);

        let mut builder = Builder::new(BuildOptions { span_size, ..BuildOptions::new(Compression::Gzip) }).unwrap();
        for chunk in layer.chunks(chunk) {
            builder.push(Bytes::copy_from_slice(chunk)).unwrap();
        }
        let ztoc = Ztoc::parse(builder.finish().unwrap().bytes).unwrap();
        prop_assert_eq!(ztoc.spans().len(), checkpoints.len());
        for (span, wanted) in checkpoints.iter().enumerate() {
            let got = ztoc.checkpoint(span);
            let start = wanted.input - usize::from(wanted.bits != 0);
            prop_assert_eq!(ztoc.spans().compressed(span).start, start as u64);
            prop_assert_eq!(ztoc.spans().uncompressed(span).start, wanted.output as u64);
            prop_assert_eq!(got.bits, wanted.bits);
            prop_assert!(got.window[..] == wanted.window[..], "window of span {}", span);
            let at = ztoc.spans().compressed(span);
            let range = ztoc.spans().uncompressed(span);
            let bytes = &layer[at.start as usize..at.end as usize];
            let extracted = ztoc.extract(range.clone(), bytes).unwrap();
            prop_assert!(extracted == archive[range.start as usize..range.end as usize], "span {}", span);
        }
    }
}
