//! Extracting a span, beside inflating its share of the layer; and walking a tar, beside copying it.
#![expect(clippy::unwrap_used, reason = "a benchmark that meets something unexpected stops there")]

use std::hint::black_box;

use benches::yardstick::{Mode, zlib_rs};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use testdata::image::fixtures::{many_small_files, one_big_layer};
use ztoc::{BuildOptions, Builder, Compression, Sha256Digest, TarWalker, Ztoc};

fn extraction(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layer");
    let layer = one_big_layer(&path, 64 << 20);
    let blob = bytes::Bytes::from(std::fs::read(&path).unwrap());
    let mut builder = Builder::new(BuildOptions::new(Compression::Gzip)).unwrap();
    builder.push(blob.clone()).unwrap();
    let ztoc = Ztoc::parse(builder.finish().unwrap().bytes).unwrap();
    let mut group = c.benchmark_group("whole layer");
    group.throughput(Throughput::Bytes(layer.uncompressed_size)).sample_size(10);
    group.bench_function("libz-rs-sys in one go", |b| b.iter(|| zlib_rs(&mut &blob[..], Mode::Bare)));
    let spans = |verify: bool| {
        for span in 0..ztoc.spans().len() {
            let at = ztoc.spans().compressed(span);
            let bytes = &blob[usize::try_from(at.start).unwrap()..usize::try_from(at.end).unwrap()];
            if verify {
                ztoc.spans().verify(span, bytes).unwrap();
            }
            black_box(ztoc.extract(ztoc.spans().uncompressed(span), bytes).unwrap());
        }
    };
    group.bench_function("span by span", |b| b.iter(|| spans(false)));
    group.bench_function("span by span, verified", |b| b.iter(|| spans(true)));
    group.bench_function("SHA-256 alone", |b| b.iter(|| Sha256Digest::of(&blob)));
    group.finish();
}

fn walk(c: &mut Criterion) {
    let layer = many_small_files(20_000);
    let mut archive = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&layer.bytes()[..]), &mut archive).unwrap();
    let mut group = c.benchmark_group("tar of 20,000 small files");
    group.throughput(Throughput::Elements(20_000));
    group.bench_function("memcpy", |b| b.iter(|| black_box(archive.clone().len())));
    group.bench_function("zTOC walk", |b| {
        b.iter(|| {
            let mut walker = TarWalker::new();
            archive.chunks(256 << 10).for_each(|chunk| walker.push(chunk).unwrap());
            walker.finish().unwrap().0.len()
        });
    });
    group.bench_function("tar crate, headers only", |b| {
        b.iter(|| {
            tar::Archive::new(&archive[..]).entries().unwrap().map(|entry| entry.unwrap().size()).sum::<u64>()
        });
    });
    group.finish();
}

criterion_group!(benches, extraction, walk);
criterion_main!(benches);
