//! One layer: whether it gets a zTOC, and building it in one streaming pass.

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use registry::{ByteStream, Descriptor, Digest};
use ztoc::{BuildError, Builder, Built, Compression};

use super::budget::{Crowded, OVERHEAD, Reservation};
use super::options::BuildOptions;
use crate::manifest::MAX_ZTOC_SIZE;
use crate::source::{Check, ImageSource, SourceError};

/// Chunks waiting for the builder: enough to even out a jittery network, and the whole of what a layer holds in memory
/// beside its zTOC.
const QUEUE: usize = 4;
/// Pieces from a network are gathered to this size, so that the builder is not woken for every packet.
const CHUNK: usize = 256 << 10;

/// What a builder needs at most for a zTOC that is not too large: the parts, and the whole that is made of them.
const MAX_MEMORY: u64 = 3 * MAX_ZTOC_SIZE;

/// What a media type says about a layer, by the reference's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Uncompressed,
    /// Docker's `….tar`, which some tools give to compressed layers.
    Unknown,
    Zstd,
    /// Encrypted, or of a kind that nobody has heard of.
    Other,
}

impl Format {
    /// The format of a layer with this media type; `None` if it is not a layer's. The rules are containerd's.
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        const DOCKER: &str = "application/vnd.docker.image.rootfs.";
        let (base, suffixes) = match media_type.split_once('+') {
            Some((base, suffixes)) => (base, suffixes.split('+').collect()),
            None => (media_type, Vec::new()),
        };
        if let Some(kind) = base.strip_prefix(DOCKER) {
            let kind = kind.strip_prefix("foreign.").unwrap_or(kind);
            return match (kind, suffixes.is_empty()) {
                ("diff.tar", true) => Some(Self::Unknown),
                ("diff.tar.gzip", true) => Some(Self::Gzip),
                ("diff.tar.zstd", true) => Some(Self::Zstd),
                ("diff.tar" | "diff.tar.gzip" | "diff.tar.zstd", false) => Some(Self::Other),
                _ => None,
            };
        }
        let kind = base.strip_prefix("application/vnd.oci.image.layer.")?;
        Some(match (kind, &suffixes[..]) {
            ("v1.tar" | "nondistributable.v1.tar", ["gzip"]) => Self::Gzip,
            ("v1.tar" | "nondistributable.v1.tar", ["zstd"]) => Self::Zstd,
            ("v1.tar", []) => Self::Uncompressed,
            _ => Self::Other,
        })
    }

    /// The name in the reference's messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Uncompressed => "uncompressed",
            Self::Unknown => "unknown",
            Self::Zstd => "zstd",
            Self::Other => "",
        }
    }
}

/// How building a zTOC ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The zTOC, how the layer is compressed, and the memory that the zTOC stands in.
    Built(Built, Compression, Reservation),
    /// Other layers leave too little memory; it needed so many bytes when it gave up.
    Crowded(u64),
    /// The layer cannot be indexed, for this reason.
    Refused(BuildError),
}

/// Why a builder stopped.
#[derive(Debug)]
enum Stopped {
    Build(BuildError),
    Crowded(Crowded),
}

impl From<BuildError> for Stopped {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

/// How many bytes of memory a layer will need, by experience: layers are two to four times as large uncompressed, and
/// have a file in every 30 KiB or so.
pub(crate) fn estimate(layer: &Descriptor, format: Format, options: &BuildOptions) -> u64 {
    const USUAL_RATIO: u64 = 3;
    let (uncompressed, checkpoint) = match format {
        Format::Uncompressed => (layer.size, 0),
        _ => (layer.size.saturating_mul(USUAL_RATIO), 3 * ztoc::WINDOW_SIZE as u64),
    };
    let checkpoints = (uncompressed / options.span_size.max(1)).saturating_add(1).saturating_mul(checkpoint);
    OVERHEAD.saturating_add(uncompressed / 32).saturating_add(checkpoints)
}

/// Streams a layer through a builder, which reserves more of `memory` as it needs it.
///
/// An error is the source's; what is wrong with the layer itself is [`Outcome::Refused`]. To tell the two apart, a layer
/// that the builder finds damaged is compared with its digest before it gets the blame.
pub(crate) async fn build(
    source: &dyn ImageSource,
    layer: &Descriptor,
    format: Format,
    options: &BuildOptions,
    memory: Reservation,
    advanced: impl Fn(u64) + Send,
) -> Result<Outcome, BuildLayerError> {
    let mut stream = gather(source.open_blob(layer, Check::ByCaller).await?);
    // The first chunk shows whether a layer of unknown format is compressed after all.
    let mut next = stream.try_next().await?;
    let compression = match format {
        Format::Gzip => Compression::Gzip,
        Format::Zstd => Compression::Zstd,
        Format::Unknown => Compression::sniff(next.as_deref().unwrap_or_default()),
        Format::Uncompressed | Format::Other => Compression::Uncompressed,
    };
    let mut builder_options = ztoc::BuildOptions::new(compression);
    builder_options.span_size = options.span_size;
    builder_options.build_tool_identifier.clone_from(&options.tool);

    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(QUEUE);
    let builder = tokio::task::spawn_blocking(move || build_from(receiver, builder_options, memory));
    let mut size = 0;
    let mut failed = None;
    while let Some(chunk) = next {
        size += chunk.len() as u64;
        advanced(chunk.len() as u64);
        if sender.send(chunk).await.is_err() {
            // The builder has given up, and says why when it is joined.
            break;
        }
        next = match stream.try_next().await {
            Ok(next) => next,
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
    }
    drop(sender);
    let result = builder.await.map_err(|error| BuildLayerError::Internal(error.to_string()))?;
    if let Some(error) = failed {
        return Err(SourceError::from(error).into());
    }
    match result {
        Ok((built, memory)) => {
            check(source, layer, &built, size)?;
            Ok(Outcome::Built(built, compression, memory))
        }
        Err(Stopped::Crowded(crowded)) => Ok(Outcome::Crowded(crowded.needed)),
        Err(Stopped::Build(BuildError::Internal(reason))) => Err(BuildLayerError::Internal(reason.into())),
        Err(Stopped::Build(error @ BuildError::SpanSize(_))) => {
            Err(BuildLayerError::Internal(error.to_string()))
        }
        Err(Stopped::Build(error)) => {
            if may_be_damage(&error) {
                if !source.always_checks() {
                    stream = source.open_blob(layer, Check::BySource).await?;
                }
                while stream.try_next().await?.is_some() {}
            }
            Ok(Outcome::Refused(error))
        }
    }
}

/// Builds a zTOC of the chunks that arrive. It runs on a thread that may wait.
fn build_from(
    mut chunks: tokio::sync::mpsc::Receiver<Bytes>,
    options: ztoc::BuildOptions,
    mut memory: Reservation,
) -> Result<(Built, Reservation), Stopped> {
    let mut builder = Builder::new(options)?;
    while let Some(chunk) = chunks.blocking_recv() {
        builder.push(chunk)?;
        let needed = builder.memory();
        if needed > MAX_MEMORY {
            return Err(BuildError::TocTooLarge { limit: MAX_ZTOC_SIZE }.into());
        }
        memory.grow_blocking(OVERHEAD + needed).map_err(Stopped::Crowded)?;
    }
    let built = builder.finish()?;
    memory.shrink(built.bytes.len() as u64);
    Ok((built, memory))
}

/// Whether a layer fails like this if its bytes are damaged. All other faults are properties of an undamaged layer.
fn may_be_damage(error: &BuildError) -> bool {
    !matches!(
        error,
        BuildError::UnsupportedEntry { .. }
            | BuildError::Sparse { .. }
            | BuildError::SingleFrame { .. }
            | BuildError::TocTooLarge { .. }
    )
}

/// Why a layer's zTOC could not be built, other than through the layer's own fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildLayerError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{0}")]
    Internal(String),
}

impl From<registry::Error> for BuildLayerError {
    fn from(error: registry::Error) -> Self {
        Self::Source(error.into())
    }
}

/// The builder hashes the layer anyway; compares what it found with the descriptor.
fn check(source: &dyn ImageSource, layer: &Descriptor, built: &Built, size: u64) -> Result<(), SourceError> {
    let actual = Digest::from_sha256(&built.blob_digest.0);
    let problem = if built.blob_size != layer.size || size != layer.size {
        format!("should have {} bytes and has {size}", layer.size)
    } else if actual != layer.digest {
        format!("has content with digest {actual}")
    } else {
        return Ok(());
    };
    Err(SourceError::Corrupt { name: source.name(), expected: layer.digest.clone(), problem })
}

/// Joins small pieces to chunks of at least [`CHUNK`] bytes; large pieces pass as they are.
fn gather(pieces: ByteStream) -> ByteStream {
    futures::stream::try_unfold((pieces, false), |(mut pieces, ended)| async move {
        if ended {
            return Ok(None);
        }
        let mut chunk = BytesMut::new();
        while let Some(piece) = pieces.try_next().await? {
            if chunk.is_empty() && piece.len() >= CHUNK {
                return Ok(Some((piece, (pieces, false))));
            }
            if chunk.is_empty() {
                // The last piece overshoots; packets are smaller than this.
                chunk.reserve(CHUNK + CHUNK / 4);
            }
            chunk.extend_from_slice(&piece);
            if chunk.len() >= CHUNK {
                return Ok(Some((chunk.freeze(), (pieces, false))));
            }
        }
        Ok((!chunk.is_empty()).then(|| (chunk.freeze(), (pieces, true))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_media_type() {
        for (media_type, expected) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Format::Uncompressed)),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Some(Format::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Some(Format::Zstd)),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", Some(Format::Other)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar", Some(Format::Other)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Format::Gzip)),
            ("application/vnd.oci.image.layer.v1.erofs", Some(Format::Other)),
            ("application/vnd.docker.image.rootfs.diff.tar", Some(Format::Unknown)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Format::Gzip)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Format::Gzip)),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(Format::Zstd)),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted", Some(Format::Other)),
            ("application/octet-stream", None),
            ("application/vnd.in-toto+json", None),
            ("", None),
        ] {
            assert_eq!(Format::of(media_type), expected, "{media_type}");
        }
    }

    #[tokio::test]
    async fn small_pieces_become_chunks() {
        let pieces =
            (0..1000).map(|_| Ok(Bytes::from_static(&[1; 1000]))).chain([Ok(Bytes::from(vec![2; CHUNK]))]);
        let chunks: Vec<Bytes> = gather(futures::stream::iter(pieces).boxed()).try_collect().await.unwrap();
        assert_eq!(chunks.iter().map(Bytes::len).sum::<usize>(), 1_000_000 + CHUNK);
        let (last, full) = chunks.split_last().unwrap();
        assert!(full.iter().all(|chunk| chunk.len() >= CHUNK && chunk.len() < 2 * CHUNK));
        assert!(!last.is_empty());
    }
}
