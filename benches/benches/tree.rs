//! Making a tree of 100,000 files, and looking things up in it, beside the same in the standard library's map.
#![expect(clippy::unwrap_used, reason = "a benchmark that meets something unexpected stops there")]

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fuse_snapshotter::content::LayerTable;
use fuse_snapshotter::content::tree::{Below, Tree};
use testdata::image::fixtures::many_small_files;
use ztoc::{BuildOptions, Builder, Compression, Ztoc};

const FILES: usize = 100_000;

fn tree(c: &mut Criterion) {
    let layer = many_small_files(FILES);
    let mut builder = Builder::new(BuildOptions::new(Compression::Gzip)).unwrap();
    builder.push(layer.bytes()).unwrap();
    let bytes = builder.finish().unwrap().bytes;
    let ztoc = Ztoc::parse(bytes.clone()).unwrap();
    let mut group = c.benchmark_group("100,000 files");
    group.throughput(Throughput::Elements(FILES as u64)).sample_size(20);
    group.bench_function("SHA-256 of the zTOC", |b| b.iter(|| ztoc::Sha256Digest::of(&bytes)));
    group.bench_function("parse", |b| b.iter(|| Ztoc::parse(bytes.clone()).unwrap().len()));
    group.bench_function("table", |b| b.iter(|| LayerTable::new(&ztoc).unwrap().len()));
    group.bench_function("merge", |b| b.iter(|| Tree::merge(&[&ztoc], Below::Nothing).unwrap().len()));
    group.bench_function("collect the names into a hash map", |b| {
        b.iter(|| {
            ztoc.entries().map(|entry| (entry.name.to_vec(), entry.size)).collect::<HashMap<_, _>>().len()
        });
    });
    group.finish();

    let tree = Tree::merge(&[&ztoc], Below::Nothing).unwrap();
    let names: HashMap<Vec<u8>, u64> =
        ztoc.entries().map(|entry| (entry.name.to_vec(), entry.size)).collect();
    let directory = tree.find(b"srv/d005/d050").unwrap();
    let mut group = c.benchmark_group("look-up");
    group.bench_function("name in a directory", |b| {
        b.iter(|| tree.lookup(black_box(directory), b"f055042.txt"))
    });
    group.bench_function("path from the root", |b| {
        b.iter(|| tree.find(black_box(b"srv/d005/d050/f055042.txt")))
    });
    group.bench_function("path in a hash map", |b| {
        b.iter(|| names.get(black_box(&b"srv/d005/d050/f055042.txt"[..])));
    });
    group.bench_function("listing of 100 names", |b| b.iter(|| tree.children(directory, 0).count()));
    group.finish();
}

criterion_group!(benches, tree);
criterion_main!(benches);
