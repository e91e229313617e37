//! The upper directory of an overlay as a layer, as container builders make layers.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::image::{Compression, Content, Entry, Kind, Layer, LayerBuilder};

/// Overlayfs's own bookkeeping.
const OVERLAY: &[u8] = b"trusted.overlay.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Writes everything in `upper` as a layer to `file`. Whiteouts and opaque directories take the form that layers have.
pub(super) fn pack(upper: &Path, file: &Path) -> Layer {
    let mut layer = LayerBuilder::to_file(file, Compression::GZIP).without_record();
    let mut links = HashMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let full = upper.join(OsStr::from_bytes(&path));
        let metadata = fs::symlink_metadata(&full).unwrap();
        let Some(entry) = entry(&path, &full, &metadata, &mut links) else { continue };
        let mut attributes = crate::walk::xattrs(&full);
        let opaque = attributes.get(OPAQUE).is_some_and(|value| value == b"y");
        // A hard link has its attributes from the first name.
        let is_link = matches!(entry.kind, Kind::HardLink(_));
        attributes.retain(|name, _| !is_link && !name.starts_with(OVERLAY));
        let entry = attributes.into_iter().fold(entry, |entry, (name, value)| entry.xattr(name, value));
        layer.add(entry);
        if metadata.is_dir() {
            if opaque {
                layer.add(Entry::opaque(&path));
            }
            let mut names: Vec<_> =
                fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
            // The first name is taken from the end.
            pending.extend(names.into_iter().rev().map(|name| [&path, separator, name.as_bytes()].concat()));
        }
    }
    layer.finish()
}

/// The entry of one file, without extended attributes; `None` for what has no place in a layer.
fn entry(
    path: &[u8],
    full: &Path,
    metadata: &Metadata,
    links: &mut HashMap<(u64, u64), Vec<u8>>,
) -> Option<Entry> {
    let device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let kind = metadata.mode() & 0o170_000;
    if kind == 0o020_000 && device == (0, 0) {
        return Some(Entry::whiteout(path));
    }
    if kind != 0o040_000 && metadata.nlink() > 1 {
        let inode = (metadata.dev(), metadata.ino());
        if let Some(first) = links.get(&inode) {
            return Some(with_metadata(Entry::hard_link(path, first), metadata));
        }
        links.insert(inode, path.to_vec());
    }
    let entry = match kind {
        0o040_000 if path.is_empty() => Entry::dir("."),
        0o040_000 => Entry::dir(path),
        0o100_000 => {
            let content = Content::File { path: full.to_owned(), len: metadata.len() };
            Entry::new(path, Kind::File(content))
        }
        0o120_000 => Entry::symlink(path, fs::read_link(full).unwrap().as_os_str().as_bytes()),
        0o020_000 => Entry::char_device(path, device.0, device.1),
        0o060_000 => Entry::block_device(path, device.0, device.1),
        0o010_000 => Entry::fifo(path),
        _ => return None,
    };
    Some(with_metadata(entry, metadata))
}

fn with_metadata(entry: Entry, metadata: &Metadata) -> Entry {
    let nanos = u32::try_from(metadata.mtime_nsec()).unwrap();
    entry
        .mode(metadata.mode() & 0o7777)
        .owner(metadata.uid().into(), metadata.gid().into())
        .mtime(metadata.mtime(), nanos)
}
