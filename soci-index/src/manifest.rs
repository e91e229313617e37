//! The SOCI index manifest: which zTOC belongs to which layer of an image.
//!
//! On the wire it is an OCI image manifest whose `config.mediaType` says that it is a SOCI index and of which version:
//!
//! ```json
//! {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
//!  "config":{"mediaType":"application/vnd.amazon.soci.index.v1+json","digest":"sha256:44136f…","size":2},
//!  "layers":[{"mediaType":"application/octet-stream","digest":"…","size":33936,"annotations":{
//!     "com.amazon.soci.image-layer-digest":"sha256:…","com.amazon.soci.image-layer-mediaType":"…","com.amazon.soci.span-size":"4194304"}}],
//!  "subject":{…image manifest, version 1 only…},
//!  "annotations":{"com.amazon.soci.build-tool-identifier":"AWS SOCI CLI v0.2"}}
//! ```
//!
//! A zTOC of a Zstandard layer, which the reference cannot read, has a media type and annotations of this project
//! ([`ZtocKind::Zstd`]), so that the reference passes over it and unpacks that layer.
//!
//! Version 1 names its image in `subject` and is found by the referrers API; version 2 stands in the image's own index
//! and is named by an annotation of the image manifest. There is no top-level `artifactType`.

use std::collections::BTreeMap;

use bytes::Bytes;
use registry::{Descriptor, Digest};

use crate::oci::{self, DocumentError, IMAGE_MANIFEST, MAX_MANIFEST_SIZE};

/// `config.mediaType` of a version 1 index manifest, and its artifact type among referrers.
pub const INDEX_V1: &str = "application/vnd.amazon.soci.index.v1+json";
/// `config.mediaType` of a version 2 index manifest.
pub const INDEX_V2: &str = "application/vnd.amazon.soci.index.v2+json";
/// Media type of a zTOC.
pub const ZTOC: &str = "application/octet-stream";
/// Media type of a zTOC of a Zstandard layer.
pub const ZSTD_ZTOC: &str = "application/vnd.soci.ztoc.zstd.v1";
/// Media type of a prefetch artifact.
pub const PREFETCH: &str = "application/vnd.amazon.soci.prefetch.v1+json";

/// Annotation of a zTOC or prefetch descriptor: the layer it belongs to.
pub const LAYER_DIGEST: &str = "com.amazon.soci.image-layer-digest";
/// Annotation of a zTOC descriptor: media type of the layer.
pub const LAYER_MEDIA_TYPE: &str = "com.amazon.soci.image-layer-mediaType";
/// Annotation of a zTOC descriptor: span size in bytes, decimal.
pub const SPAN_SIZE: &str = "com.amazon.soci.span-size";
/// Annotation of a zTOC descriptor: the layer has no extended attributes, so they need not be served.
pub const DISABLE_XATTRS: &str = "com.amazon.soci.disable-xattrs";
/// Annotation of an index manifest: the tool that built it.
pub const BUILD_TOOL: &str = "com.amazon.soci.build-tool-identifier";
/// Annotation of an index manifest of this project: when the start was recorded that its prefetch artifacts are made of, in
/// seconds since 1970.
pub const RECORDED: &str = "soci.prefetch.recorded";
/// Annotation of an image manifest: the version 2 index that is bound to it.
pub const INDEX_DIGEST: &str = "com.amazon.soci.index-digest";
/// Annotation of a version 2 index's descriptor in the image index: the image manifest that it is bound to.
pub const IMAGE_MANIFEST_DIGEST: &str = "com.amazon.soci.image-manifest-digest";

/// What kind of layer a zTOC is for, and so under which names an index manifest has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZtocKind {
    /// A gzip or uncompressed layer: a zTOC that the reference can read, too.
    Common,
    /// A Zstandard layer.
    Zstd,
}

/// Annotations of a zTOC's descriptor, by their meaning.
struct Keys {
    layer_digest: &'static str,
    layer_media_type: &'static str,
    span_size: &'static str,
    disable_xattrs: &'static str,
}

impl ZtocKind {
    /// The kind for a layer that is compressed like this.
    pub fn of(compression: ztoc::Compression) -> Self {
        match compression {
            ztoc::Compression::Gzip | ztoc::Compression::Uncompressed => Self::Common,
            ztoc::Compression::Zstd => Self::Zstd,
        }
    }

    /// The media type of the zTOC.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Common => ZTOC,
            Self::Zstd => ZSTD_ZTOC,
        }
    }

    /// The kind that a media type stands for.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        [Self::Common, Self::Zstd].into_iter().find(|kind| kind.media_type() == media_type)
    }

    /// The reference finds a layer's zTOC by the annotation with the layer's digest, older versions of it by that alone.
    fn keys(self) -> Keys {
        match self {
            Self::Common => Keys {
                layer_digest: LAYER_DIGEST,
                layer_media_type: LAYER_MEDIA_TYPE,
                span_size: SPAN_SIZE,
                disable_xattrs: DISABLE_XATTRS,
            },
            Self::Zstd => Keys {
                layer_digest: "soci.ztoc.image-layer-digest",
                layer_media_type: "soci.ztoc.image-layer-mediaType",
                span_size: "soci.ztoc.span-size",
                disable_xattrs: "soci.ztoc.disable-xattrs",
            },
        }
    }

    /// Descriptor of a layer's zTOC, with the annotations of an index manifest.
    pub fn descriptor(
        self,
        ztoc: Digest,
        size: u64,
        layer: &Descriptor,
        span_size: u64,
        disable_xattrs: bool,
    ) -> Descriptor {
        let keys = self.keys();
        let mut descriptor = Descriptor::new(self.media_type(), ztoc, size);
        let mut annotate = |key: &str, value| descriptor.annotations.insert(key.to_owned(), value);
        annotate(keys.layer_digest, layer.digest.to_string());
        annotate(keys.layer_media_type, layer.media_type.clone());
        annotate(keys.span_size, span_size.to_string());
        if disable_xattrs {
            annotate(keys.disable_xattrs, "true".to_owned());
        }
        descriptor
    }
}

/// The config blob of every index manifest.
pub const CONFIG_BLOB: &[u8] = b"{}";

/// Largest zTOC that is accepted, in bytes. A checkpoint costs 32 KiB per span: at 4 MiB spans this is enough for a
/// layer of 64 GiB and some millions of files, and it bounds what a stranger's index can make a client download.
pub const MAX_ZTOC_SIZE: u64 = 1 << 30;

/// Version of an index manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IndexVersion {
    /// Found by the referrers API; names its image in `subject`.
    V1,
    /// Bound to the image by annotations within one image index.
    V2,
}

impl IndexVersion {
    /// The `config.mediaType` that carries the version.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::V1 => INDEX_V1,
            Self::V2 => INDEX_V2,
        }
    }

    /// The version that a `config.mediaType` stands for.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            INDEX_V1 => Some(Self::V1),
            INDEX_V2 => Some(Self::V2),
            _ => None,
        }
    }
}

impl std::fmt::Display for IndexVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// A SOCI index manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexManifest {
    /// Its version.
    pub version: IndexVersion,
    /// Descriptors of zTOCs in the order of the image's layers, then of prefetch artifacts.
    pub blobs: Vec<Descriptor>,
    /// The image manifest it belongs to; version 1 only.
    pub subject: Option<Descriptor>,
    /// Annotations, in key order.
    pub annotations: BTreeMap<String, String>,
}

/// A zTOC named by an index manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZtocRef<'a> {
    /// Descriptor of the zTOC.
    pub descriptor: &'a Descriptor,
    /// Digest of the layer that it describes, checked to be a digest.
    pub layer: &'a str,
    /// Media type of the layer, if the annotation is there.
    pub layer_media_type: Option<&'a str>,
    /// Span size in bytes, if the annotation is there and a number.
    pub span_size: Option<u64>,
    /// Whether the builder found that the layer has no extended attributes.
    pub disable_xattrs: bool,
}

impl IndexManifest {
    /// A new index over `ztocs`, bound to the image manifest `subject` (version 1) or to none (version 2).
    pub fn new(
        version: IndexVersion,
        ztocs: Vec<Descriptor>,
        subject: Option<&Descriptor>,
        tool: &str,
    ) -> Self {
        Self {
            version,
            blobs: ztocs,
            subject: subject
                .filter(|_| version == IndexVersion::V1)
                .map(|image| Descriptor::new(image.media_type.clone(), image.digest.clone(), image.size)),
            annotations: BTreeMap::from([(BUILD_TOOL.to_owned(), tool.to_owned())]),
        }
    }

    /// Descriptor of the zTOC of a layer that is not compressed with Zstandard; see [`ZtocKind::descriptor`].
    pub fn ztoc_descriptor(
        ztoc: Digest,
        size: u64,
        layer: &Descriptor,
        span_size: u64,
        disable_xattrs: bool,
    ) -> Descriptor {
        ZtocKind::Common.descriptor(ztoc, size, layer, span_size, disable_xattrs)
    }

    /// The manifest's bytes in the canonical form, which its digest is computed over.
    pub fn encode(&self) -> Bytes {
        let manifest = oci::ImageManifest {
            media_type: IMAGE_MANIFEST.to_owned(),
            artifact_type: String::new(),
            config: self.config(),
            layers: self.blobs.clone(),
            subject: self.subject.clone(),
            annotations: self.annotations.clone(),
        };
        manifest.encode().into()
    }

    /// Parses an index manifest. Nothing outside `config.mediaType`, `layers`, `subject` and `annotations` is looked at,
    /// as in the reference.
    ///
    /// # Errors
    /// When it is larger than 4 MiB, not JSON, not an image manifest, or `config.mediaType` names no known version; when a
    /// descriptor has a malformed digest, a negative size, or a zTOC's size is above [`MAX_ZTOC_SIZE`].
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        // Says "index manifest" where the general parser would say "image manifest".
        let size = json.len() as u64;
        if size > MAX_MANIFEST_SIZE {
            return Err(DocumentError::TooLarge {
                what: "SOCI index manifest",
                size,
                limit: MAX_MANIFEST_SIZE,
            });
        }
        let manifest = oci::ImageManifest::parse(json)?;
        let media_type = &manifest.config.media_type;
        let version = IndexVersion::from_media_type(media_type).ok_or_else(|| {
            DocumentError::Unexpected(format!("unknown index version: {}", crate::text::excerpt(media_type)))
        })?;
        for blob in &manifest.layers {
            if blob.size > MAX_ZTOC_SIZE {
                return Err(DocumentError::TooLarge { what: "zTOC", size: blob.size, limit: MAX_ZTOC_SIZE });
            }
            let key =
                ZtocKind::from_media_type(&blob.media_type).unwrap_or(ZtocKind::Common).keys().layer_digest;
            if let Some(layer) = blob.annotations.get(key)
                && layer.parse::<Digest>().is_err()
            {
                return Err(DocumentError::Unexpected(format!(
                    "annotation {key} of {} is not a digest: {}",
                    blob.digest,
                    crate::text::excerpt(layer)
                )));
            }
        }
        Ok(Self {
            version,
            blobs: manifest.layers,
            subject: manifest.subject,
            annotations: manifest.annotations,
        })
    }

    /// Descriptor of the config blob, [`CONFIG_BLOB`].
    pub fn config(&self) -> Descriptor {
        Descriptor::of(self.version.media_type(), CONFIG_BLOB)
    }

    /// The zTOCs, in the order of the image's layers. Prefetch artifacts and descriptors without a layer are left out.
    pub fn ztocs(&self) -> impl Iterator<Item = ZtocRef<'_>> {
        self.blobs.iter().filter_map(|descriptor| {
            let keys = ZtocKind::from_media_type(&descriptor.media_type)?.keys();
            let annotation = |key: &str| descriptor.annotations.get(key).map(String::as_str);
            Some(ZtocRef {
                descriptor,
                layer: annotation(keys.layer_digest)?,
                layer_media_type: annotation(keys.layer_media_type),
                span_size: annotation(keys.span_size).and_then(|text| text.parse().ok()),
                disable_xattrs: annotation(keys.disable_xattrs).is_some_and(parse_go_bool),
            })
        })
    }

    /// The zTOC of a layer. Of several, the first counts.
    pub fn ztoc_of(&self, layer: &Digest) -> Option<ZtocRef<'_>> {
        let layer = layer.to_string();
        self.ztocs().find(|ztoc| ztoc.layer == layer)
    }

    /// When the start was recorded that its prefetch artifacts are made of, in seconds since 1970; `None` if they are not
    /// made of one.
    pub fn recorded(&self) -> Option<u64> {
        self.annotations.get(RECORDED)?.parse().ok()
    }

    /// The tool that built the index, if it says so.
    pub fn build_tool(&self) -> Option<&str> {
        self.annotations.get(BUILD_TOOL).map(String::as_str)
    }
}

/// `strconv.ParseBool`, with what it cannot parse counting as false.
fn parse_go_bool(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(version: IndexVersion) -> IndexManifest {
        let layer = Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of(b"layer"), 1);
        let image = Descriptor {
            platform: Some(registry::Platform::default()),
            ..Descriptor::new(IMAGE_MANIFEST, Digest::of(b"img"), 555)
        };
        let ztoc = IndexManifest::ztoc_descriptor(Digest::of(b"ztoc"), 1234, &layer, 4_194_304, false);
        IndexManifest::new(version, vec![ztoc], Some(&image), "AWS SOCI CLI v0.2")
    }

    #[test]
    fn golden_manifests_of_the_reference() {
        for (version, size, digest) in [
            (
                IndexVersion::V1,
                872,
                "sha256:c1d88bb9164c90be6c520869a48558e75be92664c85d3eb09b98178cd4c3600e",
            ),
            (
                IndexVersion::V2,
                709,
                "sha256:dd64aa3e35bfa675d34c9eedf5773007d75b7dcf03c312fce2cbfcd912834f27",
            ),
        ] {
            let manifest = sample(version);
            let bytes = manifest.encode();
            assert_eq!(bytes.len(), size, "{}", String::from_utf8_lossy(&bytes));
            assert_eq!(Digest::of(&bytes).to_string(), digest);
            assert_eq!(IndexManifest::parse(&bytes).unwrap(), manifest);
        }
    }

    #[test]
    fn ztocs_are_found_by_layer() {
        let mut manifest = sample(IndexVersion::V1);
        let mut prefetch = manifest.blobs[0].clone();
        prefetch.media_type = PREFETCH.into();
        manifest.blobs.insert(0, prefetch);
        let ztoc = manifest.ztoc_of(&Digest::of(b"layer")).unwrap();
        assert_eq!(ztoc.descriptor.digest, Digest::of(b"ztoc"));
        assert_eq!((ztoc.span_size, ztoc.disable_xattrs), (Some(4_194_304), false));
        assert_eq!(manifest.ztocs().count(), 1);
        assert!(manifest.ztoc_of(&Digest::of(b"other")).is_none());
        for (text, expected) in
            [("true", true), ("T", true), ("1", true), ("tRUE", false), ("", false), ("0", false)]
        {
            manifest.blobs[1].annotations.insert(DISABLE_XATTRS.into(), text.into());
            assert_eq!(manifest.ztocs().next().unwrap().disable_xattrs, expected, "{text}");
        }
    }

    /// The reference maps by its annotation, or by its media type and its annotation: it must find neither.
    #[test]
    fn ztocs_of_zstd_layers_are_found_here_and_passed_over_by_the_reference() {
        let mut manifest = sample(IndexVersion::V1);
        let layer = Descriptor::new("application/vnd.oci.image.layer.v1.tar+zstd", Digest::of(b"zstd"), 1);
        let ztoc = ZtocKind::Zstd.descriptor(Digest::of(b"z"), 7, &layer, 4096, true);
        assert!(ztoc.media_type != ZTOC && ztoc.annotations.keys().all(|key| !key.contains("amazon")));
        manifest.blobs.insert(0, ztoc);
        let manifest = IndexManifest::parse(&manifest.encode()).unwrap();
        let found = manifest.ztoc_of(&Digest::of(b"zstd")).unwrap();
        assert_eq!((found.descriptor.size, found.span_size, found.disable_xattrs), (7, Some(4096), true));
        assert!(manifest.ztoc_of(&Digest::of(b"layer")).is_some());
        assert_eq!(manifest.ztocs().count(), 2);
        let hostile = String::from_utf8(manifest.encode().to_vec()).unwrap();
        let hostile = hostile.replacen(
            r#"soci.ztoc.image-layer-digest":"sha256:"#,
            r#"soci.ztoc.image-layer-digest":"x"#,
            1,
        );
        assert!(
            IndexManifest::parse(hostile.as_bytes()).unwrap_err().to_string().contains("is not a digest")
        );
    }

    #[test]
    fn hostile_index_manifests_are_refused() {
        let good = String::from_utf8(sample(IndexVersion::V1).encode().to_vec()).unwrap();
        for (from, to, message) in [
            (
                "soci.index.v1+json",
                "soci.index.v3+json",
                "unknown index version: application/vnd.amazon.soci.index.v3+json",
            ),
            (r#""size":1234"#, r#""size":1073741825"#, "more than the 1073741824 allowed"),
            (r#""size":1234"#, r#""size":-5"#, "malformed"),
            (r#""size":1234"#, r#""size":1e300"#, "malformed"),
            (r#"layer-digest":"sha256:"#, r#"layer-digest":"sha256:../"#, "is not a digest"),
            (r#""layers":["#, r#""layers":[null,"#, "malformed"),
            (r#""config":"#, r#""konfig":"#, "missing field `config`"),
        ] {
            let json = good.replacen(from, to, 1);
            assert_ne!(json, good);
            let error = IndexManifest::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{error} does not mention {message}");
        }
        for cut in 0..good.len() {
            assert!(IndexManifest::parse(&good.as_bytes()[..cut]).is_err());
        }
        // Fields the reference does not know are ignored.
        let extended = good.replacen('{', r#"{"artifactType":"x","future":[1],"#, 1);
        assert_eq!(IndexManifest::parse(extended.as_bytes()).unwrap(), sample(IndexVersion::V1));
    }
}
