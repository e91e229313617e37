//! Reading one file out of a layer through its zTOC.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;

use bytes::BytesMut;
use futures::TryStreamExt;
use registry::BlobReader;
use ztoc::{EntryKind, SpanDecoder, Ztoc};

/// Links followed before giving up, as in Linux.
const MAX_LINKS: usize = 40;

/// Largest span that is read, in compressed bytes. A span is at least one deflate block, which may inflate a lot but
/// not shrink: a span that is far larger than its span size comes from a lying zTOC or an absurd span size.
const MAX_SPAN: u64 = 1 << 30;

/// Room for decoded bytes, in bytes.
const BUFFER: usize = 64 * 1024;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The zTOC has no entry with this name.
    #[error("the zTOC has no file {0:?}")]
    NotFound(String),
    /// More links than anybody would make on purpose.
    #[error("{0:?}: more than {MAX_LINKS} links, or a link that leads to itself")]
    TooManyLinks(String),
    /// The entry has no content.
    #[error("{0:?} is a {1}, not a regular file")]
    NotAFile(String, &'static str),
    /// The zTOC and the layer do not fit together.
    #[error("the layer does not match its zTOC: {0}")]
    Ztoc(#[from] ztoc::Error),
    /// The layer has another size than the zTOC says.
    #[error("the layer has {actual} bytes, its zTOC is for one of {expected}")]
    LayerSize {
        /// Size in the zTOC.
        expected: u64,
        /// Size of the layer.
        actual: u64,
    },
    /// A span is too large to be held in memory.
    #[error("span {0} of the zTOC has {1} bytes, more than the {MAX_SPAN} allowed")]
    SpanSize(usize, u64),
    /// The layer could not be read.
    #[error(transparent)]
    Layer(#[from] registry::Error),
    /// The output could not be written.
    #[error("cannot write the file: {0}")]
    Write(#[from] std::io::Error),
}

/// Finds a regular file and returns where its content is in the uncompressed layer.
///
/// Names match with or without `/`, `./` in front. Of several entries with one name the last counts, as when a layer is
/// unpacked. Hard links and symbolic links within the layer are followed.
///
/// # Errors
/// When there is no such file in this layer, or links go round in circles.
pub fn find_file(ztoc: &Ztoc, name: &[u8]) -> Result<Range<u64>, ExtractError> {
    let entries: HashMap<Vec<u8>, usize> =
        (0..ztoc.len()).filter_map(|at| Some((clean(ztoc.entry(at)?.name), at))).collect();
    let show = |name: &[u8]| crate::text::excerpt(&String::from_utf8_lossy(name));
    let mut current = clean(name);
    for _ in 0..=MAX_LINKS {
        let entry = entries
            .get(&current)
            .and_then(|&at| ztoc.entry(at))
            .ok_or_else(|| ExtractError::NotFound(show(&current)))?;
        current = match entry.kind {
            EntryKind::Regular => return Ok(entry.offset..entry.offset.saturating_add(entry.size)),
            EntryKind::Hardlink => clean(entry.link_name),
            EntryKind::Symlink if entry.link_name.starts_with(b"/") => clean(entry.link_name),
            EntryKind::Symlink => {
                let parent = current.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
                clean(&[&current[..parent], entry.link_name].concat())
            }
            other => return Err(ExtractError::NotAFile(show(&current), other.as_str())),
        };
    }
    Err(ExtractError::TooManyLinks(show(name)))
}

/// Writes `range` of the uncompressed layer to `output`, span by span. Each span is verified before any of it is used.
///
/// # Errors
/// When the layer cannot be read, does not match the zTOC, or writing fails.
pub async fn copy(
    ztoc: &Ztoc,
    range: Range<u64>,
    layer: &dyn BlobReader,
    output: &mut (dyn Write + Send),
) -> Result<(), ExtractError> {
    if layer.size() != ztoc.compressed_size() {
        return Err(ExtractError::LayerSize { expected: ztoc.compressed_size(), actual: layer.size() });
    }
    if range.end > ztoc.uncompressed_size() {
        let size = ztoc.uncompressed_size();
        return Err(ztoc::Error::OutOfRange { start: range.start, end: range.end, size }.into());
    }
    if range.is_empty() {
        return Ok(());
    }
    let spans = ztoc.spans();
    for span in spans.spans_of(&range) {
        let compressed = spans.compressed(span);
        let size = compressed.end - compressed.start;
        if size > MAX_SPAN {
            return Err(ExtractError::SpanSize(span, size));
        }
        let mut bytes = BytesMut::new();
        let mut stream = layer.read_range(compressed).await?;
        while let Some(piece) = stream.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        spans.verify(span, &bytes)?;
        let whole = spans.uncompressed(span);
        let wanted = range.start.max(whole.start)..range.end.min(whole.end);
        decode(ztoc, span, wanted, &bytes, output)?;
    }
    Ok(())
}

/// Writes a part of a span, which is verified. Piece by piece: a few bytes may stand for gigabytes.
fn decode(
    ztoc: &Ztoc,
    span: usize,
    wanted: Range<u64>,
    mut bytes: &[u8],
    output: &mut (dyn Write + Send),
) -> Result<(), ExtractError> {
    let start = ztoc.spans().uncompressed(span).start;
    let mut decoder = SpanDecoder::new(&ztoc.checkpoint(span), wanted.end - start)?;
    let mut buffer = vec![0; BUFFER];
    let mut skip = wanted.start - start;
    while !decoder.is_complete() {
        let made = decoder.decode(&mut bytes, &mut buffer)?;
        if made == 0 {
            return Err(ztoc::Error::Incomplete { missing: decoder.missing() }.into());
        }
        let skipped = usize::try_from(skip).map_or(made, |skip| skip.min(made));
        skip -= skipped as u64;
        output.write_all(&buffer[skipped..made])?;
    }
    Ok(())
}

/// The path in one form: no `/` or `./` in front or behind, `..` resolved within the layer.
pub(crate) fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        for (given, expected) in [
            ("etc/passwd", "etc/passwd"),
            ("./etc/passwd", "etc/passwd"),
            ("/etc//./passwd/", "etc/passwd"),
            ("a/../../b", "b"),
            ("", ""),
            ("/", ""),
        ] {
            assert_eq!(clean(given.as_bytes()), expected.as_bytes());
        }
    }
}
