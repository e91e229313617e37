//! `soci convert`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

#[path = "../common/mod.rs"]
mod common;

mod again;
mod containerd;
mod documents;
mod golden;
mod interrupted;
mod places;

use common::Soci;
use serde_json::Value;
use testdata::image::{Compression, Entry, Image, ImageBuilder, LayerBuilder, Texture};

/// An image with two layers that are worth an index.
pub(crate) fn image(seed: u64, platform: &str) -> Image {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    layer.add(Entry::made("big", Texture::Text, seed, 600_000));
    layer.add(Entry::file("platform", platform.as_bytes().to_vec()));
    let mut second = LayerBuilder::new(Compression::None);
    second.add(Entry::made("hello", Texture::Binary, seed, 10_000));
    ImageBuilder::new().platform(platform).layer(layer.finish()).layer(second.finish()).build()
}

/// Converts all platforms; small spans, all layers.
pub(crate) const CONVERT: [&str; 4] =
    ["convert", "--all-platforms", "--min-layer-size=0", "--span-size=65536"];

/// Runs a conversion, and returns the digest of what came out.
pub(crate) fn convert(soci: &Soci, arguments: &[&str]) -> String {
    soci.ok(&[arguments, &["--quiet"]].concat()).trim().to_owned()
}

/// A document of a layout by its digest.
pub(crate) fn document(layout: &std::path::Path, digest: &str) -> Value {
    let path = layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
