//! A layer of anybody, unpacked: nothing outside of its directory is touched.
#![no_main]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use fuse_snapshotter::image::unpack::{Limits, Options, Whiteouts, unpack};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use testdata::seeds;

/// A directory in memory, so that files cost little; a file in it that must stay as it is.
static SCRATCH: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let scratch = scratch.expect("a temporary directory");
    let witness = scratch.path().join("witness");
    fs::write(&witness, "untouched").expect("a file can be written");
    (scratch, witness)
});

fn options() -> Options {
    let limits = Limits {
        uncompressed_size: 1 << 20,
        entries: 64,
        file_size: 1 << 20,
        sparse_regions: 64,
        directory_memory: 1 << 20,
    };
    // Without owners nothing needs privileges: device nodes are left out.
    Options { whiteouts: Whiteouts::UserXattr, ownership: false, limits }
}

fuzz_target!(init: seeds::write_if_asked(seeds::archives), |layer: &[u8]| {
    let (scratch, witness) = &*SCRATCH;
    let target = scratch.path().join("target");
    fs::create_dir(&target).expect("a directory can be made");
    let unpacked = unpack(layer, None, &target, &options());
    if let Ok(unpacked) = unpacked {
        assert!(unpacked.entries <= 64 && unpacked.uncompressed_size <= 1 << 20);
        assert!(unpacked.implied.iter().all(|path| path.is_relative() && target.join(path).is_dir()));
    }
    let mut around: Vec<_> =
        fs::read_dir(scratch.path()).expect("it can be listed").map(|entry| entry.expect("an entry").file_name()).collect();
    around.sort();
    assert_eq!(around, ["target", "witness"], "nothing is made beside the target");
    let seen = fs::symlink_metadata(witness).expect("the witness is there");
    assert!(seen.is_file() && seen.len() == 9 && seen.nlink() == 1, "the witness is untouched");
    // Layers may make directories that their owner cannot write to; root can all the same.
    fs::remove_dir_all(&target).expect("the target can be removed");
});
