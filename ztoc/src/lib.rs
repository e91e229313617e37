//! The zTOC: a table of contents and a set of decompressor checkpoints for one image layer.
//!
//! A container image layer is a tar archive, usually gzip-compressed, and can normally only be read
//! from its start. A zTOC is built beside it, without changing it, and holds
//!
//! * the **TOC**: every tar entry with its metadata and the place of its data in the uncompressed tar
//!   ([`EntryRef`]);
//! * **checkpoints**: places in the compressed stream where inflating can begin, each with the 32 KiB
//!   window it needs ([`Checkpoint`]), or, in a Zstandard layer, starts of frames;
//! * **span digests**: the SHA-256 of the compressed bytes between neighbouring checkpoints. Such a
//!   run of bytes is called a *span* ([`Spans`]).
//!
//! With it any file is read by fetching the spans it lies in, verifying their digests and inflating
//! them ([`SpanDecoder`], [`Ztoc::extract`]).
//!
//! The format is the one that awslabs/soci-snapshotter writes (zTOC version 0.9, FlatBuffers), and for
//! the same layer, span size and tool identifier [`Builder`] produces the same bytes. zTOCs of Zstandard
//! layers are an extension of this project.
//!
//! This crate does no I/O: everything works on byte slices and chunks.
//!
//! ```
//! use ztoc::{BuildOptions, Builder, Compression, Ztoc};
//!
//! // An empty tar archive: two zero blocks.
//! let layer = bytes::Bytes::from(vec![0u8; 1024]);
//! let mut builder = Builder::new(BuildOptions::new(Compression::Uncompressed))?;
//! builder.push(layer)?;
//! let built = builder.finish()?;
//! let ztoc = Ztoc::parse(built.bytes)?;
//! assert_eq!((ztoc.len(), ztoc.uncompressed_size()), (0, 1024));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod build;
mod compression;
mod decode;
mod entry;
mod error;
mod flat;
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hash;
mod inflate;
mod read;
mod spans;
pub mod tar;
mod time;
mod verify;
mod write;
mod zinfo;
mod zstd_source;

pub use build::{BuildOptions, Builder, Built, DEFAULT_BUILD_TOOL, DEFAULT_SPAN_SIZE};
pub use compression::Compression;
pub use decode::SpanDecoder;
pub use entry::{Entry, EntryKind, EntryRef, PaxRecords};
pub use error::{BuildError, Error};
pub use hash::Sha256Digest;
pub use read::Ztoc;
pub use spans::{Checkpoint, Spans, WINDOW_SIZE};
pub use tar::TarWalker;
pub use time::Timestamp;
pub use verify::{fingerprint, header_fingerprint, verify_header};
pub use write::ZTOC_VERSION;
