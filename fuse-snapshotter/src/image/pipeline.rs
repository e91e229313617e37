//! The uncompressed bytes of a layer, fetched and inflated by others ahead of whoever reads them.
//!
//! Unpacking writes on one thread, and is limited by that thread if it has to wait for the network, to inflate and to
//! hash as well. So several ranges of the layer are under way at a time, one thread hashes, and inflating happens
//! elsewhere: on one thread for a stream that can only be read from its start, on as many as there are if a zTOC says
//! where it can be entered. What the zTOC says is not believed: the caller compares the digest of all that was read
//! with the layer's `diff_id`.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use registry::{BlobReader, ByteStream};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::io::{StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use ztoc::{SpanDecoder, Ztoc};

use super::unpack::{self, LayerFormat};

/// Bytes of the layer in one request, where spans do not say otherwise.
const RANGE: u64 = 4 << 20;

/// The same at the layer's start: of a few megabytes each connection carries a part, for all begin slowly.
const FIRST_RANGE: u64 = 1 << 20;

/// Ranges grow to so much of what is in front of them.
const GROWTH: u64 = 8;

/// Requests, or inflated pieces, that wait for their turn. This and the sizes below bound the memory of a layer in
/// work: about 70 MiB, and 200 MiB at worst.
const AHEAD: usize = 6;

/// Uncompressed bytes that one piece of work makes, if the spans are no larger.
const PIECE: u64 = 8 << 20;

/// Most bytes of a span, compressed or not. With larger spans a layer is read as a stream.
const MAX_SPAN: u64 = 16 << 20;

/// All layers share the processors.
static PROCESSORS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Bytes that are inflated at a time from a stream.
const CHUNK: usize = 256 << 10;

/// Inflated chunks of a stream that wait for their reader.
const CHUNKS_AHEAD: usize = 16;

/// Pieces that wait to be hashed: as few as possible, since they may be large.
const UNHASHED: usize = 2;

/// The bytes, in order; an empty piece is the end. Made within a runtime, read outside of it.
pub(super) struct Uncompressed {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    ended: bool,
    hashing: mpsc::Sender<Bytes>,
    digest: oneshot::Receiver<String>,
}

impl Uncompressed {
    fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        let (hashing, mut unhashed) = mpsc::channel::<Bytes>(UNHASHED);
        let (sender, digest) = oneshot::channel();
        // It ends with its sender.
        tokio::task::spawn_blocking(move || {
            let mut hasher = Sha256::new();
            while let Some(piece) = unhashed.blocking_recv() {
                hasher.update(&piece);
            }
            // Whoever has given up does not want to know.
            let _ = sender.send(hex::encode(hasher.finalize()));
        });
        Self { pieces, current: Bytes::new(), ended: false, hashing, digest }
    }
}

impl BufRead for Uncompressed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.current.has_remaining() && !self.ended {
            // Whoever makes them goes away without an end when nobody wants them any more.
            let piece = self.pieces.blocking_recv();
            self.current = piece.unwrap_or_else(|| Err(io::Error::other("unpacking was given up")))?;
            self.ended = self.current.is_empty();
            if !self.ended {
                self.hashing.blocking_send(self.current.clone()).map_err(io::Error::other)?;
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, length: usize) {
        self.current.advance(length.min(self.current.len()));
    }
}

impl Read for Uncompressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl unpack::Digested for Uncompressed {
    /// Of all pieces that were shown, whether or not they were taken to their end.
    fn digest(self) -> io::Result<String> {
        drop(self.hashing);
        self.digest.blocking_recv().map_err(io::Error::other)
    }
}

/// A layer as a stream, of which several ranges are fetched at a time.
pub(super) fn ranges(reader: Arc<dyn BlobReader>) -> ByteStream {
    let size = reader.size();
    let fetches = parts(size).map(move |range| {
        let reader = Arc::clone(&reader);
        // Holds no more than the range.
        let (sender, mut pieces) = mpsc::unbounded_channel();
        // A task of its own: a range goes on arriving while nobody looks.
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let pieces = async { reader.read_range(range).await };
            let mut pieces = std::pin::pin!(pieces.try_flatten_stream());
            while let Some(piece) = pieces.next().await {
                if sender.send(piece).is_err() {
                    return;
                }
            }
        }));
        futures::stream::poll_fn(move |context| {
            let _held = &task;
            pieces.poll_recv(context)
        })
    });
    // Those that are ahead have begun, and give their pieces when it is their turn.
    futures::stream::iter(fetches).map(std::future::ready).buffered(AHEAD).flatten().boxed()
}

/// The ranges in which a layer of some size is fetched. What is short is one, which is no range for a server that knows
/// none.
fn parts(size: u64) -> impl Iterator<Item = Range<u64>> {
    let length =
        move |start: u64| if size <= RANGE { RANGE } else { (start / GROWTH).clamp(FIRST_RANGE, RANGE) };
    let starts = std::iter::successors(Some(0), move |start| Some(start + length(*start)));
    let starts = starts.take_while(move |start| *start < size);
    starts.map(move |start| start..(start + length(start)).min(size))
}

async fn fetch(reader: &dyn BlobReader, range: Range<u64>) -> Result<Bytes, registry::Error> {
    let length = range.end.saturating_sub(range.start).min(MAX_SPAN);
    let mut bytes = BytesMut::with_capacity(length as usize);
    let mut stream = reader.read_range(range).await?;
    while let Some(piece) = stream.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// A layer that is inflated from its start, beside its reader.
pub(super) fn inflate_stream(
    stream: ByteStream,
    format: Option<LayerFormat>,
    stop: CancellationToken,
) -> Uncompressed {
    let (sender, pieces) = mpsc::channel(CHUNKS_AHEAD);
    let stream = Box::pin(stream.map_err(io::Error::other).take_until(stop.cancelled_owned()));
    let input = SyncIoBridge::new(StreamReader::new(stream));
    // It ends with its reader: the next piece finds nobody to take it.
    tokio::task::spawn_blocking(move || {
        let inflated = unpack::decompressed(input, format).map_err(io::Error::other);
        let mut input = match inflated {
            Ok(input) => input,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        loop {
            let mut chunk = vec![0; CHUNK];
            let mut filled = 0;
            let ended = loop {
                match input.read(&mut chunk[filled..]) {
                    Ok(0) => break Ok(filled < CHUNK),
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                }
            };
            chunk.truncate(filled);
            if filled > 0 && sender.blocking_send(Ok(chunk.into())).is_err() {
                return;
            }
            match ended {
                Ok(false) => {}
                Ok(true) => return drop(sender.blocking_send(Ok(Bytes::new()))),
                Err(error) => return drop(sender.blocking_send(Err(error))),
            }
        }
    });
    Uncompressed::new(pieces)
}

/// A layer that is inflated from all of its checkpoints at once, as far as there are processors. `None` if its spans
/// are too large for that, or it has none.
pub(super) fn inflate_spans(
    reader: Arc<dyn BlobReader>,
    ztoc: Arc<Ztoc>,
    stop: CancellationToken,
) -> Option<Uncompressed> {
    let runs = runs(&ztoc).filter(|_| ztoc.compressed_size() == reader.size())?;
    let (sender, pieces) = mpsc::channel(1);
    let work = async move {
        let mut waiting = runs.into_iter();
        let mut ahead = VecDeque::new();
        loop {
            for run in waiting.by_ref().take(AHEAD - ahead.len()) {
                let work = inflate_run(Arc::clone(&reader), Arc::clone(&ztoc), run);
                ahead.push_back(AbortOnDropHandle::new(tokio::spawn(work)));
            }
            let Some(next) = ahead.pop_front() else { break };
            match next.await.map_err(io::Error::other).and_then(|inflated| inflated) {
                // Nothing of an archive may be in a run; an empty piece would be the end.
                Ok(piece) if piece.is_empty() => {}
                piece => {
                    let failed = piece.is_err();
                    if sender.send(piece).await.is_err() || failed {
                        return;
                    }
                }
            }
        }
        let _ = sender.send(Ok(Bytes::new())).await;
    };
    tokio::spawn(async move { stop.run_until_cancelled(work).await });
    Some(Uncompressed::new(pieces))
}

/// Divides the spans into pieces of work.
fn runs(ztoc: &Ztoc) -> Option<Vec<Range<usize>>> {
    let spans = ztoc.spans();
    let mut runs: Vec<Range<usize>> = Vec::new();
    for span in 0..spans.len() {
        let (made, taken) = (spans.uncompressed(span), spans.compressed(span));
        let within = |from: usize, limit: u64| {
            made.end.saturating_sub(spans.uncompressed(from).start) <= limit
                && taken.end.saturating_sub(spans.compressed(from).start) <= limit
        };
        if !within(span, MAX_SPAN) {
            return None;
        }
        match runs.last_mut() {
            Some(run) if within(run.start, PIECE) => run.end = span + 1,
            _ => runs.push(span..span + 1),
        }
    }
    (!runs.is_empty()).then_some(runs)
}

async fn inflate_run(reader: Arc<dyn BlobReader>, ztoc: Arc<Ztoc>, run: Range<usize>) -> io::Result<Bytes> {
    let spans = ztoc.spans();
    let range = spans.compressed(run.start).start..spans.compressed(run.end - 1).end;
    let input = fetch(&*reader, range.clone()).await.map_err(io::Error::other)?;
    let _processor = PROCESSORS.acquire().await.map_err(io::Error::other)?;
    let inflating = tokio::task::spawn_blocking(move || inflate(&ztoc, run, range.start, &input));
    inflating.await.map_err(io::Error::other)?
}

fn inflate(ztoc: &Ztoc, run: Range<usize>, start: u64, input: &[u8]) -> io::Result<Bytes> {
    let spans = ztoc.spans();
    let mut output = Vec::new();
    for span in run {
        let (from, made) = (spans.compressed(span), spans.uncompressed(span));
        let mut length = (made.end - made.start) as usize;
        // Padding behind the archive's end mark is in no span, and counts for the layer's digest.
        let last = span + 1 == spans.len();
        if last {
            length += MAX_SPAN as usize;
        }
        let mut rest = input
            .get((from.start - start) as usize..(from.end - start) as usize)
            .ok_or_else(|| io::Error::other("the layer is shorter than its spans"))?;
        let mut decoder =
            SpanDecoder::new(&ztoc.checkpoint(span), length as u64).map_err(io::Error::other)?;
        let first = output.len();
        while !decoder.is_complete() {
            let at = output.len();
            let room = (first + length - at).min(if last { CHUNK } else { length });
            output.resize(at + room, 0);
            let decoded = decoder.decode(&mut rest, &mut output[at..]);
            let made = match decoded {
                Ok(made) => made,
                // What follows the last member, such as zeros. If it was more than that, the digest will tell.
                Err(_) if last => 0,
                Err(error) => return Err(io::Error::other(error)),
            };
            output.truncate(at + made);
            if made == 0 {
                break;
            }
        }
        if !last && !decoder.is_complete() {
            return Err(io::Error::other(format!("{} bytes of span {span} are missing", decoder.missing())));
        }
    }
    Ok(output.into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use registry::{Digest, FileBlob};
    use testdata::golden;

    use super::*;

    fn blob(name: &str) -> Arc<dyn BlobReader> {
        let path = golden::layer_path(name);
        Arc::new(FileBlob::open(&path, Digest::of(&golden::layer(name))).unwrap())
    }

    fn read(mut uncompressed: Uncompressed) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        uncompressed.read_to_end(&mut bytes).map(|_| bytes)
    }

    fn build(layer: &[u8], gzip: bool, span_size: u64) -> Arc<Ztoc> {
        let compression = if gzip { ztoc::Compression::Gzip } else { ztoc::Compression::Uncompressed };
        let options = ztoc::BuildOptions { span_size, ..ztoc::BuildOptions::new(compression) };
        let mut builder = ztoc::Builder::new(options).unwrap();
        builder.push(Bytes::copy_from_slice(layer)).unwrap();
        Arc::new(Ztoc::parse(builder.finish().unwrap().bytes).unwrap())
    }

    /// All ways give the same bytes, those behind the archive's end included.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_way_inflates_the_whole_layer() {
        for name in golden::load().layers.keys() {
            let (layer, gzip) = (golden::layer(name), name.ends_with(".gz"));
            let format = if gzip { LayerFormat::Gzip } else { LayerFormat::Tar };
            let mut plain = Vec::new();
            unpack::decompressed(&layer[..], format).unwrap().read_to_end(&mut plain).unwrap();
            let stop = CancellationToken::new();
            let stream = inflate_stream(ranges(blob(name)), Some(format), stop.clone());
            let mut ways = vec![stream];
            for span_size in [1 << 16, 1 << 20] {
                ways.extend(inflate_spans(blob(name), build(&layer, gzip, span_size), stop.clone()));
            }
            for way in ways {
                let made = tokio::task::spawn_blocking(move || read(way).unwrap()).await.unwrap();
                assert!(made == plain, "{name}: {} bytes instead of {}", made.len(), plain.len());
            }
        }
    }

    #[test]
    fn ranges_follow_each_other_and_grow() {
        for (size, count) in [(0, 0), (1, 1), (RANGE, 1), (RANGE + 1, 5), (8 << 20, 8), ((40 << 20) + 1, 22)]
        {
            let parts: Vec<_> = parts(size).collect();
            assert_eq!(parts.len(), count, "{parts:?}");
            assert_eq!(
                parts.iter().fold(0, |at, part| if part.start == at { part.end } else { u64::MAX }),
                size
            );
            assert!(parts.iter().all(|part| part.end - part.start <= RANGE));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_stopped_ends_with_an_error() {
        let (name, stop) = ("multi-member.tar.gz", CancellationToken::new());
        stop.cancel();
        let stream = inflate_stream(ranges(blob(name)), Some(LayerFormat::Gzip), stop.clone());
        let spans = inflate_spans(blob(name), build(&golden::layer(name), true, 1 << 16), stop).unwrap();
        for way in [stream, spans] {
            let error = tokio::task::spawn_blocking(move || read(way).unwrap_err()).await.unwrap();
            assert_ne!(error.to_string(), "");
        }
    }

    /// The zTOC of another layer of the same size: an error, or other bytes, which the caller finds by their digest.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_false_ztoc_does_no_harm() {
        use testdata::image::{Compression, Entry, LayerBuilder};
        let layer = |byte: u8, names: [&str; 2]| {
            let mut builder = LayerBuilder::new(Compression::STORED);
            for name in names {
                builder.add(Entry::file(name, vec![byte; 200_000]));
            }
            builder.finish().bytes()
        };
        let (one, other) = (layer(1, ["a", "b"]), layer(2, ["c", "d"]));
        assert_eq!(one.len(), other.len());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &one).unwrap();
        let reader = Arc::new(FileBlob::open(file.path(), Digest::of(&one)).unwrap());
        let ztoc = build(&other, true, 1 << 16);
        let spans = inflate_spans(reader, ztoc, CancellationToken::new()).unwrap();
        let made = tokio::task::spawn_blocking(move || read(spans)).await.unwrap();
        let mut others = Vec::new();
        unpack::decompressed(&other[..], LayerFormat::Gzip).unwrap().read_to_end(&mut others).unwrap();
        // What the zTOC promises is not what there is.
        assert!(made.map_or(true, |made| made != others));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_ztoc_for_another_size_is_not_used() {
        let ztoc = build(&golden::layer("sync-flush.tar.gz"), true, 1 << 16);
        assert!(inflate_spans(blob("multi-member.tar.gz"), ztoc, CancellationToken::new()).is_none());
    }
}
