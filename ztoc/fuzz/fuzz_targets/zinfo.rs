//! Checkpoints of anybody, in a zTOC that is otherwise well-formed.
//!
//! The input is the kind of checkpoints (a byte), the number of spans (a byte), the sizes of layer and archive (8 bytes
//! each), and the zinfo. In one of a gzip layer the windows are left out and filled with zeros here, so that inputs stay
//! short.
#![no_main]

use libfuzzer_sys::fuzz_target;
use testdata::seeds;
use ztoc::fuzzing::Parts;
use ztoc::{Compression, WINDOW_SIZE, Ztoc};
use ztoc_fuzz::{build, exercise};

/// Checkpoints of a gzip layer that get windows: each costs 32 KiB. What follows is left as it is.
const CHECKPOINTS: usize = 1;
/// Number of checkpoints and span size, in bytes.
const HEADER: usize = 12;
/// A checkpoint of gzip without its window, in bytes.
const CHECKPOINT: usize = 17;

const KINDS: [Compression; 3] = [Compression::Gzip, Compression::Uncompressed, Compression::Zstd];

fn with_windows(short: &[u8]) -> Vec<u8> {
    let Some((header, mut rest)) = short.split_at_checked(HEADER) else { return short.to_vec() };
    let mut zinfo = header.to_vec();
    for _ in 0..CHECKPOINTS {
        let Some((checkpoint, more)) = rest.split_at_checked(CHECKPOINT) else { break };
        zinfo.extend_from_slice(checkpoint);
        zinfo.resize(zinfo.len() + WINDOW_SIZE, 0);
        rest = more;
    }
    zinfo.extend_from_slice(rest);
    zinfo
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut add = |kind: usize, layer: &[u8], span_size| {
        let Some(ztoc) =
            build(layer, KINDS[kind], span_size, 1 << 20).and_then(|ztoc| Ztoc::parse(ztoc).ok())
        else {
            return;
        };
        let spans = ztoc.spans().len().min(CHECKPOINTS);
        let mut seed = vec![kind as u8, spans as u8];
        seed.extend(ztoc.compressed_size().to_le_bytes());
        seed.extend(ztoc.uncompressed_size().to_le_bytes());
        match KINDS[kind] {
            Compression::Gzip => {
                let first = ztoc.window_range(0).expect("a checkpoint has a window").start - CHECKPOINT;
                seed.extend((spans as u32).to_le_bytes());
                seed.extend_from_slice(&ztoc.bytes()[first - 8..first]);
                for span in 0..spans {
                    let at = ztoc.window_range(span).expect("a checkpoint has a window").start - CHECKPOINT;
                    seed.extend_from_slice(&ztoc.bytes()[at..at + CHECKPOINT]);
                }
            }
            Compression::Zstd => {
                seed.extend(1u32.to_le_bytes());
                seed.extend((spans as u32).to_le_bytes());
                seed.extend(span_size.to_le_bytes());
                for span in 0..spans {
                    seed.extend(ztoc.spans().compressed(span).start.to_le_bytes());
                    seed.extend(ztoc.spans().uncompressed(span).start.to_le_bytes());
                }
            }
            Compression::Uncompressed => {
                // A FlatBuffer: where the table is, its vtable (three fields at 4, 8 and 16), padding, where the vtable is,
                // and the fields: version, span size, size.
                seed.extend(16u32.to_le_bytes());
                for half in [10u16, 24, 4, 8, 16, 0] {
                    seed.extend(half.to_le_bytes());
                }
                seed.extend(12i32.to_le_bytes());
                seed.extend(2i32.to_le_bytes());
                seed.extend(span_size.to_le_bytes());
                seed.extend(ztoc.compressed_size().to_le_bytes());
            }
        }
        seeds.push(seed);
    };
    for (name, layer) in seeds::layers() {
        if name.ends_with(".gz") {
            add(0, &layer, 65536);
        }
    }
    for archive in seeds::archives() {
        let span_size = (archive.len() as u64 / 3).max(1);
        add(1, &archive, span_size);
        let frames = archive.chunks(archive.len().div_ceil(3).max(1));
        let frames: Vec<u8> = frames
            .flat_map(|part| zstd::encode_all(part, 1).expect("an archive can be compressed"))
            .collect();
        add(2, &frames, span_size);
    }
    seeds
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    let Some(([kind, spans], rest)) = data.split_first_chunk() else { return };
    let Some((compressed_size, rest)) = rest.split_first_chunk() else { return };
    let Some((uncompressed_size, zinfo)) = rest.split_first_chunk() else { return };
    let compression = KINDS[usize::from(*kind) % KINDS.len()];
    let zinfo = if compression == Compression::Gzip { with_windows(zinfo) } else { zinfo.to_vec() };
    let parts = Parts {
        compression,
        compressed_size: u64::from_le_bytes(*compressed_size),
        uncompressed_size: u64::from_le_bytes(*uncompressed_size),
        entries: &[],
        zinfo: &zinfo,
        spans: (*spans).into(),
    };
    if let Some(Ok(ztoc)) = parts.serialise().map(Ztoc::parse) {
        exercise(&ztoc, data);
        // Where a zTOC says that the spans are is where they are decoded from.
        for span in 0..ztoc.spans().len().min(CHECKPOINTS) {
            let range = ztoc.spans().uncompressed(span);
            let wanted = range.start..range.end.min(range.start + 4096);
            if let Ok(bytes) = ztoc.extract(wanted.clone(), data) {
                assert_eq!(bytes.len() as u64, wanted.end - wanted.start, "never fewer bytes than asked for");
            }
        }
    }
});
