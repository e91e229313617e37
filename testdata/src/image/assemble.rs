//! Images: configuration, manifest, index.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::compress::Compression;
use super::layer::{BlobData, Layer};
use super::parts::{Part, Parts};
use crate::registry::TestRegistry;

/// Whose media types an image has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MediaTypes {
    /// The Open Container Initiative's.
    #[default]
    Oci,
    /// Docker's (schema 2).
    Docker,
}

impl MediaTypes {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    /// The media type of a layer.
    pub fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Zstd { .. }) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Self::Oci, _) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Zstd { .. }) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
            (Self::Docker, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

/// Puts layers into an image for one platform.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<(Layer, Option<String>)>,
    media_types: MediaTypes,
    os: String,
    architecture: String,
    variant: Option<String>,
    annotations: Map<String, Value>,
    run: Map<String, Value>,
    subject: Option<Value>,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            media_types: MediaTypes::Oci,
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
            annotations: Map::new(),
            run: Map::new(),
            subject: None,
        }
    }
}

impl ImageBuilder {
    /// An image for linux/amd64 with OCI media types.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push((layer, None));
        self
    }

    /// Adds a layer on top under a media type of the caller's choice, true or not.
    #[must_use]
    pub fn layer_as(mut self, layer: Layer, media_type: &str) -> Self {
        self.layers.push((layer, Some(media_type.into())));
        self
    }

    /// Sets whose media types it has.
    #[must_use]
    pub fn media_types(mut self, media_types: MediaTypes) -> Self {
        self.media_types = media_types;
        self
    }

    /// Sets the platform: `linux/arm64`, `linux/arm/v7`.
    #[must_use]
    pub fn platform(mut self, platform: &str) -> Self {
        let mut parts = platform.split('/').map(String::from);
        self.os = parts.next().unwrap_or_default();
        self.architecture = parts.next().unwrap_or_default();
        self.variant = parts.next();
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Sets a field of the configuration's `config` object: `Cmd`, `Env`, `WorkingDir`, ….
    #[must_use]
    pub fn config(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.run.insert(field.into(), value.into());
        self
    }

    /// Sets the command.
    #[must_use]
    pub fn cmd(self, args: &[&str]) -> Self {
        self.config("Cmd", args.to_vec())
    }

    /// Makes the image a referrer of another manifest.
    #[must_use]
    pub fn subject(mut self, media_type: &str, digest: &str, size: u64) -> Self {
        self.subject = Some(json!({ "mediaType": media_type, "digest": digest, "size": size }));
        self
    }

    /// Makes configuration and manifest.
    pub fn build(self) -> Image {
        let diff_ids: Vec<&str> = self.layers.iter().map(|(l, _)| l.diff_id.as_str()).collect();
        let mut config = json!({
            "created": "2023-11-14T22:13:20Z",
            "architecture": self.architecture,
            "os": self.os,
            "config": self.run,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created": "2023-11-14T22:13:20Z", "created_by": "testdata" })).collect::<Vec<_>>(),
        });
        let mut platform = json!({ "architecture": self.architecture, "os": self.os });
        if let Some(variant) = &self.variant {
            config["variant"] = variant.clone().into();
            platform["variant"] = variant.clone().into();
        }
        let config = Bytes::from(config.to_string());
        let config_digest = crate::digest::sha256(&config);
        let mut parts = Vec::new();
        let mut descriptors = Vec::new();
        for (layer, media_type) in &self.layers {
            let media_type =
                media_type.clone().unwrap_or_else(|| self.media_types.layer(layer.compression).into());
            descriptors.push(json!({ "mediaType": media_type, "digest": layer.digest, "size": layer.size }));
            parts.push(Part {
                digest: layer.digest.clone(),
                media_type,
                data: layer.data.clone(),
                size: layer.size,
                is_manifest: false,
            });
        }
        let config_type = self.media_types.config();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.media_types.manifest(),
            "config": { "mediaType": config_type, "digest": config_digest, "size": config.len() },
            "layers": descriptors,
        });
        if let Some(subject) = self.subject {
            manifest["subject"] = subject;
        }
        if !self.annotations.is_empty() {
            manifest["annotations"] = self.annotations.into();
        }
        parts.push(blob(config_type, config, false));
        let root = blob(self.media_types.manifest(), Bytes::from(manifest.to_string()), true);
        let layers = self.layers.into_iter().map(|(layer, _)| layer).collect();
        parts.push(root.clone());
        Image { parts: Parts(parts), root, platform, layers }
    }
}

fn blob(media_type: &str, data: Bytes, is_manifest: bool) -> Part {
    Part {
        digest: crate::digest::sha256(&data),
        media_type: media_type.into(),
        size: data.len() as u64,
        data: BlobData::Memory(data),
        is_manifest,
    }
}

fn bytes_of(part: &Part) -> Bytes {
    match &part.data {
        BlobData::Memory(data) => data.clone(),
        BlobData::File(path) => std::fs::read(path).expect("blob").into(),
    }
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    parts: Parts,
    root: Part,
    platform: Value,
    layers: Vec<Layer>,
}

impl Image {
    /// The layers, lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The configuration's bytes.
    pub fn config(&self) -> Bytes {
        // It stands right before the manifest.
        bytes_of(&self.parts.0[self.parts.0.len() - 2])
    }
}

/// Puts images into an index.
#[derive(Debug, Clone, Default)]
pub struct IndexBuilder {
    images: Vec<(Parts, Value)>,
    media_types: MediaTypes,
    annotations: Map<String, Value>,
}

impl IndexBuilder {
    /// An empty OCI index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image, with its platform in the descriptor.
    #[must_use]
    pub fn image(self, image: &Image) -> Self {
        self.image_annotated(image, &[])
    }

    /// Adds an image whose descriptor has annotations.
    #[must_use]
    pub fn image_annotated(mut self, image: &Image, annotations: &[(&str, &str)]) -> Self {
        let mut descriptor = json!({
            "mediaType": image.root.media_type,
            "digest": image.root.digest,
            "size": image.root.size,
            "platform": image.platform,
        });
        for (key, value) in annotations {
            descriptor["annotations"][*key] = (*value).into();
        }
        self.images.push((image.parts.clone(), descriptor));
        self
    }

    /// Adds an index within the index.
    #[must_use]
    pub fn index(mut self, index: &ImageIndex) -> Self {
        let root = &index.root;
        let descriptor = json!({ "mediaType": root.media_type, "digest": root.digest, "size": root.size });
        self.images.push((index.parts.clone(), descriptor));
        self
    }

    /// Sets whose media types it has.
    #[must_use]
    pub fn media_types(mut self, media_types: MediaTypes) -> Self {
        self.media_types = media_types;
        self
    }

    /// Adds an annotation to the index.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Makes the index.
    pub fn build(self) -> ImageIndex {
        let descriptors: Vec<&Value> = self.images.iter().map(|(_, d)| d).collect();
        let mut index = json!({
            "schemaVersion": 2,
            "mediaType": self.media_types.index(),
            "manifests": descriptors,
        });
        if !self.annotations.is_empty() {
            index["annotations"] = self.annotations.into();
        }
        let root = blob(self.media_types.index(), Bytes::from(index.to_string()), true);
        let mut parts: Vec<Part> = self.images.into_iter().flat_map(|(parts, _)| parts.0).collect();
        parts.push(root.clone());
        ImageIndex { parts: Parts(parts), root }
    }
}

/// An index of images.
#[derive(Debug, Clone)]
pub struct ImageIndex {
    parts: Parts,
    root: Part,
}

macro_rules! output {
    ($type:ty) => {
        impl $type {
            /// The digest of the manifest or index.
            pub fn digest(&self) -> &str {
                &self.root.digest
            }

            /// The media type of the manifest or index.
            pub fn media_type(&self) -> &str {
                &self.root.media_type
            }

            /// The bytes of the manifest or index.
            pub fn manifest(&self) -> Bytes {
                bytes_of(&self.root)
            }

            /// Puts it into a registry with all its parts, and returns its digest. Layers in files stay there.
            pub fn put_into(&self, registry: &TestRegistry, repo: &str, tag: &str) -> String {
                self.parts.put_into(registry, repo, tag)
            }

            /// Writes it as an OCI layout directory, with `tag` as the root's name.
            ///
            /// # Panics
            /// If a file cannot be written.
            pub fn write_layout(&self, dir: impl AsRef<Path>, tag: &str) {
                self.parts.write_layout(dir.as_ref(), tag);
            }

            /// Writes it as an OCI archive: a tar of the layout.
            ///
            /// # Panics
            /// If the file cannot be written.
            pub fn write_archive(&self, path: impl AsRef<Path>, tag: &str) {
                self.parts.write_archive(path.as_ref(), tag);
            }
        }
    };
}

output!(Image);
output!(ImageIndex);
