//! What fuzz targets need beside the public interface. It exists only under `--cfg fuzzing`; see `ztoc/fuzz`.

use bytes::Bytes;

use crate::write::{Contents, serialise};
use crate::{Compression, Entry, Sha256Digest};

/// The parts of a zTOC, which need not fit together.
#[derive(Debug)]
pub struct Parts<'a> {
    /// How the layer is compressed.
    pub compression: Compression,
    /// Size of the layer.
    pub compressed_size: u64,
    /// Size of the archive.
    pub uncompressed_size: u64,
    /// The table of contents.
    pub entries: &'a [Entry],
    /// The checkpoints, as bytes.
    pub zinfo: &'a [u8],
    /// Number of span digests.
    pub spans: usize,
}

impl Parts<'_> {
    /// The zTOC with these parts; `None` if it would not fit into a FlatBuffer.
    #[must_use]
    pub fn serialise(&self) -> Option<Bytes> {
        let digests = vec![Sha256Digest::of(b""); self.spans];
        let contents = Contents {
            build_tool_identifier: "",
            compressed_size: self.compressed_size,
            uncompressed_size: self.uncompressed_size,
            entries: self.entries,
            compression: self.compression,
            zinfo: self.zinfo,
            span_digests: &digests,
        };
        serialise(&contents).ok()
    }
}
