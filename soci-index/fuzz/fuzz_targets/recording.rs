//! A recording of anybody: the file lies on disks of nodes, and `soci prefetch record` publishes what is made of it.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use registry::Digest;
use soci_index::recording::{MAX_READS, RecordedLayer, RecordedRead, Recording};
use testdata::{golden, seeds};
use ztoc::{BuildOptions, Builder, Compression, Ztoc};

/// A zTOC of a layer with many files, in many spans.
static ZTOC: LazyLock<Ztoc> = LazyLock::new(|| {
    let options = BuildOptions { span_size: 4096, ..BuildOptions::new(Compression::Uncompressed) };
    let mut builder = Builder::new(options).expect("a builder starts");
    builder.push(Bytes::from(golden::layer("plain.tar"))).expect("a golden layer can be indexed");
    Ztoc::parse(builder.finish().expect("a golden layer can be indexed").bytes)
        .expect("what was built can be read")
});

fn recording() -> Recording {
    let read = |entry, range, milliseconds| RecordedRead { layer: 0, entry, range, milliseconds };
    Recording {
        image: "registry.example.com/app:v1".into(),
        manifest: Digest::of(b"manifest"),
        index: Digest::of(b"index"),
        taken: 1_767_225_600,
        cold: true,
        waited: 3,
        layers: vec![RecordedLayer { layer: Digest::of(b"layer"), ztoc: Digest::of(b"ztoc") }],
        reads: vec![read(1, 0..4096, 1), read(0, 10..11, 120_000)],
        unattributed: None,
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let told = Recording { unattributed: Some(recording().reads), ..recording() };
    [recording(), told].iter().map(|one| one.encode().expect("a small recording")).collect()
}

fuzz_target!(init: seeds::write_if_asked(seeds), |json: &[u8]| {
    let Ok(recording) = Recording::parse(json) else { return };
    let all = recording.all();
    assert!(all.len() <= MAX_READS && all.iter().all(|read| (read.layer as usize) < recording.layers.len()));
    let _ = recording.bytes();
    for layer in &recording.layers {
        for (at, spans) in recording.spans(&layer.layer, &ZTOC) {
            assert!(at < recording.reads.len() && spans.start < spans.end && spans.end <= ZTOC.spans().len());
        }
    }
    if let Ok(written) = recording.encode() {
        assert_eq!(Recording::parse(&written).expect("what is written can be read"), recording);
    }
});
