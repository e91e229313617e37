//! Images with Zstandard layers.

use testdata::expected::merge;
use testdata::image::{Compression, ImageBuilder, Layer, LayerBuilder, MediaTypes, ZstdForm};
use testdata::registry::TestRegistry;
use testdata::walk::{compare, walk};

use crate::can_mount;
use crate::merged::layers;
use crate::program::{Mount, index};

fn packed(layer: &Layer, compression: Compression) -> Layer {
    let mut builder = LayerBuilder::new(compression);
    for entry in layer.entries.iter() {
        builder.add(entry.clone());
    }
    builder.finish()
}

fn frames(form: ZstdForm) -> Compression {
    Compression::Zstd { level: 3, frame: 4000, form }
}

/// The layers of the other tests, in the three forms of many frames.
fn many() -> Vec<Layer> {
    let forms = [ZstdForm::Plain, ZstdForm::Chunked, ZstdForm::Seekable];
    layers().iter().zip(forms).map(|(layer, form)| packed(layer, frames(form))).collect()
}

#[test]
fn a_lazy_mount_of_zstd_layers_is_the_merged_tree() {
    if !can_mount() {
        return;
    }
    let layers = many();
    for media_types in [MediaTypes::Oci, MediaTypes::Docker] {
        let registry = TestRegistry::builder().start_blocking();
        let image = layers.iter().cloned().fold(ImageBuilder::new(), ImageBuilder::layer);
        image.media_types(media_types).build().put_into(&registry, "app", "1");
        let reference = format!("{}/app:1", registry.host());
        index(&reference, &["--min-layer-size", "0", "--span-size", "10000"]);
        let mount = Mount::new(&reference, &[]);
        compare(&walk(&mount.path()), &merge(&layers)).unwrap();
        let report = mount.finish();
        for layer in report["layers"].as_array().unwrap() {
            assert_eq!(layer["mode"], "lazy", "{report}");
        }
        assert!(report["layers"][0]["fetched_spans"].as_u64().unwrap() > 5, "{report}");
    }
}

#[test]
fn lazy_and_other_zstd_layers_stack_up() {
    if !can_mount() {
        return;
    }
    // One that can only be unpacked, between others that are read lazily, of which one is no Zstandard.
    let mut layers = many();
    layers[0] = packed(&layers[0], Compression::GZIP);
    layers[1] = packed(&layers[1], Compression::ZSTD_FRAME);
    let registry = TestRegistry::builder().start_blocking();
    let image = layers.iter().cloned().fold(ImageBuilder::new(), ImageBuilder::layer);
    image.build().put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, &["--min-layer-size", "0", "--span-size", "10000"]);
    let mount = Mount::new(&reference, &[]);
    compare(&walk(&mount.path()), &merge(&layers)).unwrap();
    let report = mount.finish();
    let modes: Vec<_> = report["layers"].as_array().unwrap().iter().map(|layer| &layer["mode"]).collect();
    assert_eq!(modes, ["lazy", "unpacked", "lazy"], "{report}");
}

/// They cannot unpack: what is not lazy is served from a copy, a single frame included.
#[test]
fn ordinary_users_mount_zstd_layers() {
    if !can_mount() || !testdata::need::available(&[testdata::need::Need::FuseForUsers]) {
        return;
    }
    let mut layers = many();
    layers[1] = packed(&layers[1], Compression::ZSTD_FRAME);
    let registry = TestRegistry::builder().start_blocking();
    let image = layers.iter().cloned().fold(ImageBuilder::new(), ImageBuilder::layer);
    image.build().put_into(&registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, &["--min-layer-size", "0", "--span-size", "10000"]);
    let mount = Mount::as_user(65534, &reference, &[]).unwrap();
    let read = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
        .args(["bin/other", "becomes-directory/inside", "bin/again"].map(|path| mount.path().join(path)))
        .output()
        .unwrap();
    // `bin/again` is a link to `whited-out/new`, which is closed to others.
    let wanted =
        [(0, "bin/other"), (1, "becomes-directory/inside"), (2, "whited-out/new")].map(|(layer, path)| {
            let entry = layers[layer].entries.iter().find(|entry| entry.path == path.as_bytes()).unwrap();
            entry.content().unwrap().to_vec()
        });
    assert!(read.stdout == wanted.concat(), "{}", String::from_utf8_lossy(&read.stderr));
    mount.finish();
}
