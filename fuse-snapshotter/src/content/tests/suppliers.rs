//! A layer whose bytes do not come by spans.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::Semaphore;

use super::rig::{Image, Rig, check, entry, until, usual};
use crate::content::cache::ContentWriter;
use crate::content::contents::LayerContents;
use crate::content::error::FetchError;
use crate::content::layer::LazyLayer;
use crate::content::link::priority::Priority;
use crate::content::spans::headers::SpanHeaders;
use crate::content::supplier::{Supplier, Supply};

/// Whole files out of memory, each as one fetch.
struct Files {
    contents: Arc<LayerContents>,
    image: Image,
    fetched: AtomicUsize,
    gate: Semaphore,
}

#[async_trait]
impl Supplier for Files {
    async fn supply(&self, entry: usize, range: &Range<u64>) -> Result<Supply, FetchError> {
        if self.contents.has(entry, range.clone()) {
            return Ok(Supply::Nothing);
        }
        let (table, content) = (self.contents.table(), self.image.content(entry));
        let archive = table.archive_range(entry, &(0..u64::MAX));
        for (flight, ticket) in self.contents.flights().join_or_start([archive], Priority::Demand) {
            if let Some(ticket) = ticket {
                self.gate.acquire().await.unwrap().forget();
                self.fetched.fetch_add(1, Ordering::SeqCst);
                let start = table.stream_offset(entry);
                let mut writer = ContentWriter::new(Arc::clone(self.contents.cache()));
                writer.write(start, content, start + content.len() as u64);
                self.contents.accept(SpanHeaders::default(), writer);
                ticket.complete(Ok(()));
            }
            flight.wait().await?;
        }
        Ok(Supply::Complete)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_supplier_needs_no_spans_and_shares_flights_with_them() {
    let rig = Rig::new(usual(1 << 17));
    let contents = Arc::clone(rig.layer.contents());
    let (fetched, gate) = (AtomicUsize::new(0), Semaphore::new(0));
    let files = Arc::new(Files { contents, image: rig.image.clone(), fetched, gate });
    let layer = Arc::new(LazyLayer::with_supplier(&rig.layer, Arc::clone(&files) as _));
    let big = entry(&rig.image, "usr/lib/big");
    let reads = (0..4).map(|n| {
        let (layer, image) = (Arc::clone(&layer), rig.image.clone());
        let at = 700_000 * n;
        tokio::spawn(async move { check(&layer, &image, big, at..at + 10_000).await })
    });
    let reads: Vec<_> = reads.collect();
    until(|| layer.flights() == 1).await;
    // Who comes by spans waits for the file that is on its way.
    let (flights, tickets) =
        rig.layer.fetcher().join_or_start(rig.image.spans(big).skip(1).take(2).collect(), Priority::Expected);
    assert!(tickets.is_empty() && flights.iter().all(|flight| flight.joined));
    files.gate.add_permits(1);
    for read in join_all(reads).await {
        read.unwrap().unwrap();
    }
    for flight in flights {
        flight.wait().await.unwrap();
    }
    assert_eq!((files.fetched.load(Ordering::SeqCst), rig.fake.requests().len()), (1, 0));
    assert_eq!((layer.flights(), layer.stats().served_bytes), (0, 40_000));
    // Spans see what has come another way.
    assert!(rig.image.spans(big).skip(1).take(2).all(|span| rig.layer.fetcher().has_span(span)));
}
