//! Reading what is local already: again from the kernel's memory, and for the first time from the cache on disk.
//!
//! Everything is compared with the same files on the disk's file system, with a mount of ours by FUSE alone (`--front fuse`),
//! and with [a mirror](MirrorMount) of the files, which shows what passthrough would give and take.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use benches::caches;
use benches::mirror::MirrorMount;
use benches::process::{Mount, run, sibling};
use benches::table::{Figure, heading, note};
use testdata::image::fixtures::many_small_files_to;
use testdata::image::{Compression, Entry, ImageBuilder, Layer, LayerBuilder, Texture};
use testdata::registry::TestRegistry;

/// Size of the large file, in bytes.
const LARGE: u64 = 1_000_000_000;
/// Files that are opened, read and closed.
const SMALL: usize = 10_000;
/// Files in a directory of these.
const FAN: usize = 100;
/// Files that are listed.
const LISTED: usize = 100_000;
/// As `cat` reads.
const BUFFER: usize = 128 << 10;
/// Bytes, and files, that are timed together: a hundred and some pieces.
const PIECE: (u64, usize) = (8 << 20, 100);
/// Passes over what is in memory. Of each piece the best counts: the others were held up by something.
const PASSES: usize = 8;
/// Passes with nothing in memory.
const COLD_PASSES: usize = 3;

/// What is measured, each on all four file systems.
#[derive(Debug, Clone, Copy)]
enum Work {
    Sequential,
    Small,
    List,
}

/// Best times of the pieces on the disk's file system, on ours, on ours by FUSE alone, and on the mirror.
#[derive(Debug, Default)]
struct Times([Vec<Duration>; 4]);

impl Times {
    fn add(&mut self, which: usize, pieces: Vec<Duration>) {
        let best = &mut self.0[which];
        if best.is_empty() {
            *best = pieces;
        } else {
            best.iter_mut().zip(pieces).for_each(|(best, piece)| *best = piece.min(*best));
        }
    }

    /// In seconds.
    fn total(&self, which: usize) -> f64 {
        self.0[which].iter().sum::<Duration>().as_secs_f64()
    }

    fn to_native(&self, which: usize) -> f64 {
        self.total(which) / self.total(0)
    }
}

pub(crate) fn measure(directory: &Path) -> anyhow::Result<Vec<Figure>> {
    heading(format_args!("One file of {} MB, {SMALL} small ones, {LISTED} listed", LARGE / 1_000_000));
    let blobs = [directory.join("contents.tar"), directory.join("listed.tar.gz")];
    let layers = [contents(&blobs[0]), many_small_files_to(&blobs[1], LISTED)];
    let native = directory.join("warm-native");
    std::fs::create_dir(&native)?;
    for blob in &blobs {
        run(Command::new("tar").arg("-xf").arg(blob).arg("-C").arg(&native))?;
    }
    let registry = TestRegistry::builder().start_blocking();
    let image = layers.into_iter().fold(ImageBuilder::new(), ImageBuilder::layer).build();
    image.put_into(&registry, "warm", "1");
    let reference = format!("{}/warm:1", registry.host());
    run(Command::new(sibling("soci")?)
        .arg("--root")
        .arg(directory.join("warm-build"))
        .args(["create", "--push", &reference])
        .stdout(Stdio::null()))?;
    let [ours, fuse, mirror] = ["mnt-warm", "mnt-fuse", "mnt-mirror"].map(|name| directory.join(name));
    let mount = || Mount::new(&reference, &ours, &directory.join("warm-root"), &[]);
    let fused = || Mount::new(&reference, &fuse, &directory.join("warm-root-fuse"), &["--front", "fuse"]);
    let mirrored = || MirrorMount::new(&native, &mirror);

    let roots = [&native, &ours, &fuse, &mirror];
    let mounts = (mount()?, fused()?, mirrored()?);
    let warm = again(roots)?;
    drop(mounts);
    let mut cold: [Times; 3] = Default::default();
    for (times, work) in cold.iter_mut().zip([Work::Sequential, Work::Small, Work::List]) {
        for _ in 0..COLD_PASSES {
            for (which, root) in roots.iter().enumerate() {
                // New mounts, for which the kernel knows nothing.
                let mounts = (mount()?, fused()?, mirrored()?);
                caches::drop_all()?;
                times.add(which, work.time(root)?);
                for mount in [mounts.0, mounts.1] {
                    let report = mount.finish()?;
                    let layers = report["layers"].as_array();
                    let fetched = layers.map(|layers| {
                        layers.iter().filter_map(|layer| layer["fetched"].as_u64()).sum::<u64>()
                    });
                    ensure!(fetched == Some(0), "not everything was in the cache");
                }
            }
        }
        report("from the disk", work, times);
    }
    std::fs::remove_dir_all(&native)?;
    Ok(figures(&warm, &cold))
}

/// Each work again and again on mounts that stay. Returns the times of all passes but the first.
fn again(roots: [&PathBuf; 4]) -> anyhow::Result<[Times; 3]> {
    let mut first: [Times; 3] = Default::default();
    let mut warm: [Times; 3] = Default::default();
    for ((times, first), work) in
        warm.iter_mut().zip(&mut first).zip([Work::Sequential, Work::Small, Work::List])
    {
        for pass in 0..=PASSES {
            for (which, root) in roots.iter().enumerate() {
                // The first pass over ours fetches; over the others it reads the disk.
                let times = if pass > 0 { &mut *times } else { &mut *first };
                times.add(which, work.time(root)?);
            }
        }
        let [ours, fuse] = [1, 2].map(|which| first.total(which) * 1e3);
        note(format_args!("{:<29}{ours:.0} ms, by FUSE {fuse:.0} ms", format!("{work:?} from the registry")));
        report("again", work, times);
    }
    Ok(warm)
}

fn figures(warm: &[Times; 3], cold: &[Times; 3]) -> Vec<Figure> {
    let figure =
        |name: &str, value: f64, bar: Option<f64>| Figure { name: name.into(), value, bar, unit: "" };
    vec![
        figure("1 GB read again / native", warm[0].to_native(1), Some(1.0 / 0.9)),
        figure("1 GB read again, by FUSE / native", warm[0].to_native(2), None),
        figure("1 GB read again, by passthrough / native", warm[0].to_native(3), None),
        figure("10,000 files read again / native", warm[1].to_native(1), Some(2.0)),
        figure("10,000 files read again, by FUSE / native", warm[1].to_native(2), None),
        figure("10,000 files read again, by passthrough / native", warm[1].to_native(3), None),
        figure("100,000 files: find -ls again / native", warm[2].to_native(1), Some(1.2)),
        figure("100,000 files: find -ls again, by FUSE / native", warm[2].to_native(2), None),
        figure("1 GB read from the disk / native", cold[0].to_native(1), None),
        figure("1 GB read from the disk, by FUSE / native", cold[0].to_native(2), None),
        figure("1 GB read from the disk, by passthrough / native", cold[0].to_native(3), None),
        figure("10,000 files read from the disk / native", cold[1].to_native(1), None),
        figure("10,000 files read from the disk, by FUSE / native", cold[1].to_native(2), None),
        figure("10,000 files read from the disk, by passthrough / native", cold[1].to_native(3), None),
        figure("100,000 files: find -ls from the disk / native", cold[2].to_native(1), None),
        figure("100,000 files: find -ls from the disk, by FUSE / native", cold[2].to_native(2), None),
    ]
}

fn report(when: &str, work: Work, times: &Times) {
    let [native, ours, fuse, mirror] = [0, 1, 2, 3].map(|which| times.total(which) * 1e3);
    let what = format!("{work:?} {when}");
    note(format_args!(
        "{what:<29}{ours:.0} ms, by FUSE {fuse:.0} ms, native {native:.0} ms, by passthrough {mirror:.0} ms"
    ));
}

/// A layer with the large file and the small ones. It is not compressed: that would only make the preparations longer.
fn contents(blob: &Path) -> Layer {
    let mut layer = LayerBuilder::to_file(blob, Compression::None).without_record();
    layer
        .add(Entry::dir("large"))
        .add(Entry::made("large/file", Texture::Random, 1, LARGE))
        .add(Entry::dir("small"));
    for number in 0..SMALL {
        if number % FAN == 0 {
            layer.add(Entry::dir(format!("small/d{:03}", number / FAN)));
        }
        // From 1 to 8 KiB.
        let size = 1024 + (number as u64 * 2_654_435_761) % 7168;
        layer.add(Entry::made(small(number), Texture::Binary, number as u64, size));
    }
    layer.finish()
}

fn small(number: usize) -> String {
    format!("small/d{:03}/f{number:05}", number / FAN)
}

impl Work {
    fn time(self, root: &Path) -> anyhow::Result<Vec<Duration>> {
        match self {
            Self::Sequential => sequential(&root.join("large/file")),
            Self::Small => (0..SMALL)
                .step_by(PIECE.1)
                .map(|first| {
                    let paths: Vec<_> =
                        (first..first + PIECE.1).map(|number| root.join(small(number))).collect();
                    read_all(&paths)
                })
                .collect(),
            Self::List => {
                let mut find = Command::new("find");
                Ok(vec![run(find.arg(root.join("srv")).arg("-ls").stdout(Stdio::null()))?.time])
            }
        }
    }
}

/// Reads a file to its end, and times its pieces.
fn sequential(path: &Path) -> anyhow::Result<Vec<Duration>> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let (mut buffer, mut pieces, mut total) = (vec![0; BUFFER], Vec::new(), 0);
    loop {
        let (started, begun) = (Instant::now(), total);
        while total - begun < PIECE.0 {
            match file.read(&mut buffer)? {
                0 => break,
                length => total += length as u64,
            }
        }
        pieces.push(started.elapsed());
        if total - begun < PIECE.0 {
            ensure!(total == LARGE, "{} has {total} bytes", path.display());
            return Ok(pieces);
        }
    }
}

/// Opens files, reads each to its end, and closes it.
fn read_all(paths: &[PathBuf]) -> anyhow::Result<Duration> {
    let mut buffer = vec![0; BUFFER];
    let started = Instant::now();
    for path in paths {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(started.elapsed())
}
