//! Reading one small file from a big layer: what comes over the wire.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use benches::process::{Mount, run, sibling};
use benches::table::{Figure, heading, note};
use testdata::image::ImageBuilder;
use testdata::image::fixtures::one_big_layer;
use testdata::registry::{Redirect, TestRegistry};

pub(crate) fn measure(directory: &Path) -> anyhow::Result<Vec<Figure>> {
    heading("One small file from a layer of 500 MB");
    let layer = one_big_layer(directory.join("500.tar.gz"), 1100 << 20);
    let size = layer.size;
    note(format_args!("layer                      {:.0} MB", size as f64 / 1e6));
    let small = layer.entries.iter().filter(|entry| entry.content().is_some_and(|c| c.len() == 4096));
    let entry = small.last().context("no small file")?.clone();
    let name = String::from_utf8_lossy(&entry.path).into_owned();
    // As most registries do: blobs are redirected to a storage host.
    let registry = TestRegistry::builder().redirect_blobs(Redirect::default()).start_blocking();
    ImageBuilder::new().layer(layer).build().put_into(&registry, "big", "1");
    let reference = format!("{}/big:1", registry.host());
    let root = directory.join("one-root");
    run(Command::new(sibling("soci")?)
        .arg("--root")
        .arg(&root)
        .args(["create", "--push", &reference])
        .stdout(Stdio::null()))?;
    let mount = Mount::new(&reference, &directory.join("mnt-one"), &directory.join("one-cold"), &[])?;
    registry.clear_requests();
    let read = std::fs::read(mount.directory().join(&name))?;
    let (requests, bytes) = (registry.requests().len(), registry.bytes_sent());
    ensure!(Some(read) == entry.content().map(|content| content.to_vec()), "{name} has the wrong content");
    let report = mount.finish()?;
    let spans = report["layers"][0]["fetched_spans"].as_f64().context("no count")?;
    note(format_args!("fetched                    {:.2} MB for {name}", bytes as f64 / 1e6));
    Ok(vec![
        Figure {
            name: "one 4 KiB file: requests after the mount".into(),
            value: requests as f64,
            bar: Some(2.0),
            unit: "",
        },
        Figure { name: "one 4 KiB file: spans fetched".into(), value: spans, bar: Some(2.0), unit: "" },
        Figure {
            name: "one 4 KiB file: share of the layer that is fetched".into(),
            value: bytes as f64 * 100.0 / size as f64,
            bar: Some(2.0),
            unit: " %",
        },
    ])
}
