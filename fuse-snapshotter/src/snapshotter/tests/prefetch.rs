//! Starts that are recorded and replayed.

use std::time::Duration;

use soci_index::prefetch::{PrefetchArtifact, SpanRange};
use soci_index::recording::Recording;
use testdata::image::Texture;
use testdata::registry::{Action, Fault};

use super::*;
use crate::foresight::recorded::{RecordingStatus, ReplaySource, ReplayStatus};
use crate::snapshotter::store::Labels;

/// Nobody waits long for a recording to end here; it ends earlier if the image is removed.
const QUIET: Duration = Duration::from_millis(300);

/// Two layers of incompressible files, of about ten spans each.
fn large() -> Image {
    let files = |prefix: &'static str| {
        (0..10).map(move |at| Entry::made(format!("{prefix}{at}"), Texture::Random, at, SPAN))
    };
    image([layer(files("lower")), layer(files("upper"))])
}

/// The files that the container of [`large`] reads, in order.
const FILES: [&str; 5] = ["upper7", "lower3", "upper1", "lower2", "upper2"];

async fn rig(change: impl FnOnce(&mut Options)) -> Option<Rig> {
    Rig::with(|options| {
        options.settings.prefetch.quiet = QUIET;
        change(options);
    })
    .await
}

impl Rig {
    fn prefetch(&self, image: &Image) -> (Option<RecordingStatus>, Option<ReplayStatus>) {
        self.snapshotter().prefetch().status(&image.digest().parse().unwrap())
    }

    /// The recording of an image, once its start is over.
    async fn recording(&self, image: &Image) -> Recording {
        eventually("the start is recorded", || {
            self.prefetch(image).0.is_some_and(|recording| !recording.running)
        })
        .await;
        Recording::parse(&std::fs::read(self.recording_file(image)).unwrap()).unwrap()
    }

    fn recording_file(&self, image: &Image) -> PathBuf {
        let digest: Digest = image.digest().parse().unwrap();
        self.layout().recordings().join(format!("{}.json", digest.hex()))
    }

    /// The replay of an image, once it is done.
    async fn replay(&self, image: &Image) -> ReplayStatus {
        eventually("the start is replayed", || self.prefetch(image).1.is_some_and(|replay| !replay.running))
            .await;
        self.prefetch(image).1.unwrap()
    }

    /// Starts a container that reads files, and ends it.
    async fn run(&self, client: &Client, image: &Image, files: &[&str]) {
        let (key, mounts) = client.container(image, Labels::new()).await.unwrap();
        let mounted = self.mount(&mounts).await;
        for file in files {
            assert_eq!(mounted.read_inside(file).await.unwrap().len() as u64, SPAN);
        }
        drop(mounted);
        self.snapshotter().remove(&key).await.unwrap();
    }

    /// Removes the image and all that was cached of it.
    async fn remove(&self, client: &mut Client) {
        client.remove_all().await;
        eventually("the layers are gone", || {
            self.snapshotter().clean().unwrap();
            self.snapshotter().layers().all().is_empty()
        })
        .await;
        assert_eq!(self.snapshotter().cache().used(), 0);
        self.registry.clear_requests();
    }

    /// Which bytes of layers were asked for, other than to see whether they can be, in order: layer and range.
    fn asked(&self, image: &Image) -> Vec<(usize, std::ops::Range<u64>)> {
        let of = |path: &str| image.layers().iter().position(|layer| path.ends_with(&layer.digest));
        let requests = self.registry.requests().into_iter();
        let ranges = requests.filter_map(|request| {
            let (start, end) = request.range?;
            Some((of(&request.path)?, start..end + 1))
        });
        ranges.filter(|(_, range)| range.start > 0 || range.end > 2).collect()
    }
}

/// The compressed bytes of the spans that hold a file.
fn spans_of(image: &Image, file: &str) -> (usize, std::ops::Range<usize>, std::ops::Range<u64>) {
    let layer = usize::from(file.starts_with("upper"));
    let ztoc = ztoc::Ztoc::parse(ztoc_of(&image.layers()[layer])).unwrap();
    let entry = ztoc.entries().find(|entry| entry.name == file.as_bytes()).unwrap();
    let spans = ztoc.spans().spans_of(&(entry.offset..entry.offset + entry.size));
    let bytes = ztoc.spans().compressed(spans.start).start..ztoc.spans().compressed(spans.end - 1).end;
    (layer, spans, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_start_is_recorded_and_replayed_before_the_next_one() {
    let Some(rig) = rig(|options| options.settings.prefetch.requests = 1).await else { return };
    let image = large();
    rig.push_indexed(&image, &[0, 1]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    rig.run(&client, &image, &FILES).await;
    let recording = rig.recording(&image).await;
    // Not for each: some came with what lies in front of them.
    assert!(recording.cold && recording.waited > 0, "{recording:?}");
    assert_eq!(recording.bytes(), FILES.len() as u64 * SPAN);
    // Files are read whole, so that what is read of one is one.
    let read: Vec<_> = recording.reads.iter().map(|read| (read.layer, read.range.start)).collect();
    assert_eq!(read, [(1, 0), (0, 0), (1, 0), (0, 0), (1, 0)]);

    rig.remove(&mut client).await;
    client.pull(&image).await;
    let replay = rig.replay(&image).await;
    assert_eq!(replay.source, ReplaySource::Recording);
    assert!(replay.spans > 0 && replay.failed == 0, "{replay:?}");
    // What belongs together comes together, and in the order in which it was first read.
    let asked = rig.asked(&image);
    let first = |file: &str| {
        let (layer, _, bytes) = spans_of(&image, file);
        asked
            .iter()
            .position(|(of, range)| *of == layer && range.start <= bytes.start && bytes.start < range.end)
    };
    let order: Vec<_> = FILES.iter().map(|file| first(file).unwrap()).collect();
    // Whichever layer is open first begins.
    assert!(order[0] < order[2], "{order:?} of {asked:?}");
    assert_eq!((order[1], order[2]), (order[3], order[4]), "{asked:?}");
    assert_eq!(asked.len(), 3, "{asked:?}");

    // Then the start needs nothing.
    rig.run(&client, &image, &FILES).await;
    assert_eq!(rig.asked(&image), asked);
    let again = rig.recording(&image).await;
    eventually("the second start is recorded, too", || {
        Recording::parse(&std::fs::read(rig.recording_file(&image)).unwrap()).unwrap().waited == 0
    })
    .await;
    assert_eq!(again.reads.len(), recording.reads.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warm_start_changes_nothing() {
    let Some(rig) = rig(|_| {}).await else { return };
    let image = large();
    rig.push_indexed(&image, &[0, 1]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    rig.run(&client, &image, &FILES).await;
    rig.recording(&image).await;
    let file = rig.recording_file(&image);
    let before = std::fs::read(&file).unwrap();
    // Other files, too: what the first start of an image needs is what a start needs.
    rig.run(&client, &image, &["lower9", "upper9", "lower8", "upper8", "upper7", "lower7"]).await;
    tokio::time::sleep(QUIET * 2).await;
    assert_eq!(std::fs::read(&file).unwrap(), before);
    // Nor does a start that reads next to nothing.
    rig.remove(&mut client).await;
    client.pull(&image).await;
    rig.run(&client, &image, &["lower9"]).await;
    rig.remove(&mut client).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

/// The image is there, the cache is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_cache_is_filled_when_a_container_starts() {
    let Some(mut rig) = rig(|_| {}).await else { return };
    let image = large();
    rig.push_indexed(&image, &[0, 1]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    rig.run(&client, &image, &FILES).await;
    rig.recording(&image).await;
    let cache = rig.layout().cache();
    let (first, _) = client.container(&image, Labels::new()).await.unwrap();
    drop(client);
    rig.restart().await;
    for layer in rig.snapshotter().layers().all() {
        rig.snapshotter().cache().discard(layer.key().layer.hex(), layer.key().ztoc.hex());
    }
    for entry in
        std::fs::read_dir(&cache).unwrap().filter_map(Result::ok).filter(|entry| entry.path().is_dir())
    {
        std::fs::remove_dir_all(entry.path()).unwrap();
    }
    rig.registry.clear_requests();
    rig.snapshotter().mounts(&first).await.unwrap();
    let replay = rig.replay(&image).await;
    assert!(replay.spans > 0, "{replay:?}");
    let fetched = rig.asked(&image);
    // Nothing is missing, so nothing is looked for again.
    rig.snapshotter().mounts(&first).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.asked(&image), fetched);
    assert_eq!(rig.prefetch(&image).1.unwrap().spans, replay.spans);
}

/// Puts an index with prefetch artifacts into the registry.
fn push_with_artifacts(rig: &Rig, image: &Image, artifacts: &[(usize, bytes::Bytes, bool)]) {
    let digest = rig.push_indexed(image, &[0, 1]);
    let (_, json) = rig.registry.manifest(REPOSITORY, digest.as_ref()).unwrap();
    assert!(rig.registry.remove_manifest(REPOSITORY, digest.as_ref()));
    let mut index = IndexManifest::parse(&json).unwrap();
    for (layer, artifact, there) in artifacts {
        if *there {
            rig.registry.put_blob(artifact.clone());
        }
        let layer = image.layers()[*layer].digest.parse().unwrap();
        let descriptor =
            IndexManifest::prefetch_descriptor(Digest::of(artifact), artifact.len() as u64, &layer);
        index.blobs.push(descriptor);
    }
    let index = index.encode();
    rig.registry.put_manifest(REPOSITORY, Digest::of(&index).as_ref(), IMAGE_MANIFEST, index);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_recording_prefetch_artifacts_are_used() {
    let Some(rig) = rig(|_| {}).await else { return };
    let image = large();
    let (_, spans, _) = spans_of(&image, "lower3");
    let range = SpanRange::new(spans.start as u32, spans.end as u32 - 1);
    let artifact = PrefetchArtifact::new(vec![range]).unwrap().encode();
    push_with_artifacts(&rig, &image, &[(0, artifact, true)]);
    let mut client = Client::new(&rig, "test");
    assert_eq!(client.pull(&image).await, ["lazy", "lazy"]);
    let replay = rig.replay(&image).await;
    assert_eq!((replay.source, replay.spans), (ReplaySource::Artifacts, spans.len() as u64));
    let asked = rig.asked(&image);
    rig.run(&client, &image, &["lower3"]).await;
    assert_eq!(rig.asked(&image), asked);
    let recording = rig.recording(&image).await;
    assert_eq!((recording.waited, recording.bytes()), (0, SPAN));

    // What happened here counts more than what the index says.
    rig.remove(&mut client).await;
    client.pull(&image).await;
    assert_eq!(rig.replay(&image).await.source, ReplaySource::Recording);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifacts_that_are_wrong_do_no_harm() {
    let range = |start: u64, end: u64| {
        format!(r#"{{"version":"1.0","prefetch_spans":[{{"start_span":{start},"end_span":{end}}}]}}"#)
    };
    for (artifact, there, spans) in [
        // Of all spans that there may be those that there are, and no more.
        (range(1, i32::MAX as u64), true, true),
        (range(i32::MAX as u64, i32::MAX as u64), true, false),
        (range(7, 3), true, false),
        ("nonsense".to_owned(), true, false),
        (range(0, 0), false, false),
    ] {
        let Some(rig) = rig(|_| {}).await else { return };
        let image = large();
        push_with_artifacts(&rig, &image, &[(1, artifact.clone().into(), there)]);
        let mut client = Client::new(&rig, "test");
        assert_eq!(client.pull(&image).await, ["lazy", "lazy"], "{artifact}");
        rig.run(&client, &image, &FILES).await;
        if spans {
            let all = ztoc::Ztoc::parse(ztoc_of(&image.layers()[1])).unwrap().spans().len();
            assert!(rig.replay(&image).await.spans < all as u64);
        }
    }
}

/// An image's registry is dead, and the requests for it go on until their deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_do_not_wait_for_each_others_registries() {
    let Some(rig) = rig(|options| options.settings.prefetch.requests = 1).await else { return };
    let artifact = PrefetchArtifact::new(vec![SpanRange::new(0, 3)]).unwrap().encode();
    let dead =
        image([layer([Entry::made("dead", Texture::Random, 77, 10 * SPAN)]), layer([Entry::file("x", "x")])]);
    push_with_artifacts(&rig, &dead, &[(0, artifact.clone(), true)]);
    let alive = large();
    push_with_artifacts(&rig, &alive, &[(0, artifact, true)]);
    // All but the look whether it can be read lazily.
    let silence = Fault::always(Action::Stall(Duration::from_secs(3600))).path(&dead.layers()[0].digest);
    rig.registry.inject(Fault { skip: 1, ..silence });
    let mut client = Client::new(&rig, "test");
    client.pull(&dead).await;
    eventually("a request hangs", || !rig.asked(&dead).is_empty()).await;
    assert_eq!(client.pull(&alive).await, ["lazy", "lazy"]);
    assert_eq!(rig.replay(&alive).await.spans, 4);
    assert!(rig.prefetch(&dead).1.is_some_and(|replay| replay.running && replay.spans == 0));
    rig.snapshotter().prefetch().cancel(&dead.digest().parse().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_switched_off_does_not_happen() {
    let Some(rig) = rig(|options| {
        options.settings.prefetch.replay = false;
        options.settings.prefetch.record = false;
    })
    .await
    else {
        return;
    };
    let image = large();
    let artifact = PrefetchArtifact::new(vec![SpanRange::new(0, 3)]).unwrap().encode();
    push_with_artifacts(&rig, &image, &[(0, artifact, true)]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    rig.run(&client, &image, &FILES).await;
    tokio::time::sleep(QUIET * 2).await;
    assert!(matches!(rig.prefetch(&image), (None, None)), "{:?}", rig.prefetch(&image));
    assert_eq!(count(&rig.layout().recordings()), 0);
}

/// The daemon ends, or the image is removed, before the start is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_is_cut_short_is_kept() {
    for removed in [true, false] {
        let Some(rig) = rig(|options| options.settings.prefetch.quiet = Duration::from_secs(3600)).await
        else {
            return;
        };
        let image = large();
        rig.push_indexed(&image, &[0, 1]);
        let mut client = Client::new(&rig, "test");
        client.pull(&image).await;
        rig.run(&client, &image, &FILES[..2]).await;
        assert!(rig.prefetch(&image).0.is_some_and(|recording| recording.running));
        if removed {
            rig.remove(&mut client).await;
        } else {
            let snapshotter = Arc::clone(rig.snapshotter());
            tokio::task::spawn_blocking(move || snapshotter.leave()).await.unwrap();
        }
        assert_eq!(rig.recording(&image).await.bytes(), 2 * SPAN);
    }
}

/// What is in a recording, by layer: entry and range.
fn content(recording: &Recording) -> Vec<(Digest, u32, std::ops::Range<u64>)> {
    let layer =
        |read: &soci_index::recording::RecordedRead| recording.layers[read.layer as usize].layer.clone();
    recording.reads.iter().map(|read| (layer(read), read.entry, read.range.clone())).collect()
}

/// The same base as [`large`] has, and another program.
fn neighbour() -> Image {
    let base = (0..10).map(|at| Entry::made(format!("lower{at}"), Texture::Random, at, SPAN));
    image([layer(base), layer([Entry::file("neighbour", "n")])])
}

/// A neighbour has read files of the base before, reads others while the start is recorded, and again those that are
/// read in it; and so does a scanner on the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_beside_a_busy_neighbour_equals_the_one_made_alone() {
    let mut recordings = Vec::new();
    for busy in [false, true] {
        let Some(rig) = rig(|_| {}).await else { return };
        let (image, other) = (large(), neighbour());
        rig.push_indexed(&image, &[0, 1]);
        rig.push_indexed(&other, &[0, 1]);
        let mut client = Client::new(&rig, "test");
        client.pull(&image).await;
        let mut neighbours = Client::new(&rig, "neighbours");
        let beside = if busy {
            neighbours.pull(&other).await;
            let (_, mounts) = neighbours.container(&other, Labels::new()).await.unwrap();
            let beside = rig.mount(&mounts).await;
            for file in ["lower0", "lower2", "lower3"] {
                beside.read_inside(file).await.unwrap();
            }
            Some(beside)
        } else {
            None
        };
        let (_, mounts) = client.container(&image, Labels::new()).await.unwrap();
        let mounted = rig.mount(&mounts).await;
        for (at, file) in FILES.iter().enumerate() {
            assert_eq!(mounted.read_inside(file).await.unwrap().len() as u64, SPAN);
            if let Some(beside) = &beside {
                beside.read_inside(&format!("lower{}", at + 4)).await.unwrap();
                beside.read_inside(file).await.err();
                mounted.read(&format!("upper{}", 9 - at)).await.unwrap();
            }
        }
        let recording = rig.recording(&image).await;
        assert!(recording.cold);
        // The scanner was late.
        assert_eq!(recording.unattributed.as_deref(), Some(&[][..]));
        recordings.push(content(&recording));
    }
    assert_eq!(recordings[0], recordings[1]);
}

/// Before the container is started somebody looks for its user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_container_is_prepared_with_is_kept_for_this_node_alone() {
    let Some(rig) = rig(|_| {}).await else { return };
    let image = large();
    rig.push_indexed(&image, &[0, 1]);
    let mut client = Client::new(&rig, "test");
    client.pull(&image).await;
    let (_, mounts) = client.container(&image, Labels::new()).await.unwrap();
    let mounted = rig.mount(&mounts).await;
    mounted.read("lower0").await.unwrap();
    mounted.read_inside("upper1").await.unwrap();
    let recording = rig.recording(&image).await;
    assert_eq!((content(&recording).len(), recording.unattributed.unwrap().len()), (1, 1));
}
