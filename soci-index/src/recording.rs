//! Recordings: which parts of its lazy layers a container read when it started, in the order in which it did.
//!
//! The snapshotter writes one for an image when its first container starts on a node, replays it at the next cold start,
//! and `soci prefetch record` makes prefetch artifacts of it ([`crate::prefetch`]). It is JSON:
//!
//! ```json
//! {"version":1,"image":"registry.example.com/app:v1","manifest":"sha256:…","index":"sha256:…","taken":1767225600,
//!  "cold":true,"waited":71,"layers":[{"layer":"sha256:…","ztoc":"sha256:…"}],"reads":[[0,412,0,131072,15]],
//!  "unattributed":[[0,17,0,4096,3]]}
//! ```
//!
//! A read is a layer (its place in `layers`), an entry of that layer's zTOC, offset and length in the entry's content in
//! bytes, and milliseconds since the container was prepared. Byte ranges, not spans: spans follow from them, and other
//! artifacts that hold the bytes themselves could be made of them. No byte is in it twice. Whether the kernel asked for
//! more than the container did is not known: a read request of FUSE does not say whether it is read-ahead.
//!
//! `reads` are the container's own. `unattributed` are those of which that is not known, or which were made to prepare the
//! container; they are good for the node itself, and never published. Recordings made before callers were told apart have no
//! such field, and their `reads` may be anybody's.

use std::ops::Range;

use registry::Digest;
use serde::{Deserialize, Serialize};
use ztoc::Ztoc;

use crate::oci::DocumentError;
use crate::text::excerpt_to;

/// The version that is written, and the only one there is.
const VERSION: u32 = 1;

/// Reads that a recording may have. A start that makes more has its beginning recorded, which is what is waited for.
pub const MAX_READS: usize = 1 << 16;

/// Layers that a recording may have, more than any image.
pub const MAX_LAYERS: usize = 1024;

/// Largest recording that is accepted, in bytes: as many layers and reads as there may be, with numbers of usual length.
pub const MAX_RECORDING_SIZE: u64 = 4 << 20;

/// Longest image name that is kept, in characters.
const MAX_NAME: usize = 512;

const WHAT: &str = "recording";

/// What was recorded of the start of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The name that the image was pulled by.
    pub image: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Digest of the SOCI index that was in use.
    pub index: Digest,
    /// When it was taken, in seconds since 1970.
    pub taken: u64,
    /// Whether nothing had been read of the image before: what is in the kernel's page cache is not asked for, so that a
    /// recording of another start may lack something.
    pub cold: bool,
    /// Reads that had to wait for the registry.
    pub waited: u64,
    /// The layers that are read lazily, bottom first.
    pub layers: Vec<RecordedLayer>,
    /// What the container read, in order.
    pub reads: Vec<RecordedRead>,
    /// What was read, in order, by whom is not known, or to prepare the container. `None` if the recording does not tell callers
    /// apart.
    pub unattributed: Option<Vec<RecordedRead>>,
}

/// A layer of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedLayer {
    /// Digest of the compressed layer.
    pub layer: Digest,
    /// Digest of the zTOC that it was read with.
    pub ztoc: Digest,
}

/// A part of a file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u64, u64, u64)", into = "(u32, u32, u64, u64, u64)")]
pub struct RecordedRead {
    /// Place of the layer among the recording's.
    pub layer: u32,
    /// Index of the entry in the zTOC.
    pub entry: u32,
    /// Which bytes of its content; never empty.
    pub range: Range<u64>,
    /// Milliseconds since the container was prepared.
    pub milliseconds: u64,
}

impl From<(u32, u32, u64, u64, u64)> for RecordedRead {
    fn from((layer, entry, offset, length, milliseconds): (u32, u32, u64, u64, u64)) -> Self {
        Self { layer, entry, range: offset..offset.saturating_add(length), milliseconds }
    }
}

impl From<RecordedRead> for (u32, u32, u64, u64, u64) {
    fn from(read: RecordedRead) -> Self {
        let length = read.range.end.saturating_sub(read.range.start);
        (read.layer, read.entry, read.range.start, length, read.milliseconds)
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    image: String,
    manifest: Digest,
    index: Digest,
    taken: u64,
    cold: bool,
    waited: u64,
    layers: Vec<RecordedLayer>,
    reads: Vec<RecordedRead>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unattributed: Option<Vec<RecordedRead>>,
}

impl Recording {
    /// Reads a recording. The file may be anybody's by now, so all of it is checked that can be without the zTOCs; whether
    /// an entry exists is for [`Recording::spans`].
    ///
    /// # Errors
    /// When it is larger than [`MAX_RECORDING_SIZE`], not JSON, of another version, or says what cannot be.
    pub fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        let size = json.len() as u64;
        if size > MAX_RECORDING_SIZE {
            return Err(DocumentError::TooLarge { what: WHAT, size, limit: MAX_RECORDING_SIZE });
        }
        let document: Document =
            serde_json::from_slice(json).map_err(|source| DocumentError::Malformed { what: WHAT, source })?;
        let refuse = |reason: String| Err(DocumentError::Unexpected(format!("recording: {reason}")));
        if document.version != VERSION {
            return refuse(format!("version {} is not supported (expected {VERSION})", document.version));
        }
        let (layers, reads, unattributed) = (document.layers, document.reads, document.unattributed);
        let all = reads.iter().chain(unattributed.iter().flatten());
        let count = all.clone().count();
        if layers.len() > MAX_LAYERS || count > MAX_READS {
            return refuse(format!("{} layers and {count} reads are too many", layers.len()));
        }
        let impossible = |read: &&RecordedRead| {
            read.layer as usize >= layers.len() || read.range.is_empty() || read.range.end > i64::MAX as u64
        };
        if let Some(read) = all.clone().find(impossible) {
            return refuse(format!(
                "bytes {} to {} of entry {} of layer {} cannot have been read",
                read.range.start, read.range.end, read.entry, read.layer
            ));
        }
        Ok(Self {
            image: excerpt_to(&document.image, MAX_NAME),
            manifest: document.manifest,
            index: document.index,
            taken: document.taken,
            cold: document.cold,
            waited: document.waited,
            layers,
            reads,
            unattributed,
        })
    }

    /// The recording as it is stored.
    ///
    /// # Errors
    /// Only if it is larger than [`MAX_RECORDING_SIZE`], which takes more reads than [`MAX_READS`].
    pub fn encode(&self) -> Result<Vec<u8>, DocumentError> {
        let document = Document {
            version: VERSION,
            image: excerpt_to(&self.image, MAX_NAME),
            manifest: self.manifest.clone(),
            index: self.index.clone(),
            taken: self.taken,
            cold: self.cold,
            waited: self.waited,
            layers: self.layers.clone(),
            reads: self.reads.clone(),
            unattributed: self.unattributed.clone(),
        };
        let json = serde_json::to_vec(&document)
            .map_err(|source| DocumentError::Malformed { what: WHAT, source })?;
        match json.len() as u64 {
            size if size > MAX_RECORDING_SIZE => {
                Err(DocumentError::TooLarge { what: WHAT, size, limit: MAX_RECORDING_SIZE })
            }
            _ => Ok(json),
        }
    }

    /// All that was read, whoever did it, in order.
    pub fn all(&self) -> Vec<&RecordedRead> {
        let mut all: Vec<_> = self.unattributed.iter().flatten().chain(&self.reads).collect();
        all.sort_by_key(|read| read.milliseconds);
        all
    }

    /// Bytes that were read, whoever did it.
    pub fn bytes(&self) -> u64 {
        let lengths = self.all().into_iter().map(|read| read.range.end.saturating_sub(read.range.start));
        lengths.fold(0, u64::saturating_add)
    }

    /// The spans of a layer that the container's own reads lie in: for each read of the layer its place among all reads and the spans.
    /// What the zTOC does not have is left out.
    pub fn spans(&self, layer: &Digest, ztoc: &Ztoc) -> Vec<(usize, Range<usize>)> {
        let of_layer = |read: &RecordedRead| {
            self.layers.get(read.layer as usize).is_some_and(|recorded| recorded.layer == *layer)
        };
        let reads = self.reads.iter().enumerate().filter(|(_, read)| of_layer(read));
        reads
            .filter_map(|(at, read)| {
                let entry = ztoc.entry(read.entry as usize)?;
                let inside = |position: u64| entry.offset.saturating_add(position.min(entry.size));
                let spans = ztoc.spans().spans_of(&(inside(read.range.start)..inside(read.range.end)));
                (!spans.is_empty()).then_some((at, spans))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        Recording {
            image: "r.example/app:v1".into(),
            manifest: Digest::of(b"manifest"),
            index: Digest::of(b"index"),
            taken: 1_767_225_600,
            cold: true,
            waited: 3,
            layers: vec![RecordedLayer { layer: Digest::of(b"layer"), ztoc: Digest::of(b"ztoc") }],
            reads: vec![
                RecordedRead { layer: 0, entry: 7, range: 0..4096, milliseconds: 1 },
                RecordedRead { layer: 0, entry: 2, range: 10..11, milliseconds: 120_000 },
            ],
            unattributed: None,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let json = recording().encode().unwrap();
        assert_eq!(Recording::parse(&json).unwrap(), recording());
        let text = String::from_utf8(json).unwrap();
        assert!(text.ends_with(r#""reads":[[0,7,0,4096,1],[0,2,10,1,120000]]}"#), "{text}");
        assert_eq!(recording().bytes(), 4097);
    }

    /// Those who know no such field read, and publish, the container's own.
    #[test]
    fn what_is_nobodys_is_in_a_field_of_its_own() {
        let other = RecordedRead { layer: 0, entry: 3, range: 0..10, milliseconds: 5 };
        let told = Recording { unattributed: Some(vec![other.clone()]), ..recording() };
        let json = told.encode().unwrap();
        assert_eq!(Recording::parse(&json).unwrap(), told);
        let text = String::from_utf8(json).unwrap();
        assert!(text.ends_with(r#"[0,2,10,1,120000]],"unattributed":[[0,3,0,10,5]]}"#), "{text}");
        assert_eq!(told.bytes(), 4107);
        assert_eq!(told.all(), [&told.reads[0], &other, &told.reads[1]]);
        assert!(Recording::parse(text.replace("[0,3,", "[1,3,").as_bytes()).is_err());
    }

    #[test]
    fn hostile_recordings_are_refused() {
        let json = String::from_utf8(recording().encode().unwrap()).unwrap();
        let with = |from: &str, to: &str| {
            assert!(json.contains(from));
            json.replace(from, to)
        };
        for (json, message) in [
            (with(r#""version":1"#, r#""version":2"#), "version 2"),
            (with("[0,7,0,4096,1]", "[1,7,0,4096,1]"), "cannot have been read"),
            (with("[0,7,0,4096,1]", "[0,7,0,0,1]"), "cannot have been read"),
            (with("[0,7,0,4096,1]", "[0,7,1,18446744073709551615,1]"), "cannot have been read"),
            (with("[0,7,0,4096,1]", "[0,7,9223372036854775807,1,1]"), "cannot have been read"),
            (with("[0,7,0,4096,1]", "[0,-7,0,4096,1]"), "malformed"),
            (with("[0,7,0,4096,1]", "[0,4294967296,0,4096,1]"), "malformed"),
            (with("[0,7,0,4096,1]", "[0,7,0,4096]"), "malformed"),
            (with("[0,7,0,4096,1]", &["[0,7,0,1,1]"; MAX_READS].join(",")), "too many"),
            (with(r#""index":"sha256:"#, r#""index":"sha256:x"#), "malformed"),
            ("[]".into(), "malformed"),
            (String::new(), "malformed"),
            (" ".repeat(MAX_RECORDING_SIZE as usize + 1), "more than"),
        ] {
            let error = Recording::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{error} does not mention {message}");
        }
        // What may be shown on a terminal.
        let parsed = Recording::parse(with("r.example", r"\u001b[2J").as_bytes()).unwrap();
        assert!(!parsed.image.contains('\x1b'), "{}", parsed.image);
    }

    #[test]
    fn the_largest_recording_is_small_enough() {
        let mut large = recording();
        let read = RecordedRead {
            layer: 0,
            entry: 4_000_000,
            range: 1 << 33..(1 << 33) + 131_072,
            milliseconds: 120_000,
        };
        large.reads = vec![read; MAX_READS];
        let json = large.encode().unwrap();
        assert_eq!(Recording::parse(&json).unwrap(), large);
    }
}
