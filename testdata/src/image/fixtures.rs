//! Layers that tests and benchmarks ask for by size.

use std::path::Path;

use super::compress::Compression;
use super::content::{Rng, Texture};
use super::entry::{Entry, MTIME};
use super::layer::{Layer, LayerBuilder};

/// Files in a directory, and directories in a directory.
const FAN: usize = 100;

/// Tenths of a big layer's bytes.
const SHARES: [(Texture, u64); 3] = [(Texture::Text, 5), (Texture::Binary, 3), (Texture::Random, 2)];

/// A layer in memory of `n` small files (up to 4 KiB, 700 bytes on average) in nested directories of 100:
/// `srv/d000/d000/f000000.txt`. For 100,000 files: 148 MB of tar, 25 MB
/// compressed, 55 MB of memory with the record of entries, 4 s without optimisation.
pub fn many_small_files(n: usize) -> Layer {
    small_files(LayerBuilder::new(Compression::GZIP), n)
}

/// As [`many_small_files`], into a file and without a record: memory does not grow with `n`.
pub fn many_small_files_to(path: impl AsRef<Path>, n: usize) -> Layer {
    small_files(LayerBuilder::to_file(path, Compression::GZIP).without_record(), n)
}

fn small_files(mut layer: LayerBuilder, n: usize) -> Layer {
    let mut rng = Rng::new(100_000);
    layer.add(Entry::dir("srv"));
    for i in 0..n {
        let (outer, inner) = (i / (FAN * FAN), i / FAN % FAN);
        if i % (FAN * FAN) == 0 {
            layer.add(Entry::dir(format!("srv/d{outer:03}")));
        }
        if i % FAN == 0 {
            layer.add(Entry::dir(format!("srv/d{outer:03}/d{inner:03}")));
        }
        let (texture, extension) = if i % 4 == 3 { (Texture::Binary, "bin") } else { (Texture::Text, "txt") };
        // The product of two even numbers makes small files more frequent than large ones, as in real trees.
        let len = (rng.below(64) + 1) * rng.below(64).min(rng.below(64));
        let path = format!("srv/d{outer:03}/d{inner:03}/f{i:06}.{extension}");
        let mode = if i % 10 == 0 { 0o755 } else { 0o644 };
        let entry = Entry::made(path, texture, i as u64, len).mode(mode).mtime(MTIME + i as i64, 0);
        layer.add(entry);
    }
    layer.finish()
}

/// A layer in the file `path` whose tar has about `bytes` bytes (within a few KiB): files from 4 KiB to a quarter of it,
/// half of the bytes text-like, three tenths binary-like, a fifth random. gzip level 6 makes a bit under half of it.
pub fn one_big_layer(path: impl AsRef<Path>, bytes: u64) -> Layer {
    big_layer(path, bytes, Compression::GZIP)
}

/// As [`one_big_layer`], compressed as the caller likes; level 1 takes less than half of the time.
pub fn big_layer(path: impl AsRef<Path>, bytes: u64, compression: Compression) -> Layer {
    let mut layer = LayerBuilder::to_file(path, compression);
    let mut rng = Rng::new(bytes);
    layer.add(Entry::dir("opt")).add(Entry::dir("opt/big"));
    let mut number = 0;
    let mut written = [0; SHARES.len()];
    while layer.position() + 4096 + 512 + 1024 <= bytes {
        let left = bytes - layer.position() - 512 - 1024;
        // Every fourth file is large: a share of what is left, so that there are files of all orders of magnitude.
        let wish = match number % 4 {
            0 => left / 4,
            1 => 4096 << rng.below(5),
            2 => (64 << 10) << rng.below(5),
            _ => 4096 + rng.below(1 << 20),
        };
        // Whichever is furthest behind its share.
        let due = |i: &usize| (SHARES[*i].1 * layer.position()) as i64 - 10 * written[*i] as i64;
        let kind = (0..SHARES.len()).max_by_key(due).unwrap_or(0);
        let texture = SHARES[kind].0;
        let len = wish.max(4096).min(left / 512 * 512);
        let path = format!("opt/big/{texture:?}-{number:05}.dat").to_lowercase();
        layer.add(Entry::made(path, texture, bytes ^ number, len));
        written[kind] += len;
        number += 1;
    }
    layer.finish()
}
