use std::path::Path;

use bytes::Bytes;
use registry::{Descriptor, Digest};

use super::*;
use crate::manifest::IndexManifest;
use crate::manifest::{CONFIG_BLOB, IndexVersion};

fn record(digest: &Digest, kind: ArtifactKind, oci: &Digest, image_ref: &str) -> Record {
    Record {
        digest: digest.clone(),
        kind,
        size: 3,
        span_size: 4096,
        oci_digest: oci.clone(),
        image_digest: None,
        image_ref: image_ref.into(),
        platform: String::new(),
        media_type: String::new(),
        artifact_type: String::new(),
        tool: "t".into(),
        created_at: 1,
        created_at_ns: 0,
        found: false,
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Stores an index over the given zTOCs and returns its digest.
async fn put_index(store: &Store, image_ref: &str, ztocs: &[&'static [u8]]) -> Digest {
    let mut blobs = Vec::new();
    for ztoc in ztocs {
        let digest = store.put(Bytes::from_static(ztoc)).await.unwrap();
        let layer = Descriptor::of("l", &[ztoc, b"layer".as_slice()].concat());
        store.record(vec![record(&digest, ArtifactKind::Layer, &layer.digest, "")]).await.unwrap();
        blobs.push(IndexManifest::ztoc_descriptor(digest, ztoc.len() as u64, &layer, 4096, false));
    }
    let image = Descriptor::of(crate::oci::IMAGE_MANIFEST, b"image");
    let manifest = IndexManifest::new(IndexVersion::V1, blobs, Some(&image), "t");
    let digest = store.put_index(&manifest).await.unwrap().digest;
    store.record(vec![record(&digest, ArtifactKind::Index, &image.digest, image_ref)]).await.unwrap();
    digest
}

#[tokio::test]
async fn a_store_is_an_oci_layout_with_private_directories() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b/c");
    let store = Store::open(&root).unwrap();
    assert!(store.is_new());
    let digest = put_index(&store, "x", &[b"one"]).await;
    assert!(!store.is_new());
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("artifacts.redb")), 0o600);
    assert_eq!(mode(&store.content().path(&digest)), 0o444);
    assert_eq!(std::fs::read(root.join("content/oci-layout")).unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index = std::fs::read_to_string(root.join("content/index.json")).unwrap();
    assert!(index.contains(digest.as_str()), "{index}");
    assert_eq!(std::fs::read_dir(root.join("content/ingest")).unwrap().count(), 0);
    assert_eq!(store.get(&Digest::of(CONFIG_BLOB), 10).await.unwrap(), CONFIG_BLOB);
    assert_eq!(store.index(&digest).await.unwrap().blobs.len(), 1);
    // Opening again changes nothing.
    assert_eq!(Store::open(&root).unwrap().records().await.unwrap(), store.records().await.unwrap());
}

#[tokio::test]
async fn damage_is_found_on_reading_and_mended_on_writing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = store.put(Bytes::from_static(b"hello")).await.unwrap();
    let path = store.content().path(&digest);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.get(&digest, 10).await, Err(StoreError::Missing(_))));
    assert!(!store.verify(&digest).await);
    std::fs::write(&path, b"hullo").unwrap();
    assert!(matches!(store.get(&digest, 10).await, Err(StoreError::Damaged(..))));
    assert!(!store.verify(&digest).await);
    let mut stream = store.stream(&Descriptor::new("t", digest.clone(), 5)).await.unwrap();
    use futures::StreamExt;
    assert!(stream.next().await.unwrap().is_ok());
    assert!(stream.next().await.unwrap().is_err());
    assert!(store.stream(&Descriptor::new("t", digest.clone(), 6)).await.is_err());
    store.put(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(store.get(&digest, 10).await.unwrap(), b"hello".as_slice());
    assert!(matches!(store.get(&digest, 4).await, Err(StoreError::Damaged(..))));
}

#[tokio::test]
async fn removing_an_index_frees_what_only_it_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = put_index(&store, "x", &[b"one", b"shared"]).await;
    let second = put_index(&store, "y", &[b"two", b"shared"]).await;
    // The same index under another name.
    let third = put_index(&store, "z", &[b"two", b"shared"]).await;
    assert_eq!(second, third);

    let doomed = first.clone();
    let removed = store.remove_indexes(move |record| record.digest == doomed).await.unwrap();
    assert_eq!((removed.indexes, removed.blobs, removed.shared), (1, 2, false));
    assert!(matches!(store.get(&Digest::of(b"one"), 10).await, Err(StoreError::Missing(_))));
    assert!(store.verify(&Digest::of(b"shared")).await);
    assert!(store.verify(&Digest::of(CONFIG_BLOB)).await);
    let index = std::fs::read_to_string(dir.path().join("content/index.json")).unwrap();
    assert!(!index.contains(first.as_str()) && index.contains(second.as_str()));
    assert!(!store.records().await.unwrap().iter().any(|record| record.digest == Digest::of(b"one")));

    // One of two names goes, the blobs stay.
    let removed = store.remove_indexes(|record| record.image_ref == "y").await.unwrap();
    assert_eq!((removed.indexes, removed.blobs), (1, 0));
    assert!(store.verify(&second).await);
    let removed = store.remove_indexes(|_| true).await.unwrap();
    assert_eq!((removed.indexes, removed.blobs), (1, 4));
    assert!(store.records().await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("content/blobs/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_references_state_is_recognised_and_its_blobs_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("artifacts.db"), b"bolt").unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(store.has_reference_state());
    put_index(&store, "x", &[b"one"]).await;
    let removed = store.remove_indexes(|_| true).await.unwrap();
    assert!(removed.shared);
    assert_eq!((removed.indexes, removed.blobs), (1, 0));
    assert!(store.verify(&Digest::of(b"one")).await);
    assert_eq!(std::fs::read(dir.path().join("artifacts.db")).unwrap(), b"bolt");
}

#[tokio::test]
async fn a_database_that_another_has_open_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    put_index(&store, "x", &[b"one"]).await;
    let held = redb::Database::create(dir.path().join("artifacts.redb")).unwrap();
    let waiting = store.clone();
    let records = tokio::spawn(async move { waiting.records().await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!records.is_finished());
    drop(held);
    assert_eq!(records.await.unwrap().unwrap().len(), 2);
}

#[tokio::test]
async fn many_writers_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stores: Vec<Store> = (0..4).map(|_| Store::open(dir.path()).unwrap()).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16usize {
        let store = stores[number % 4].clone();
        tasks.spawn(async move { put_index(&store, &format!("image-{number}"), &[b"one"]).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let records = stores[0].records().await.unwrap();
    assert_eq!(records.iter().filter(|record| record.kind == ArtifactKind::Index).count(), 16);
}

#[tokio::test]
async fn a_damaged_database_is_an_error_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("artifacts.redb"), vec![0x55; 8192]).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = store.records().await.unwrap_err().to_string();
    assert!(error.contains("artifacts.redb"), "{error}");
}
