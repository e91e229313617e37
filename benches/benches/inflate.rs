//! Inflating with checkpoints, beside inflating without, by the same and by other libraries.
#![expect(clippy::unwrap_used, reason = "a benchmark that meets something unexpected stops there")]

use std::hint::black_box;

use benches::yardstick::{Mode, stock_zlib, zlib_rs};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use testdata::image::fixtures::one_big_layer;
use ztoc::{BuildOptions, Builder, Compression};

const SIZE: u64 = 64 << 20;

fn inflate(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layer");
    let layer = one_big_layer(&path, SIZE);
    let blob = bytes::Bytes::from(std::fs::read(&path).unwrap());
    let mut group = c.benchmark_group("inflate");
    group.throughput(Throughput::Bytes(layer.uncompressed_size)).sample_size(10);
    group.bench_function("libdeflate (no checkpoints possible)", |b| {
        let mut decompressor = libdeflater::Decompressor::new();
        let mut output = vec![0; usize::try_from(layer.uncompressed_size).unwrap()];
        b.iter(|| decompressor.gzip_decompress(&blob, &mut output).unwrap());
    });
    group.bench_function("libz-rs-sys", |b| b.iter(|| zlib_rs(&mut &blob[..], Mode::Bare)));
    group.bench_function("libz-rs-sys, stopping at blocks", |b| {
        b.iter(|| zlib_rs(&mut &blob[..], Mode::Blocks))
    });
    group.bench_function("stock zlib", |b| b.iter(|| stock_zlib(&mut &blob[..], Mode::Bare)));
    group.bench_function("stock zlib, stopping at blocks", |b| {
        b.iter(|| stock_zlib(&mut &blob[..], Mode::Blocks))
    });
    group.bench_function("zTOC builder", |b| {
        b.iter(|| {
            let mut builder = Builder::new(BuildOptions::new(Compression::Gzip)).unwrap();
            for start in (0..blob.len()).step_by(512 << 10) {
                builder.push(blob.slice(start..blob.len().min(start + (512 << 10)))).unwrap();
            }
            black_box(builder.finish().unwrap().bytes.len())
        });
    });
    group.finish();
}

criterion_group!(benches, inflate);
criterion_main!(benches);
