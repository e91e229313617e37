//! The memory of a build. A program of its own with a single test: it looks at what the whole process uses.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use std::sync::Arc;

use soci_index::build::{self, BuildOptions, Silent};
use soci_index::image::PlatformChoice;
use soci_index::source::{LayoutSource, Selector};
use soci_index::store::Store;
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder, Texture};

const MIB: u64 = 1 << 20;
/// What a build takes beside the budget: the program itself, and what its allocator keeps.
const SLACK: u64 = 16 * MIB;

/// A line of `/proc/self/status`, in bytes.
fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Builds with so much memory and gives by how much the process grew meanwhile.
fn growth(layout: &std::path::Path, memory: u64) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let source = Arc::new(LayoutSource::directory(layout, Selector::Name("v1".into())).unwrap());
    // Small spans: a zTOC as large as its layer, which no estimate expects.
    let options = BuildOptions {
        min_layer_size: 0,
        span_size: 64,
        parallel_layers: 8,
        memory,
        ..BuildOptions::default()
    };
    // Makes the highest use so far the present one.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let created = runtime
        .block_on(build::create(source, &store, &options, &PlatformChoice::All, Arc::new(Silent)))
        .unwrap();
    assert_eq!(created[0].manifest.ztocs().count(), 8);
    status("VmHWM:").saturating_sub(before)
}

#[test]
fn layers_in_work_stay_within_the_budget() {
    // glibc keeps what threads free for their next allocation, which would be measured as well.
    const ALLOCATOR: &str = "MALLOC_MMAP_THRESHOLD_";
    if std::env::var_os(ALLOCATOR).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let status = again.env(ALLOCATOR, "262144").arg("--nocapture").status().unwrap();
        assert!(status.success());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut image = ImageBuilder::new();
    for seed in 0..8 {
        let mut layer = LayerBuilder::new(Compression::None);
        layer.add(Entry::made("data", Texture::Binary, seed, 8 * MIB));
        image = image.layer(layer.finish());
    }
    image.build().write_layout(directory.path(), "v1");
    let budget = 40 * MIB;
    let within = growth(directory.path(), budget);
    let without = growth(directory.path(), u64::MAX);
    assert!(within < budget + SLACK, "{} MiB with a budget of 40", within / MIB);
    assert!(without > budget + SLACK, "{} MiB without a budget: nothing was tight", without / MIB);
}
