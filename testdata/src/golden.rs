//! Golden vectors: inputs, and what the reference implementation makes of them. See `golden/README.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The folder with `layers/`, `images/` and `golden.json`.
pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The file of a layer such as `gnu.tar.gz`.
pub fn layer_path(name: &str) -> PathBuf {
    dir().join("layers").join(name)
}

/// The bytes of a layer such as `gnu.tar.gz`.
///
/// # Panics
/// If there is no such layer.
pub fn layer(name: &str) -> Vec<u8> {
    fs::read(layer_path(name)).unwrap_or_else(|e| panic!("golden layer {name}: {e}"))
}

/// The OCI layout of an image such as `docker`.
pub fn image_dir(name: &str) -> PathBuf {
    dir().join("images").join(name)
}

/// Reads `golden.json`.
///
/// # Panics
/// If it is not as the types here say.
pub fn load() -> Golden {
    let text = fs::read(dir().join("golden.json")).expect("golden.json");
    serde_json::from_slice(&text).expect("golden.json is as its types say")
}

/// All of `golden.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// The build tool identifier in every zTOC and index.
    pub tool: String,
    /// Layers that the reference accepts, by file name.
    pub layers: BTreeMap<String, GoldenLayer>,
    /// Layers that it refuses, by file name.
    pub refused: BTreeMap<String, Refused>,
    /// Images, by the name of their folder.
    pub images: BTreeMap<String, GoldenImage>,
}

/// Digest and size of something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sized {
    /// `sha256:…`
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// A layer and its zTOCs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenLayer {
    /// Digest of the layer.
    pub digest: String,
    /// Size of the layer in bytes.
    pub size: u64,
    /// The zTOC per span size.
    pub ztoc: BTreeMap<u64, Sized>,
}

/// A layer that the reference gives up on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Digest of the layer.
    pub digest: String,
    /// Size of the layer in bytes.
    pub size: u64,
    /// The reference's exit status.
    pub exit: i32,
    /// Its last message.
    pub error: String,
}

/// What the two commands make of an image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenImage {
    /// Rows of `create`.
    pub create: Vec<Create>,
    /// Rows of `convert`.
    pub convert: Vec<Convert>,
}

/// One run of `create --all-platforms`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// `--span-size`
    pub span_size: u64,
    /// `--min-layer-size`
    pub min_layer_size: u64,
    /// The exit status.
    pub exit: i32,
    /// The index manifests, one per platform, in no particular order.
    pub indexes: Vec<Index>,
}

/// A v1 index manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Digest of the index manifest.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Digest of the image manifest it is for.
    pub subject: String,
    /// How many zTOCs it lists.
    pub ztocs: usize,
}

/// One run of `convert --standalone --all-platforms`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convert {
    /// `--span-size`
    pub span_size: u64,
    /// `--min-layer-size`
    pub min_layer_size: u64,
    /// Further flags.
    pub flags: Vec<String>,
    /// The converted root.
    pub result: Root,
    /// The root's manifests, in order.
    pub manifests: Vec<Converted>,
}

/// The root of a converted image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Root {
    /// Media type.
    pub media_type: String,
    /// Digest.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
}

/// One manifest in a converted root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Converted {
    /// Digest.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
    /// Annotations of the descriptor.
    pub annotations: BTreeMap<String, String>,
    /// Artifact type of the descriptor: set on SOCI indexes.
    pub artifact_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;

    #[test]
    fn layers_are_the_ones_described() {
        let golden = load();
        assert_eq!((golden.layers.len(), golden.refused.len()), (21, 7));
        let accepted = golden.layers.iter().map(|(n, l)| (n, &l.digest, l.size));
        let refused = golden.refused.iter().map(|(n, l)| (n, &l.digest, l.size));
        for (name, expected, size) in accepted.chain(refused) {
            let data = layer(name);
            assert_eq!((&digest::sha256(&data), data.len() as u64), (expected, size), "{name}");
        }
        assert!(golden.layers.values().all(|l| l.ztoc.contains_key(&65536)));
    }

    #[test]
    fn images_are_complete() {
        let golden = load();
        assert_eq!(golden.images.keys().collect::<Vec<_>>(), ["all-layers", "docker", "multi-platform"]);
        for (name, image) in &golden.images {
            assert_eq!((image.create.len(), image.convert.len()), (3, 4), "{name}");
            for blob in fs::read_dir(image_dir(name).join("blobs/sha256")).unwrap() {
                let path = blob.unwrap().path();
                let (digest, _) = digest::sha256_file(&path).unwrap();
                assert_eq!(digest["sha256:".len()..], *path.file_name().unwrap().to_string_lossy(), "{name}");
            }
        }
    }
}
