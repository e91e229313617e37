//! A layer of 100,000 small files: how soon it is mounted, and what listing it costs.
//!
//! By FUSE, as the daemon serves it; `warm` has what the default of `mount` is like.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use benches::bare_fuse::BareMount;
use benches::process::{Mount, peak_memory, run, sibling};
use benches::table::{Figure, heading, note};
use fuse_snapshotter::content::cache::CacheRoot;
use fuse_snapshotter::content::tree::{Below, Tree};
use fuse_snapshotter::content::{FetchContext, LayerTable, LazyLayer};
use fuse_snapshotter::fronts::fuse::FuseOptions;
use fuse_snapshotter::fronts::{Front, TreeMount, mount_tree};
use registry::{Digest, FileBlob};
use testdata::image::ImageBuilder;
use testdata::image::fixtures::many_small_files_to;
use testdata::registry::TestRegistry;
use ztoc::{BuildOptions, Builder, Built, Compression, Ztoc};

const FILES: usize = 100_000;
/// Files in a directory, and directories in one.
const FAN: usize = 100;
/// Mounts that `find` is run over, of each kind. The best counts: the others were held up by something.
const ROUNDS: usize = 5;
/// How long the kernel is left alone with the inodes of the mount before, which it frees after the unmount.
const SETTLE: Duration = Duration::from_millis(300);
/// Requests that the kernel makes once for a mount, whatever is in it.
const ONCE: f64 = 8.0;

pub(crate) fn measure(directory: &Path) -> anyhow::Result<Vec<Figure>> {
    heading(format_args!("A layer of {FILES} small files"));
    let blob = directory.join("small.tar.gz");
    let layer = many_small_files_to(&blob, FILES);
    let mut figures = mounting(directory, &blob)?;

    // The same files on the disk's own file system.
    let native = directory.join("native");
    std::fs::create_dir(&native)?;
    run(Command::new("tar").arg("-xzf").arg(&blob).arg("-C").arg(&native))?;
    let registry = TestRegistry::builder().start_blocking();
    let image = ImageBuilder::new().layer(layer).build();
    image.put_into(&registry, "small", "1");
    let reference = format!("{}/small:1", registry.host());
    let root = directory.join("small-root");
    run(Command::new(sibling("soci")?)
        .arg("--root")
        .arg(&root)
        .args(["create", "--push", &reference])
        .stdout(Stdio::null()))?;
    figures.extend(finding(directory, &reference)?);
    figures.extend(listing(directory, &reference, &native)?);
    std::fs::remove_dir_all(&native)?;
    Ok(figures)
}

/// How soon the layer is mounted, against how long it takes to list its archive.
fn mounting(directory: &Path, blob: &Path) -> anyhow::Result<Vec<Figure>> {
    let (mut ready, mut by_erofs, mut listed) = (Duration::MAX, Duration::MAX, Duration::MAX);
    let built = build(blob)?;
    note(format_args!("zTOC                       {:.1} MB", built.bytes.len() as f64 / 1e6));
    for _ in 0..ROUNDS {
        listed = listed.min(time(Command::new("tar").arg("-tzf").arg(blob))?);
        ready = ready.min(mount_time(directory, blob, &built, Front::Fuse)?);
        by_erofs = by_erofs.min(mount_time(directory, blob, &built, Front::Erofs)?);
    }
    note(format_args!(
        "zTOC in memory to mounted  {:.0} ms, by EROFS {:.0} ms; tar -t of the layer {:.0} ms",
        ready.as_secs_f64() * 1e3,
        by_erofs.as_secs_f64() * 1e3,
        listed.as_secs_f64() * 1e3
    ));
    Ok(vec![
        figure("mounted after the zTOC has arrived / tar -t", ratio(ready, listed), Some(0.5)),
        figure("mounted by EROFS after the zTOC has arrived / tar -t", ratio(by_erofs, listed), None),
    ])
}

/// What `find` costs, against a server that does nothing but list as many files.
fn finding(directory: &Path, reference: &str) -> anyhow::Result<Vec<Figure>> {
    let (mut find, mut bare, mut requests) = (Duration::MAX, Duration::MAX, 0.0);
    // By turns, so that a busy minute of the machine is not held against one of them.
    for _ in 0..ROUNDS {
        let mount = mount(directory, reference)?;
        std::thread::sleep(SETTLE);
        find = find.min(time(Command::new("find").arg(mount.directory()))?);
        requests = mount.finish()?["kernel_requests"].as_f64().context("no count")?;
        bare = bare.min(find_bare(&directory.join("bare"))?);
    }
    // The root, `srv`, and two levels of directories with a hundred entries at most: one round trip each, and one for its
    // entries. A few more are asked once only, such as whether open and opendir are needed at all.
    let directories = 2.0 + (FILES / FAN / FAN) as f64 + (FILES / FAN) as f64;
    let allowed = 2.0 * directories + ONCE;
    note(format_args!(
        "find                       {:.2} s, bare FUSE {:.2} s",
        find.as_secs_f64(),
        bare.as_secs_f64()
    ));
    note(format_args!("kernel requests of find     {requests} for {directories:.0} directories"));
    Ok(vec![
        figure("find / bare FUSE", ratio(find, bare), Some(1.2)),
        figure("round trips of find / allowed", requests / allowed, Some(1.0)),
    ])
}

/// What a second listing costs, against the disk's file system, and the memory of the server.
fn listing(directory: &Path, reference: &str, native: &Path) -> anyhow::Result<Vec<Figure>> {
    let mount = mount(directory, reference)?;
    let list = |path: &Path| time(Command::new("ls").arg("-lR").arg(path));
    list(mount.directory())?;
    let second = list(mount.directory())?;
    let memory = peak_memory(mount.pid());
    mount.finish()?;
    list(native)?;
    let disk = list(native)?;
    note(format_args!(
        "second ls -lR              {:.2} s, native {:.2} s",
        second.as_secs_f64(),
        disk.as_secs_f64()
    ));
    let memory =
        Figure { unit: " MB", ..figure("peak memory of the server", memory as f64 / 1e6, Some(100.0)) };
    Ok(vec![figure("second ls -lR / native file system", ratio(second, disk), Some(1.5)), memory])
}

fn figure(name: &str, value: f64, bar: Option<f64>) -> Figure {
    Figure { name: format!("100,000 files: {name}"), value, bar, unit: "" }
}

fn ratio(ours: Duration, other: Duration) -> f64 {
    ours.as_secs_f64() / other.as_secs_f64()
}

fn mount(directory: &Path, reference: &str) -> anyhow::Result<Mount> {
    Mount::new(reference, &directory.join("mnt"), &directory.join("small-cold"), &["--front", "fuse"])
}

fn time(command: &mut Command) -> anyhow::Result<Duration> {
    Ok(run(command.stdout(Stdio::null()))?.time)
}

/// `find` over as many files of a server that does nothing but list them.
fn find_bare(directory: &Path) -> anyhow::Result<Duration> {
    let mount = BareMount::new(directory, FILES, FAN)?;
    std::thread::sleep(SETTLE);
    let find = time(Command::new("find").arg(directory))?;
    let requests = mount.finish()?;
    // Two for each directory at least, or it has not listed them all.
    if requests < 2 * (FILES / FAN) as u64 {
        bail!("find made {requests} requests of the yardstick, which is too few");
    }
    Ok(find)
}

fn build(blob: &Path) -> anyhow::Result<Built> {
    let mut builder = Builder::new(BuildOptions::new(Compression::Gzip))?;
    builder.push(std::fs::read(blob)?.into())?;
    Ok(builder.finish()?)
}

/// From the zTOC's bytes in memory to a mount that answers.
fn mount_time(directory: &Path, blob: &Path, built: &Built, front: Front) -> anyhow::Result<Duration> {
    let digest = Digest::from_sha256(&built.blob_digest.0);
    let path = directory.join("small.ztoc");
    std::fs::write(&path, &built.bytes)?;
    let target = directory.join("ready");
    std::fs::create_dir_all(&target)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let reader = Arc::new(FileBlob::open(blob, digest.clone())?);
    let cache = Arc::new(CacheRoot::open(&directory.join("ready-cache"), 1 << 40)?);
    let started = Instant::now();
    // As it happens in a mount: the digest is checked first.
    let found = Digest::of(&built.bytes);
    let ztoc = Ztoc::parse(built.bytes.clone())?;
    let table = LayerTable::new(&ztoc)?;
    let blocks = cache.layer(digest.hex(), found.hex(), table.block_count())?;
    let tree = Tree::merge(&[&ztoc], Below::Nothing)?;
    let layer =
        LazyLayer::new(reader, table, blocks, std::fs::File::open(&path)?, FetchContext::new(cache, 8));
    let image = directory.join("ready.erofs");
    let options = FuseOptions { threads: 2, allow_other: true };
    let mount = TreeMount { tree, layers: vec![layer], path: &target, image: &image };
    let _mounted = mount_tree(mount, front, options, runtime.handle())?;
    Ok(std::fs::metadata(target.join("srv")).map(|_| started.elapsed())?)
}
