//! Memory of a server with many layers of many files, all of which have been read.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use benches::process::{Mount, peak_memory, resident, run, sibling};
use benches::table::{Figure, heading, note};
use testdata::image::{Compression, Entry, ImageBuilder, LayerBuilder, Texture};
use testdata::registry::TestRegistry;

const LAYERS: u64 = 30;
const FILES: u64 = 20_000;
/// Files in a directory.
const FAN: u64 = 100;
/// Most that a process may have, in MB.
const BAR: f64 = 200.0;

pub(crate) fn measure(directory: &Path) -> anyhow::Result<Vec<Figure>> {
    heading(format_args!("{LAYERS} layers of {FILES} small files, all of them read"));
    let registry = TestRegistry::builder().start_blocking();
    let layers: Vec<_> = (0..LAYERS).map(|layer| make(directory, layer)).collect();
    let image = |name: &str, layers: &[testdata::image::Layer]| {
        let mut image = ImageBuilder::new();
        for layer in layers {
            image = image.layer(layer.clone());
        }
        image.build().put_into(&registry, name, "1");
        let reference = format!("{}/{name}:1", registry.host());
        let root = directory.join(format!("{name}-index"));
        run(Command::new(sibling("soci")?).arg("--root").arg(root).stdout(Stdio::null()).args([
            "--content-store=soci",
            "create",
            "--push",
            "--min-layer-size=0",
            &reference,
        ]))?;
        anyhow::Ok(reference)
    };
    let reference = image("many", &layers)?;
    // As the daemon serves it, and as `mount` does where it can.
    let by = |front: &str, title: String| -> anyhow::Result<Figure> {
        let (target, root) = (directory.join(front), directory.join(format!("{front}-root")));
        let mount = Mount::new(&reference, &target, &root, &["--front", front])?;
        let mounted = resident(mount.pid());
        let files = read_all(mount.directory())?;
        anyhow::ensure!(files == LAYERS * FILES, "{files} files were read");
        let (after, peak) = (resident(mount.pid()), peak_memory(mount.pid()));
        mount.finish()?;
        note(format_args!("resident once mounted      {:.0} MB ({front})", mounted as f64 / 1e6));
        // While the tree is made, all zTOCs are in memory.
        note(format_args!("peak, at the mount         {:.0} MB ({front})", peak as f64 / 1e6));
        Ok(Figure { name: title, value: after as f64 / 1e6, bar: Some(BAR), unit: " MB" })
    };
    let title = format!("{LAYERS} layers of {FILES} files, all read: memory of the server");
    Ok(vec![by("fuse", title.clone())?, by("auto", format!("{title}, by the default front"))?])
}

fn make(directory: &Path, layer: u64) -> testdata::image::Layer {
    let path = directory.join(format!("memory-{layer}.tar.gz"));
    let mut made = LayerBuilder::to_file(path, Compression::GZIP).without_record();
    for file in 0..FILES {
        if file % FAN == 0 {
            made.add(Entry::dir(format!("layer-{layer}/{:03}", file / FAN)));
        }
        let name = format!("layer-{layer}/{:03}/file-{file:05}.txt", file / FAN);
        made.add(Entry::made(name, Texture::Text, layer * FILES + file, 100 + file % 1000));
    }
    made.finish()
}

/// Reads all files below a directory; says how many there are.
fn read_all(directory: &Path) -> anyhow::Result<u64> {
    let (mut pending, mut files) = (vec![directory.to_owned()], 0);
    let mut content = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
                continue;
            }
            content.clear();
            let read = std::fs::File::open(entry.path()).and_then(|mut file| file.read_to_end(&mut content));
            read.with_context(|| format!("cannot read {}", entry.path().display()))?;
            files += 1;
        }
    }
    Ok(files)
}
