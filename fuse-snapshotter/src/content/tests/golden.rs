//! The reference's layers, over HTTP.

use std::sync::Arc;

use registry::{Client, ClientConfig, Repository};
use testdata::golden;
use testdata::registry::TestRegistry;

use super::rig::{Image, check, lazy, within};
use crate::content::cache::CacheRoot;
use crate::content::context::FetchContext;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_file_of_every_layer_reads_back() {
    let server = TestRegistry::builder().start().await;
    let client = Client::new(ClientConfig::default()).unwrap();
    let repository = Repository::new(&server.host(), "a/b").unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (round, span_size) in [1000, 65536, 4 << 20].into_iter().enumerate() {
        let root = directory.path().join(round.to_string());
        let source = FetchContext::new(Arc::new(CacheRoot::open(&root, u64::MAX).unwrap()), 8);
        for name in golden::load().layers.keys() {
            let image = Image::of_blob(golden::layer(name).into(), span_size);
            let digest = server.put_blob(image.blob.clone()).parse().unwrap();
            let blob = client.blob_reader(&repository, digest, image.blob.len() as u64);
            let layer = lazy(&image, Arc::new(blob), &source);
            let readers: Vec<_> = (0..32_usize)
                .map(|reader| {
                    let (layer, image) = (Arc::clone(&layer), image.clone());
                    tokio::spawn(async move {
                        let mut files = image.files();
                        // Each in another order, most of them only some files.
                        files.sort_by_key(|file| (file * 7919 + reader * 104_729) % 65_537);
                        files.truncate(if reader < 2 { usize::MAX } else { 20 });
                        for file in files {
                            let length = image.content(file).len();
                            let start = (file * 31 + reader * 7907) % length;
                            check(&layer, &image, file, start..length.min(start + 10_000)).await.unwrap();
                            if reader < 2 {
                                check(&layer, &image, file, 0..length).await.unwrap();
                            }
                        }
                    })
                })
                .collect();
            for reader in readers {
                within(reader).await.unwrap();
            }
            let stats = layer.stats();
            assert_eq!((stats.corrupt_spans, stats.refused_entries), (0, 0), "{name}");
            // Nothing is fetched twice.
            assert!(stats.fetched_spans <= image.ztoc.spans().len() as u64, "{name}: {stats:?}");
        }
    }
}
