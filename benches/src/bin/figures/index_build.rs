//! Building the index of one big layer, against inflating it with nothing else.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benches::host;
use benches::process::{run, sibling};
use benches::table::{Figure, heading, note};
use benches::yardstick::{Mode, stock_zlib, zlib_rs};
use testdata::image::ImageBuilder;
use testdata::image::fixtures::one_big_layer;

/// Times each is measured; the best counts, since everything else is noise.
const ROUNDS: usize = 3;

/// What images are made of: programs, libraries, data.
const ROOTS: [&str; 4] = ["/usr/lib", "/usr/share", "/usr/bin", "/usr/local"];

pub(crate) fn measure(directory: &Path, size: u64) -> anyhow::Result<Vec<Figure>> {
    let blob = directory.join("big.tar.gz");
    let mut layer = host::layer(&blob, &ROOTS, size);
    let mut made_of = "files of this machine";
    if layer.uncompressed_size < size / 10 * 9 {
        // A small machine: what the generator makes is easier to inflate, so that everything else weighs more.
        layer = one_big_layer(&blob, size);
        made_of = "generated files";
    }
    let size = layer.uncompressed_size;
    heading(format_args!(
        "Index build: one gzip layer of {made_of}, {} MB uncompressed, {} MB compressed",
        size / 1_000_000,
        layer.size / 1_000_000
    ));
    let layout = directory.join("big");
    ImageBuilder::new().layer(layer).build().write_layout(&layout, "1");
    let best = |inflate: &dyn Fn() -> anyhow::Result<u64>| -> anyhow::Result<Duration> {
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            std::hint::black_box(inflate()?);
            best = best.min(started.elapsed());
        }
        Ok(best)
    };
    let stock = best(&|| Ok(stock_zlib(&mut File::open(&blob)?, Mode::Blocks)))?;
    let bare = best(&|| Ok(zlib_rs(&mut File::open(&blob)?, Mode::Bare)))?;
    let blocks = best(&|| Ok(zlib_rs(&mut File::open(&blob)?, Mode::Blocks)))?;
    let (mut create, mut memory) = (Duration::MAX, 0);
    for round in 0..ROUNDS {
        let root = directory.join(format!("root-{round}"));
        let cost = run(Command::new(sibling("soci")?)
            .arg("--root")
            .arg(&root)
            .arg("create")
            .arg(format!("oci:{}:1", layout.display()))
            .stdout(Stdio::null()))?;
        create = create.min(cost.time);
        memory = memory.max(cost.peak_memory);
        std::fs::remove_dir_all(root)?;
    }
    // 32 KiB a checkpoint, at the default span size.
    let checkpoints = (size / (4 << 20) + 1) * 32_785;
    note(format_args!("stock zlib, Z_BLOCK        {:.2} s", stock.as_secs_f64()));
    note(format_args!("libz-rs-sys, bare          {:.2} s", bare.as_secs_f64()));
    note(format_args!("libz-rs-sys, Z_BLOCK       {:.2} s", blocks.as_secs_f64()));
    note(format_args!(
        "soci create                {:.2} s, {} MiB at most",
        create.as_secs_f64(),
        memory >> 20
    ));
    std::fs::remove_dir_all(layout)?;
    Ok(vec![
        ratio("soci create / stock zlib inflating with Z_BLOCK", create, stock, 0.7),
        ratio("soci create / bare inflate by libz-rs-sys", create, bare, 1.25),
        Figure {
            name: "soci create: peak memory beyond the checkpoints".into(),
            value: memory.saturating_sub(checkpoints) as f64 / f64::from(1 << 20),
            bar: Some(64.0),
            unit: " MiB",
        },
    ])
}

fn ratio(name: &str, measured: Duration, yardstick: Duration, bar: f64) -> Figure {
    let value = measured.as_secs_f64() / yardstick.as_secs_f64();
    Figure { name: name.into(), value, bar: Some(bar), unit: "" }
}
