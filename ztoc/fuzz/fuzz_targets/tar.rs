//! An archive of anybody: the walk finds the same however the archive is cut, and a zTOC says what the headers do.
//!
//! The input is the size of the pieces (a byte) and the archive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use testdata::seeds;
use ztoc::{BuildError, Compression, Entry, TarWalker};
use ztoc_fuzz::{build, check_built};

fn walk(archive: &[u8], piece: usize) -> Result<(Vec<Entry>, u64), BuildError> {
    let mut walker = TarWalker::new();
    for piece in archive.chunks(piece) {
        walker.push(piece)?;
    }
    walker.finish()
}

fn seeds() -> Vec<Vec<u8>> {
    seeds::archives().into_iter().map(|archive| [&[100], &archive[..]].concat()).collect()
}

fuzz_target!(init: seeds::write_if_asked(seeds), |data: &[u8]| {
    let Some((piece, archive)) = data.split_first() else { return };
    let whole = walk(archive, archive.len().max(1));
    let pieces = walk(archive, usize::from(*piece) + 1);
    match (whole, pieces) {
        (Ok((entries, size)), Ok(pieces)) => {
            assert!(size <= archive.len() as u64 && entries.len() * 512 <= archive.len());
            assert!((entries, size) == pieces, "pieces make no difference");
        }
        (Err(whole), Err(pieces)) => return assert_eq!(whole.to_string(), pieces.to_string()),
        _ => panic!("pieces make no difference"),
    }
    if let Some(ztoc) = build(archive, Compression::Uncompressed, 1024, usize::from(*piece) + 1) {
        check_built(ztoc, archive);
    }
});
