//! Layers made of files of this machine, as large as wanted.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use testdata::image::host::HostFiles;
use testdata::image::{Compression, Layer};

/// Regular files under a directory, in a fixed order.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let mut entries: Vec<_> =
            std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// A layer in the file `path` of files from `roots`, until they have `size` bytes or there are no more.
#[must_use]
pub fn layer(path: &Path, roots: &[&str], size: u64) -> Layer {
    let mut host = HostFiles::new();
    let mut total = 0;
    let mut seen = HashSet::new();
    for file in roots.iter().flat_map(|root| files(Path::new(root))) {
        let Ok(metadata) = std::fs::metadata(&file) else { continue };
        // Hard links take no further space in a layer.
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let length = metadata.len();
        // Neither more than asked for, nor one huge file that is most of the layer.
        if length <= size / 4 && total + length <= size {
            total += length;
            host.path(&file);
        }
    }
    host.layer_to(path, Compression::GZIP)
}
