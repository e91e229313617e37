//! A layer over a blob in memory that does as it is told.

use std::future::Future;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use registry::{BlobReader, ByteStream, Context, Digest};
use testdata::image::{Compression, Entry, LayerBuilder};
use tokio::sync::Semaphore;
use ztoc::{BuildOptions, Builder, Ztoc};

use crate::content::cache::CacheRoot;
use crate::content::error::FetchError;
use crate::content::spans::table::LayerTable;
use crate::content::{FetchContext, LazyLayer};

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It fails at once.
    Refused,
    /// It fails after so many bytes.
    Broken(usize),
    /// It ends after so many bytes, without a word; no reader should do that.
    Short(usize),
    /// Nothing more comes after so many bytes, and no end.
    Silent(usize),
    /// This byte of the blob has a bit flipped.
    Flipped(u64),
    /// The server wants to send the whole blob.
    RangeIgnored,
}

type Plan = Box<dyn Fn(usize, &Range<u64>) -> Option<Trouble> + Send + Sync>;

/// A blob in memory.
pub(crate) struct Fake {
    data: Bytes,
    digest: Digest,
    chunk: usize,
    plan: Mutex<Plan>,
    log: Mutex<Vec<Range<u64>>>,
    /// A permit lets a chunk pass.
    gate: Arc<Semaphore>,
    active: Arc<AtomicUsize>,
    /// Time to the first byte.
    delay: Mutex<Duration>,
    pub(crate) most_active: AtomicUsize,
}

fn context() -> Context {
    Context { operation: "read".into(), host: "fake".into(), repository: String::new() }
}

pub(crate) fn broken() -> registry::Error {
    registry::Error::Transport { context: context(), reason: "as told".into() }
}

struct Active(Arc<AtomicUsize>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    pub(crate) fn new(data: Bytes, chunk: usize) -> Arc<Self> {
        Arc::new(Self {
            digest: Digest::of(&data),
            data,
            chunk,
            plan: Mutex::new(Box::new(|_, _| None)),
            log: Mutex::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            active: Arc::default(),
            delay: Mutex::default(),
            most_active: AtomicUsize::new(0),
        })
    }

    /// From now on: what happens to the n-th request since the last [`Fake::clear`].
    pub(crate) fn plan(&self, plan: impl Fn(usize, &Range<u64>) -> Option<Trouble> + Send + Sync + 'static) {
        *self.plan.lock().unwrap() = Box::new(plan);
    }

    pub(crate) fn requests(&self) -> Vec<Range<u64>> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn clear(&self) {
        self.log.lock().unwrap().clear();
    }

    /// Lets no chunk pass but those that [`Fake::let_pass`] allows.
    pub(crate) fn close(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn let_pass(&self, chunks: usize) {
        self.gate.add_permits(chunks);
    }

    pub(crate) fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS - self.gate.available_permits());
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl BlobReader for Fake {
    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn digest(&self) -> &Digest {
        &self.digest
    }

    async fn read_range(&self, range: Range<u64>) -> registry::Result<ByteStream> {
        let number = {
            let mut log = self.log.lock().unwrap();
            log.push(range.clone());
            log.len() - 1
        };
        let trouble = self.plan.lock().unwrap()(number, &range);
        match trouble {
            Some(Trouble::Refused) => return Err(broken()),
            Some(Trouble::RangeIgnored) if range.start > 0 || range.end < self.size() => {
                return Err(registry::Error::RangeIgnored { context: context() });
            }
            _ => {}
        }
        let now = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_active.fetch_max(now, Ordering::SeqCst);
        let active = Active(Arc::clone(&self.active));
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut body = self.data.slice(range.start as usize..range.end as usize).to_vec();
        let mut end = Ok(());
        match trouble {
            Some(Trouble::Flipped(at)) if range.contains(&at) => body[(at - range.start) as usize] ^= 1,
            Some(Trouble::Short(length) | Trouble::Silent(length)) => body.truncate(length),
            Some(Trouble::Broken(length)) => {
                body.truncate(length);
                end = Err(broken());
            }
            _ => {}
        }
        let mut pieces: Vec<registry::Result<Bytes>> =
            body.chunks(self.chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        if let Err(error) = end {
            pieces.push(Err(error));
        }
        let gate = Arc::clone(&self.gate);
        let stream = futures::stream::unfold((pieces.into_iter(), active), move |(mut pieces, active)| {
            let gate = Arc::clone(&gate);
            async move {
                let Some(piece) = pieces.next() else {
                    if matches!(trouble, Some(Trouble::Silent(_))) {
                        std::future::pending::<()>().await;
                    }
                    return None;
                };
                gate.acquire().await.unwrap().forget();
                Some((piece, (pieces, active)))
            }
        });
        Ok(stream.boxed())
    }
}

/// A layer in the form that a registry has it in, its archive, and a zTOC.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) blob: Bytes,
    pub(crate) archive: Arc<Vec<u8>>,
    pub(crate) ztoc: Ztoc,
}

impl Image {
    pub(crate) fn of_blob(blob: Bytes, span_size: u64) -> Self {
        let compression = ztoc::Compression::sniff(&blob);
        let options = BuildOptions { span_size, ..BuildOptions::new(compression) };
        let mut builder = Builder::new(options).unwrap();
        builder.push(blob.clone()).unwrap();
        let mut archive = Vec::new();
        match compression {
            ztoc::Compression::Gzip => {
                let _ = flate2::read::MultiGzDecoder::new(&blob[..]).read_to_end(&mut archive).unwrap();
            }
            ztoc::Compression::Zstd => archive = zstd::decode_all(&blob[..]).unwrap(),
            ztoc::Compression::Uncompressed => archive = blob.to_vec(),
        }
        let ztoc = Ztoc::parse(builder.finish().unwrap().bytes).unwrap();
        Self { blob, archive: Arc::new(archive), ztoc }
    }

    pub(crate) fn new(
        compression: Compression,
        span_size: u64,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Self {
        let mut builder = LayerBuilder::new(compression);
        for entry in entries {
            builder.add(entry);
        }
        Self::of_blob(builder.finish().bytes(), span_size)
    }

    /// The bytes of an entry's content.
    pub(crate) fn content(&self, entry: usize) -> &[u8] {
        let found = self.ztoc.entry(entry).unwrap();
        &self.archive[found.offset as usize..(found.offset + found.size) as usize]
    }

    /// Entries with content.
    pub(crate) fn files(&self) -> Vec<usize> {
        (0..self.ztoc.len()).filter(|entry| !self.content(*entry).is_empty()).collect()
    }

    /// The spans of an entry's content.
    pub(crate) fn spans(&self, entry: usize) -> Range<usize> {
        let found = self.ztoc.entry(entry).unwrap();
        self.ztoc.spans().spans_of(&(found.offset..found.offset + found.size))
    }

    /// The compressed bytes of some spans.
    pub(crate) fn compressed(&self, spans: &Range<usize>) -> Range<u64> {
        let of = self.ztoc.spans();
        of.compressed(spans.start).start..of.compressed(spans.end - 1).end
    }
}

/// A layer ready to be read.
pub(crate) struct Rig {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) source: FetchContext,
    pub(crate) image: Image,
    pub(crate) fake: Arc<Fake>,
    pub(crate) layer: Arc<LazyLayer>,
}

pub(crate) fn lazy(image: &Image, reader: Arc<dyn BlobReader>, source: &FetchContext) -> Arc<LazyLayer> {
    let table = LayerTable::new(&image.ztoc).unwrap();
    let cache = source.cache().layer(reader.digest().hex(), "ztoc", table.block_count()).unwrap();
    let mut ztoc = tempfile::tempfile().unwrap();
    ztoc.write_all(image.ztoc.bytes()).unwrap();
    LazyLayer::new(reader, table, cache, ztoc, source.clone())
}

impl Rig {
    pub(crate) fn new(image: Image) -> Self {
        Self::with(image, 10_000, u64::MAX)
    }

    pub(crate) fn with(image: Image, chunk: usize, limit: u64) -> Self {
        let fake = Fake::new(image.blob.clone(), chunk);
        let directory = tempfile::tempdir().unwrap();
        let root = Arc::new(CacheRoot::open(directory.path(), limit).unwrap());
        let source = FetchContext::new(root, 8);
        let layer = lazy(&image, Arc::clone(&fake) as _, &source);
        Self { directory, source, image, fake, layer }
    }

    /// The same at the end of a long link.
    pub(crate) fn far(image: Image) -> Self {
        let mut rig = Self::new(image);
        rig.source = rig.source.at("far.example");
        *rig.fake.delay.lock().unwrap() = Duration::from_millis(40);
        (0..3).for_each(|_| rig.source.link.estimate.note_answer(Duration::from_millis(40)));
        rig.layer = lazy(&rig.image, Arc::clone(&rig.fake) as _, &rig.source);
        rig
    }

    /// The same after a restart of the process.
    pub(crate) fn restarted(self) -> Self {
        let Self { directory, image, fake, layer, source } = self;
        drop((layer, source));
        let root = Arc::new(CacheRoot::open(directory.path(), u64::MAX).unwrap());
        let source = FetchContext::new(root, 8);
        let layer = lazy(&image, Arc::clone(&fake) as _, &source);
        Self { directory, source, image, fake, layer }
    }

    pub(crate) async fn read(&self, entry: usize, range: Range<usize>) -> Result<(), FetchError> {
        check(&self.layer, &self.image, entry, range).await
    }

    pub(crate) async fn read_all(&self, entry: usize) -> Result<(), FetchError> {
        self.read(entry, 0..self.image.content(entry).len()).await
    }
}

/// Reads a range of an entry, and panics if the bytes are wrong or do not come.
pub(crate) async fn check(
    layer: &Arc<LazyLayer>,
    image: &Image,
    entry: usize,
    range: Range<usize>,
) -> Result<(), FetchError> {
    let mut buffer = vec![0xee; range.len()];
    within(layer.read(entry, range.start as u64, &mut buffer)).await?;
    assert!(buffer == image.content(entry)[range.clone()], "entry {entry}, {range:?}: wrong bytes");
    Ok(())
}

/// Nothing here should take long; what does, hangs.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("this hangs")
}

/// Waits until something has become true.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A layer with a big file between small ones.
pub(crate) fn usual(span_size: u64) -> Image {
    usual_as(Compression::GZIP, span_size)
}

/// The same, compressed in this way.
pub(crate) fn usual_as(compression: Compression, span_size: u64) -> Image {
    use testdata::image::Texture;
    let small = (0..40).map(|i| Entry::made(format!("etc/f{i:02}"), Texture::Text, i, 200 + i * 331));
    let big = [
        Entry::made("usr/lib/big", Texture::Binary, 7, 3_000_001),
        Entry::symlink("usr/lib/link", "big"),
        Entry::made("usr/lib/last", Texture::Random, 8, 500_000),
    ];
    Image::new(compression, span_size, small.chain(big))
}

/// Index of the entry with this name.
pub(crate) fn entry(image: &Image, name: &str) -> usize {
    image.ztoc.entries().position(|entry| entry.name == name.as_bytes()).unwrap()
}
