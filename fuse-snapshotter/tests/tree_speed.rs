//! How long a layer of 100,000 files takes from its zTOC to its tree. Only printed, since machines differ; run with
//! `cargo test --release -p fuse-snapshotter --test tree_speed -- --ignored --nocapture`. On the 2-core machines we
//! develop on: see `docs/architecture.md`.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use fuse_snapshotter::fetch::LayerTable;
use fuse_snapshotter::tree::{Below, Tree};
use testdata::image::fixtures::many_small_files;
use ztoc::{BuildOptions, Builder, Compression, Ztoc};

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "prints times, asserts nothing"]
fn a_layer_of_100_000_files() {
    let layer = many_small_files(100_000);
    let mut builder = Builder::new(BuildOptions::new(Compression::Gzip)).unwrap();
    builder.push(layer.bytes()).unwrap();
    let bytes = builder.finish().unwrap().bytes;
    drop(layer);
    println!("zTOC: {} bytes", bytes.len());
    let mut best = [Duration::MAX; 3];
    for _ in 0..7 {
        let before = resident();
        let begin = Instant::now();
        let ztoc = Ztoc::parse(bytes.clone()).unwrap();
        let parsed = Instant::now();
        let table = LayerTable::new(&ztoc).unwrap();
        let tabled = Instant::now();
        let tree = Tree::merge(&[&ztoc], Below::Nothing).unwrap();
        let merged = Instant::now();
        let times = [parsed - begin, tabled - parsed, merged - tabled];
        for (best, time) in best.iter_mut().zip(times) {
            *best = time.min(*best);
        }
        let grown = resident().saturating_sub(before) / 1024;
        println!(
            "parse, table, merge: {times:.1?}; {} inodes, {} blocks, {grown} KiB",
            tree.len(),
            table.block_count()
        );
    }
    println!("best: {best:.1?}, together {:.1?}", best.iter().sum::<Duration>());
}
