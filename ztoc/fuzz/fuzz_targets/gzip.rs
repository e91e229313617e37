//! A gzip layer of anybody: a zTOC of it describes it, and decoding from a checkpoint of anybody ends.
//!
//! The input is the size of the pieces (a byte), the number of bits of the first byte that count and whether there is a
//! window (a byte), and the layer.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use testdata::seeds;
use ztoc::{Checkpoint, Compression, SpanDecoder, WINDOW_SIZE};
use ztoc_fuzz::{build, check_built};

/// Output that is looked at, in bytes.
const OUTPUT: u64 = 1 << 16;

fn decode(checkpoint: &Checkpoint<'_>, mut stream: &[u8]) {
    let mut decoder = SpanDecoder::new(checkpoint, OUTPUT).expect("a decoder takes any window and bits");
    let mut buffer = [0; 4096];
    let mut total = 0;
    while let Ok(written @ 1..) = decoder.decode(&mut stream, &mut buffer) {
        total += written as u64;
    }
    assert!(
        total <= OUTPUT && (total < OUTPUT || decoder.is_complete()),
        "exactly what was asked for, at most"
    );
}

fn seeds() -> Vec<Vec<u8>> {
    let layers = seeds::layers().into_iter().filter(|(name, _)| name.ends_with(".gz"));
    layers.map(|(_, layer)| [&[255, 0], &layer[..]].concat()).collect()
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    let Some(([piece, bits], layer)) = data.split_first_chunk() else { return };
    if let Some(ztoc) = build(layer, Compression::Gzip, 2048, usize::from(*piece) + 1) {
        check_built(ztoc, layer);
    }
    // The deflate stream behind a plain header, with or without bits of the byte before it and a window.
    let window = if bits & 8 == 0 { Vec::new() } else { vec![b'w'; WINDOW_SIZE] };
    let checkpoint = Checkpoint { compression: Compression::Gzip, bits: bits % 8, window: Cow::Owned(window) };
    decode(&checkpoint, layer.get(10..).unwrap_or_default());
});
