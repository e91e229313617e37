//! A Zstandard stream of anybody: decoding gives the same however the stream is cut, and a zTOC of it describes it.
//!
//! The input is the size of the pieces (a byte), the room for output (a byte) and the stream.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use testdata::seeds;
use ztoc::{Checkpoint, Compression, Error, SpanDecoder};
use ztoc_fuzz::{build, check_built};

/// Output that is looked at, in bytes: a few bytes of a frame can make megabytes.
const OUTPUT: u64 = 1 << 16;

fn decode(stream: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, Error> {
    let checkpoint = Checkpoint { compression: Compression::Zstd, bits: 0, window: Cow::Borrowed(&[]) };
    let mut decoder = SpanDecoder::new(&checkpoint, OUTPUT)?;
    let (mut output, mut buffer) = (Vec::new(), vec![0; room]);
    for mut piece in stream.chunks(piece) {
        loop {
            let written = decoder.decode(&mut piece, &mut buffer)?;
            output.extend_from_slice(&buffer[..written]);
            if written == 0 {
                break;
            }
        }
        assert!(piece.is_empty() || decoder.is_complete(), "input is left only when the output is complete");
    }
    assert_eq!(output.len() as u64 + decoder.missing(), OUTPUT);
    Ok(output)
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for archive in seeds::archives() {
        for frame in [512, 4096, usize::MAX] {
            let mut seed = vec![63, 255];
            // A skippable frame, such as zstd:chunked and pzstd write.
            seed.extend(b"\x5a\x2a\x4d\x18\x04\x00\x00\x00soci");
            for part in archive[..archive.len().min(16 << 10)].chunks(frame) {
                seed.extend(zstd::encode_all(part, 3).expect("an archive can be compressed"));
            }
            seeds.push(seed);
        }
    }
    seeds
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    let Some(([piece, room], stream)) = data.split_first_chunk() else { return };
    let (piece, room) = (usize::from(*piece) + 1, usize::from(*room) + 1);
    let whole = decode(stream, stream.len().max(1), 1 << 16);
    let pieces = decode(stream, piece, room);
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces, "pieces make no difference"),
        (Err(_), Err(_)) => {}
        // Damage behind the last byte of output is met or not, depending on how much is decoded at a time.
        (Ok(output), Err(_)) | (Err(_), Ok(output)) => assert_eq!(output.len() as u64, OUTPUT),
    }
    if let Some(ztoc) = build(stream, Compression::Zstd, 1024, piece) {
        check_built(ztoc, stream);
    }
});
