//! The cache against a model of it, and what it promises.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod concurrent;
mod full;
mod model;
mod promises;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::block::BLOCK;
use super::layer::LayerCache;
use super::writer::ContentWriter;
use super::{BLOCK_SIZE, CacheRoot};

/// Files in the stream, and spans over the archive that they stand in without headers or padding between them.
#[derive(Debug, Clone)]
struct Layout {
    sizes: Vec<usize>,
    spans: Vec<Range<usize>>,
}

impl Layout {
    fn new(sizes: Vec<usize>, lengths: &[usize]) -> Self {
        let total: usize = sizes.iter().sum();
        let mut spans = Vec::new();
        let mut at = 0;
        for length in lengths.iter().cycle() {
            if at == total {
                break;
            }
            spans.push(at..total.min(at + length));
            at = spans.last().unwrap().end;
        }
        Self { sizes, spans }
    }

    fn blocks(&self) -> u32 {
        self.sizes.iter().map(|size| size.div_ceil(BLOCK) as u32).sum()
    }

    /// Offset of a file in the stream.
    fn stream(&self, file: usize) -> u64 {
        self.sizes[..file].iter().map(|size| size.div_ceil(BLOCK) as u64 * BLOCK_SIZE).sum()
    }

    /// The pieces of files in a span: file, range of its content.
    fn pieces(&self, span: usize) -> Vec<(usize, Range<usize>)> {
        let span = &self.spans[span];
        let mut start = 0;
        let mut pieces = Vec::new();
        for (file, size) in self.sizes.iter().enumerate() {
            let (from, to) = (span.start.max(start), span.end.min(start + size));
            if from < to {
                pieces.push((file, from - start..to - start));
            }
            start += size;
        }
        pieces
    }

    /// Writes a span as `fetch` does, with these contents; published unless it turns out to be wrong.
    fn write(&self, cache: &Arc<LayerCache>, span: usize, byte: impl Fn(usize, usize) -> u8, publish: bool) {
        let mut writer = ContentWriter::new(Arc::clone(cache));
        let pieces = self.pieces(span);
        for (file, range) in &pieces {
            let data: Vec<u8> = range.clone().map(|at| byte(*file, at)).collect();
            let end = self.stream(*file) + self.sizes[*file] as u64;
            // In several parts, as the inflater gives them.
            let mut at = self.stream(*file) + range.start as u64;
            for part in data.chunks(1500) {
                writer.write(at, part, end);
                at += part.len() as u64;
            }
        }
        if publish {
            writer.publish();
        }
    }
}

/// What byte a file has at a place.
fn content(file: usize, at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16) ^ (file * 37)) as u8 | 1
}

fn open(root: &CacheRoot, layout: &Layout) -> Arc<LayerCache> {
    root.layer("layer", "ztoc", layout.blocks()).unwrap()
}

/// Reads a range of a file; `None` if it is missing. Panics at a wrong byte.
fn read(cache: &LayerCache, layout: &Layout, file: usize, range: Range<usize>) -> Option<()> {
    let mut buffer = vec![0xee; range.len()];
    cache.read(layout.stream(file) + range.start as u64, &mut buffer).unwrap().then(|| {
        for (at, byte) in range.zip(buffer) {
            assert_eq!(byte, content(file, at), "file {file}, byte {at}");
        }
    })
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}
