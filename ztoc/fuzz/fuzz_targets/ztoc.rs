//! A zTOC of anybody: it is refused, or keeps all promises.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use testdata::seeds;
use ztoc::{Compression, Ztoc};
use ztoc_fuzz::{build, exercise};

/// Of archives and of Zstandard layers: a checkpoint of gzip alone would be longer than a seed. The target `zinfo` has
/// those.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for archive in seeds::archives() {
        let zstd = zstd::encode_all(&archive[..], 1).expect("an archive can be compressed");
        seeds.extend(build(&archive, Compression::Uncompressed, 4096, 1 << 20));
        seeds.extend(build(&zstd, Compression::Zstd, 4096, 1 << 20));
    }
    seeds.iter().map(|ztoc| ztoc.to_vec()).filter(|ztoc| ztoc.len() <= seeds::MAX_SIZE).collect()
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    if let Ok(ztoc) = Ztoc::parse(Bytes::copy_from_slice(data)) {
        exercise(&ztoc, data);
    }
});
