//! The OCI documents that indexing reads and writes: descriptors, image manifests, image indexes.
//!
//! Field order and omission on writing are those of the Go structs of image-spec 1.1, because the bytes matter (see
//! [`crate::canonical_json`]). Readers take Docker's forms too, ignore what they do not know, bound what they read, and
//! check every digest and size while parsing, so that no later code meets a digest that is not one.

use std::collections::BTreeMap;

use registry::Descriptor;
use serde::{Deserialize, Deserializer};

use crate::canonical_json::Encoder;

/// Media type of an OCI image manifest; SOCI indexes have it too.
pub const IMAGE_MANIFEST: &str = registry::media_types::OCI_MANIFEST;
/// Media type of an OCI image index.
pub const IMAGE_INDEX: &str = registry::media_types::OCI_INDEX;
/// Media type of an OCI image configuration.
pub const IMAGE_CONFIG: &str = registry::media_types::OCI_CONFIG;
/// Media type of a Docker image manifest.
pub const DOCKER_MANIFEST: &str = registry::media_types::DOCKER_MANIFEST;
/// Media type of a Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Largest manifest or index that is read, in bytes. Registries and containers/image refuse more than 4 MiB; an index
/// manifest of 127 layers is 50 KB.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// Largest image configuration that is read, in bytes. Only its platform matters here, and history is what makes it big.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Longer than the limit for its kind.
    #[error("{what} is {size} bytes long, more than the {limit} allowed")]
    TooLarge {
        /// Kind of document.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not JSON, or a field has the wrong type, a malformed digest or a negative size.
    #[error("malformed {what}: {source}")]
    Malformed {
        /// Kind of document.
        what: &'static str,
        /// What the parser met, with line and column.
        source: serde_json::Error,
    },
    /// Well-formed, but not a document of this kind.
    #[error("{0}")]
    Unexpected(String),
}

/// Whether `descriptor` points to an image index or a Docker manifest list.
pub fn is_index(descriptor: &Descriptor) -> bool {
    registry::media_types::is_index(&descriptor.media_type)
}

/// Whether `descriptor` points to an image manifest.
pub fn is_manifest(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type.as_str(), IMAGE_MANIFEST | DOCKER_MANIFEST)
}

/// Appends a descriptor in Go's field order.
pub(crate) fn encode_descriptor(json: &mut Encoder, descriptor: &Descriptor) {
    json.object(|json| {
        json.key("mediaType").string(&descriptor.media_type);
        json.key("digest").string(descriptor.digest.as_str());
        json.key("size").integer(descriptor.size);
        if !descriptor.urls.is_empty() {
            json.key("urls").array(|json| descriptor.urls.iter().for_each(|url| json.string(url)));
        }
        encode_annotations(json, &descriptor.annotations);
        if let Some(data) = descriptor.data.as_deref().filter(|data| !data.is_empty()) {
            json.key("data").string(data);
        }
        if let Some(platform) = &descriptor.platform {
            encode_platform(json.key("platform"), platform);
        }
        if let Some(kind) = descriptor.artifact_type.as_deref().filter(|kind| !kind.is_empty()) {
            json.key("artifactType").string(kind);
        }
    });
}

fn encode_platform(json: &mut Encoder, platform: &registry::Platform) {
    json.object(|json| {
        json.key("architecture").string(&platform.architecture);
        json.key("os").string(&platform.os);
        if let Some(version) = platform.os_version.as_deref().filter(|version| !version.is_empty()) {
            json.key("os.version").string(version);
        }
        if !platform.os_features.is_empty() {
            json.key("os.features")
                .array(|json| platform.os_features.iter().for_each(|feature| json.string(feature)));
        }
        if let Some(variant) = platform.variant.as_deref().filter(|variant| !variant.is_empty()) {
            json.key("variant").string(variant);
        }
    });
}

pub(crate) fn encode_annotations(json: &mut Encoder, annotations: &BTreeMap<String, String>) {
    if !annotations.is_empty() {
        json.key("annotations").object(|json| {
            for (key, value) in annotations {
                json.key(key).string(value);
            }
        });
    }
}

/// An image manifest, OCI's or Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ImageManifest {
    /// Media type as the document states it; empty when it does not.
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    /// Type of the artifact, if the manifest is one.
    #[serde(rename = "artifactType", default, deserialize_with = "null_as_default")]
    pub artifact_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default)]
    pub subject: Option<Descriptor>,
    /// Annotations, in key order.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

impl ImageManifest {
    /// Parses an image manifest.
    ///
    /// # Errors
    /// When it is too large, not JSON, or an image index or a schema 1 manifest instead.
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        const WHAT: &str = "image manifest";
        let shape = Shape::of(WHAT, json)?;
        if shape.manifests || shape.fs_layers {
            return Err(DocumentError::Unexpected(format!(
                "expected an image manifest and found {}",
                if shape.fs_layers {
                    "a Docker schema 1 manifest, which cannot be indexed"
                } else {
                    "an image index"
                }
            )));
        }
        let manifest: Self = parse(WHAT, json, MAX_MANIFEST_SIZE)?;
        check_sizes(manifest.layers.iter().chain([&manifest.config]).chain(&manifest.subject))?;
        Ok(manifest)
    }

    /// The document in Go's encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut json = Encoder::new();
        json.object(|json| {
            json.key("schemaVersion").integer(2);
            json.key("mediaType").string(&self.media_type);
            if !self.artifact_type.is_empty() {
                json.key("artifactType").string(&self.artifact_type);
            }
            encode_descriptor(json.key("config"), &self.config);
            json.key("layers")
                .array(|json| self.layers.iter().for_each(|layer| encode_descriptor(json, layer)));
            if let Some(subject) = &self.subject {
                encode_descriptor(json.key("subject"), subject);
            }
            encode_annotations(json, &self.annotations);
        });
        json.into_bytes()
    }
}

/// An image index, or Docker's manifest list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ImageIndex {
    /// Type of the artifact, if the index is one.
    #[serde(rename = "artifactType", default, deserialize_with = "null_as_default")]
    pub artifact_type: String,
    /// The manifests listed.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index is about.
    #[serde(default)]
    pub subject: Option<Descriptor>,
    /// Annotations, in key order.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
}

impl ImageIndex {
    /// Parses an image index.
    ///
    /// # Errors
    /// When it is too large, not JSON, or an image manifest instead.
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        const WHAT: &str = "image index";
        if Shape::of(WHAT, json)?.layers {
            return Err(DocumentError::Unexpected(
                "expected an image index and found an image manifest".into(),
            ));
        }
        let index: Self = parse(WHAT, json, MAX_MANIFEST_SIZE)?;
        check_sizes(index.manifests.iter().chain(&index.subject))?;
        Ok(index)
    }

    /// The document in Go's encoding, with OCI's media type.
    pub fn encode(&self) -> Vec<u8> {
        let mut json = Encoder::new();
        json.object(|json| {
            json.key("schemaVersion").integer(2);
            json.key("mediaType").string(IMAGE_INDEX);
            if !self.artifact_type.is_empty() {
                json.key("artifactType").string(&self.artifact_type);
            }
            json.key("manifests")
                .array(|json| self.manifests.iter().for_each(|entry| encode_descriptor(json, entry)));
            if let Some(subject) = &self.subject {
                encode_descriptor(json.key("subject"), subject);
            }
            encode_annotations(json, &self.annotations);
        });
        json.into_bytes()
    }
}

/// The parts of an image configuration that indexing and starting need.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageConfig {
    /// The platform; its fields stand at the top of the document.
    #[serde(flatten)]
    pub platform: registry::Platform,
    /// Digests of the uncompressed layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// What a container runs; nothing if that makes no sense, which is no reason not to index or unpack an image.
    #[serde(default, deserialize_with = "sense_or_default")]
    pub config: RunConfig,
}

/// What a container of an image runs unless it is told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// The program and its first arguments.
    #[serde(deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// More arguments, or the program and its arguments.
    #[serde(deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// Variables, as `NAME=value`.
    #[serde(deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Where it runs.
    #[serde(deserialize_with = "null_as_default")]
    pub working_dir: String,
}

fn sense_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RunConfig, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(RunConfig::deserialize(value).unwrap_or_default())
}

/// The layers as an image configuration lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<String>,
}

impl RootFs {
    /// The chain ID of the lowest `count` layers, which is how containerd names their snapshot: the digest of the chain ID
    /// below, a space and the layer's `diff_id`. `None` if there are fewer layers, or none.
    #[must_use]
    pub fn chain_id(&self, count: usize) -> Option<String> {
        let mut layers = self.diff_ids.get(..count)?.iter();
        let first = layers.next()?.clone();
        Some(layers.fold(first, |chain, layer| chain_id_over(&chain, layer)))
    }
}

/// The chain ID of the layer `diff_id` over the layers that have the chain ID `below`.
#[must_use]
pub fn chain_id_over(below: &str, diff_id: &str) -> String {
    registry::Digest::of(format!("{below} {diff_id}").as_bytes()).to_string()
}

impl ImageConfig {
    /// Parses an image configuration.
    ///
    /// # Errors
    /// When it is too large or not JSON.
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        parse("image configuration", json, MAX_CONFIG_SIZE)
    }
}

/// Which kind of document this is. The `mediaType` field is optional, and a document that is a manifest to one reader and
/// an index to another is an old attack, so the fields decide.
struct Shape {
    layers: bool,
    manifests: bool,
    fs_layers: bool,
}

impl Shape {
    fn of(what: &'static str, json: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Fields {
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
            #[serde(rename = "fsLayers")]
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let fields: Fields = parse(what, json, MAX_MANIFEST_SIZE)?;
        let shape = Self {
            layers: fields.layers.is_some(),
            manifests: fields.manifests.is_some(),
            fs_layers: fields.fs_layers.is_some(),
        };
        if shape.layers && shape.manifests {
            return Err(DocumentError::Unexpected(format!(
                "ambiguous {what}: it has both layers and manifests, so readers would disagree on what it is"
            )));
        }
        Ok(shape)
    }
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(
    what: &'static str,
    json: &'a [u8],
    limit: u64,
) -> Result<T, DocumentError> {
    let size = json.len() as u64;
    if size > limit {
        return Err(DocumentError::TooLarge { what, size, limit });
    }
    serde_json::from_slice(json).map_err(|source| DocumentError::Malformed { what, source })
}

/// Go writes an empty slice or map that was never made as `null`.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Sizes are signed 64-bit numbers in Go: what does not fit there could not be read back by the reference.
fn check_sizes<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>) -> Result<(), DocumentError> {
    match descriptors.into_iter().find(|descriptor| i64::try_from(descriptor.size).is_err()) {
        Some(bad) => {
            Err(DocumentError::Unexpected(format!("size {} of {} is too large", bad.size, bad.digest)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:b29814cf5792e684cd75d6a7fce7a67a11887e312f87ca2ac2496d81f365ff72";

    #[test]
    fn converted_index_of_the_reference_survives_a_round_trip() {
        // Section 10 of the behaviour document: 801 bytes, a3e60d68….
        let json = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:b29814cf5792e684cd75d6a7fce7a67a11887e312f87ca2ac2496d81f365ff72","size":600,"annotations":{"com.amazon.soci.index-digest":"sha256:dd64aa3e35bfa675d34c9eedf5773007d75b7dcf03c312fce2cbfcd912834f27"},"platform":{"architecture":"amd64","os":"linux"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:dd64aa3e35bfa675d34c9eedf5773007d75b7dcf03c312fce2cbfcd912834f27","size":709,"annotations":{"com.amazon.soci.image-manifest-digest":"sha256:b29814cf5792e684cd75d6a7fce7a67a11887e312f87ca2ac2496d81f365ff72"},"platform":{"architecture":"amd64","os":"linux"},"artifactType":"application/vnd.amazon.soci.index.v2+json"}]}"#;
        let encoded = ImageIndex::parse(json.as_bytes()).unwrap().encode();
        assert_eq!(encoded.len(), 801);
        assert_eq!(String::from_utf8(encoded).unwrap(), json);
    }

    #[test]
    fn all_descriptor_fields_come_in_gos_order() {
        let json = format!(
            r#"{{"mediaType":"t","digest":"{D}","size":1,"urls":["http://x/?a\u0026b"],"annotations":{{"a":"\u003c","b":""}},"data":"YQ==","platform":{{"architecture":"arm","os":"linux","os.version":"1","os.features":["f"],"variant":"v7"}},"artifactType":"u"}}"#
        );
        let descriptor: Descriptor = serde_json::from_str(&json).unwrap();
        let mut out = Encoder::new();
        encode_descriptor(&mut out, &descriptor);
        assert_eq!(String::from_utf8(out.into_bytes()).unwrap(), json);
    }

    #[test]
    fn hostile_documents_are_refused() {
        let config = format!(r#"{{"mediaType":"c","digest":"{D}","size":2}}"#);
        for (json, message) in [
            ("".to_owned(), "malformed"),
            ("[]".to_owned(), "malformed"),
            ("{}".to_owned(), "missing field `config`"),
            (
                r#"{"config":{"mediaType":"c","digest":"sha256:../../x","size":1},"layers":[]}"#.to_owned(),
                "malformed",
            ),
            (
                r#"{"config":{"mediaType":"c","digest":"sha256:","size":1},"layers":[]}"#.to_owned(),
                "malformed",
            ),
            (
                format!(r#"{{"config":{{"mediaType":"c","digest":"{D}","size":-1}},"layers":[]}}"#),
                "malformed",
            ),
            (
                format!(
                    r#"{{"config":{{"mediaType":"c","digest":"{D}","size":18446744073709551615}},"layers":[]}}"#
                ),
                "too large",
            ),
            (format!(r#"{{"config":{config},"layers":[],"manifests":[]}}"#), "ambiguous"),
            (r#"{"manifests":[]}"#.to_owned(), "found an image index"),
            (r#"{"fsLayers":[]}"#.to_owned(), "schema 1"),
            (format!(r#"{{"x":{}"#, "[".repeat(100_000)), "EOF"),
            (" ".repeat(5 << 20), "more than the 4194304 allowed"),
        ] {
            let error = ImageManifest::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{error} does not mention {message}");
        }
        assert!(ImageIndex::parse(format!(r#"{{"layers":[],"config":{config}}}"#).as_bytes()).is_err());
    }

    #[test]
    fn null_lists_are_empty_lists() {
        let json = format!(
            r#"{{"config":{{"mediaType":"c","digest":"{D}","size":2,"annotations":null}},"layers":null,"annotations":null}}"#
        );
        let manifest = ImageManifest::parse(json.as_bytes()).unwrap();
        assert!(manifest.layers.is_empty() && manifest.annotations.is_empty());
    }
}
