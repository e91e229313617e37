//! What a start reads: the spans that a lazy snapshotter cannot do without.
//!
//! The image is started twice from our own snapshotter. Before the second time the kernel's read-ahead on the mount is
//! turned off and its memory is emptied; so afterwards the pages in memory are those that the start asked for. The zTOCs
//! say in which spans they are.
//!
//! Pages that are read with the program's own requests larger than needed count; what was read and dropped from memory
//! again does not.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Serialize;
use ztoc::EntryKind;

use crate::container::Container;
use crate::images::Image;
use crate::node::Node;
use crate::pages::resident;
use crate::site::Site;
use crate::variant::Variant;

/// Of all lazy layers of an image.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Touched {
    /// Bytes of the pages that were read.
    pub(crate) bytes: u64,
    pub(crate) spans: usize,
    /// Bytes of these spans, compressed.
    pub(crate) span_bytes: u64,
    /// Which spans these are, by layer, bottom first.
    pub(crate) by_layer: Vec<BTreeSet<usize>>,
}

/// Starts an image and sees what it reads. The link must have no delay.
pub(crate) fn measure(site: &Site, image: &Image) -> anyhow::Result<Touched> {
    let node = Node::start(&Variant::Lazy, site)?;
    node.pull(&image.reference)?;
    drop(Container::run(&node, &image.reference, &image.ready)?);
    site.recordings.borrow_mut().extend(node.recordings()?);
    let trees = node.trees();
    let devices: BTreeSet<_> = trees.iter().map(|(_, device)| device.as_str()).collect();
    ensure!(!devices.is_empty(), "{}: nothing of it is lazy\n{}", image.name, node.log());
    for device in devices {
        let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
        fs::write(&path, "0").with_context(|| format!("cannot turn read-ahead off: {path}"))?;
    }
    benches::caches::drop_all()?;
    let (container, _) = Container::run(&node, &image.reference, &image.ready)?;
    let files = files(image);
    let mut touched = Touched { by_layer: vec![BTreeSet::new(); image.layers.len()], ..Touched::default() };
    // Files of a layer are the same in every tree: each is counted once.
    let mut seen = BTreeSet::new();
    for (tree, _) in &trees {
        look(tree, tree, &mut |path, ranges| {
            let Some(place) = files.get(path) else { return };
            if !seen.insert(path.to_owned()) {
                return;
            }
            let Some(ztoc) = &image.layers[place.layer].ztoc else { return };
            for range in ranges {
                let range = range.start.min(place.size)..range.end.min(place.size);
                touched.bytes += range.end - range.start;
                let archive = place.offset + range.start..place.offset + range.end;
                touched.by_layer[place.layer].extend(ztoc.spans().spans_of(&archive));
            }
        })?;
    }
    drop(container);
    for (layer, spans) in image.layers.iter().zip(&touched.by_layer) {
        let Some(ztoc) = &layer.ztoc else { continue };
        touched.spans += spans.len();
        touched.span_bytes += spans
            .iter()
            .map(|span| ztoc.spans().compressed(*span))
            .map(|range| range.end - range.start)
            .sum::<u64>();
    }
    Ok(touched)
}

/// Where a file's content is.
#[derive(Clone, Copy)]
struct Place {
    layer: usize,
    offset: u64,
    size: u64,
}

/// The files of an image as its topmost layers have them. Files that a layer takes away are there too; nobody asks for
/// them.
fn files(image: &Image) -> HashMap<Vec<u8>, Place> {
    let mut files = HashMap::new();
    for (layer, of_layer) in image.layers.iter().enumerate() {
        let Some(ztoc) = &of_layer.ztoc else { continue };
        for entry in ztoc.entries() {
            let place = match entry.kind {
                EntryKind::Regular => Some(Place { layer, offset: entry.offset, size: entry.size }),
                EntryKind::Hardlink => files.get(clean(entry.link_name)).copied(),
                _ => None,
            };
            files.extend(place.map(|place| (clean(entry.name).to_vec(), place)));
        }
    }
    files
}

fn clean(name: &[u8]) -> &[u8] {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    name.strip_prefix(b"/").unwrap_or(name)
}

/// Told the path and the ranges that are in memory.
type Found<'f> = dyn FnMut(&[u8], Vec<Range<u64>>) + 'f;

/// Calls `found` with path and ranges of each regular file that is in memory at least in part.
fn look(tree: &Path, directory: &Path, found: &mut Found<'_>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            look(tree, &path, found)?;
        } else if kind.is_file() {
            let ranges = resident(&File::open(&path)?).with_context(|| format!("{}", path.display()))?;
            if !ranges.is_empty() {
                let path = path.strip_prefix(tree)?;
                found(path.as_os_str().as_bytes(), ranges);
            }
        }
    }
    Ok(())
}
