//! A start being recorded.
//!
//! Layers are shared by images, and trees by containers, so what is asked for is told apart by who asks ([`Callers`]):
//!
//! * What the container itself reads is recorded, and may be published. Everything that runs over its snapshot belongs
//!   to it: its first process, from the moment in which it has the container's root, and all that is executed in it
//!   later.
//! * What another container reads is dropped, read by read.
//! * What a process outside of all containers reads is dropped, too: it may be a scanner. But whoever prepares a
//!   container reads its `/etc/passwd` and the like, and will wait for them the next time. So a few reads before the
//!   container's own first one are kept, for this node alone.
//! * What nobody asks for, as far as can be seen, is kept for this node alone, and only of layers that no other tree
//!   has.
//!
//! What the container looks up in a layer that other trees have as well is dropped from the page cache once, so that a
//! neighbour who has read it before takes nothing from the recording. But one that reads the same file at the same
//! moment, or executes it and so needs it again at once, may be faster, and the kernel asks once for both. So what a
//! neighbour reads of a file in the moment in which the container looks it up counts as the container's. For some time
//! so does what it needs in order to execute the file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use registry::Digest;
use soci_index::recording::{MAX_READS, RecordedLayer, Recording};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::callers::{self, Caller, Callers};
use super::draft::Draft;
use super::start::Start;
use crate::base::lock::lock;
use crate::fronts::forest::{AskedFile, Observer};
use crate::image::OpenLayer;

/// How long after a look-up what neighbours read of the file counts as the container's: as long as the container may
/// take to read it then.
const READ_BY_BOTH: Duration = Duration::from_millis(50);

/// The same for what they need in order to execute the file.
const EXECUTED_BY_BOTH: Duration = Duration::from_secs(2);

/// A recording that is being made. Dropping it ends it.
pub(super) struct Session {
    image: String,
    manifest: Digest,
    index: Digest,
    draft: Arc<Mutex<Draft>>,
    /// Tells that there is nothing to wait for any more.
    pub(super) stop: Notify,
    /// The file system tells it as long as it lives.
    _tap: Arc<dyn Observer>,
}

/// The ear at the file system.
struct Tap {
    draft: Arc<Mutex<Draft>>,
    /// A recording may outlive the snapshotter, and must not keep its cache from being opened by the next one.
    layers: Vec<Weak<OpenLayer>>,
    /// The upper directory of the container.
    upper: PathBuf,
    callers: Callers,
    /// Files whose pages were dropped, and when.
    dropped: Mutex<HashMap<(u32, usize), Instant>>,
}

impl Tap {
    /// The place of a file's layer in the recording.
    fn layer_of(&self, file: &AskedFile<'_>) -> Option<u32> {
        let is_it = |layer: &Weak<OpenLayer>| {
            layer.upgrade().is_some_and(|layer| {
                Arc::ptr_eq(layer.lazy(), file.layer) || layer.lazy().has_same_content(file.layer)
            })
        };
        self.layers.iter().position(is_it).and_then(|layer| u32::try_from(layer).ok())
    }

    /// Whether what a neighbour reads of a file is what the container would have read.
    fn is_for_both(&self, layer: u32, file: &AskedFile<'_>, process: u32) -> bool {
        let looked_up = lock(&self.dropped).get(&(layer, file.entry)).map(Instant::elapsed);
        looked_up
            .is_some_and(|ago| ago < READ_BY_BOTH || (ago < EXECUTED_BY_BOTH && callers::executes(process)))
    }
}

impl Observer for Tap {
    fn read(&self, file: &AskedFile<'_>, range: Range<u64>, waits: bool, process: u32) {
        let (Some(layer), Ok(entry)) = (self.layer_of(file), u32::try_from(file.entry)) else { return };
        let is_own = match self.callers.of(process) {
            Caller::Container(upper) => upper == self.upper || self.is_for_both(layer, file, process),
            Caller::Outside => return lock(&self.draft).prepare(layer, entry, range, waits),
            Caller::Nobody if file.shared => false,
            Caller::Nobody => return lock(&self.draft).add_unattributed(layer, entry, range, waits),
        };
        if is_own {
            lock(&self.draft).add(layer, entry, range, waits);
        }
    }

    fn watches(&self, process: u32) -> bool {
        matches!(self.callers.of(process), Caller::Container(upper) if upper == self.upper)
    }

    fn looked_up(&self, file: &AskedFile<'_>, process: u32) -> bool {
        file.shared
            && self.watches(process)
            && self.layer_of(file).is_some_and(|layer| {
                let mut dropped = lock(&self.dropped);
                let is_room = dropped.len() < MAX_READS;
                match dropped.entry((layer, file.entry)) {
                    Entry::Vacant(first) if is_room => {
                        first.insert(Instant::now());
                        true
                    }
                    _ => false,
                }
            })
    }

    fn missed(&self) {
        lock(&self.draft).cold = false;
    }
}

impl Session {
    /// Begins to record what is read of the layers.
    pub(super) fn begin(start: &Start) -> Self {
        let layers = start
            .layers
            .iter()
            .map(|layer| RecordedLayer { layer: layer.key().layer.clone(), ztoc: layer.key().ztoc.clone() });
        let cold = start.layers.iter().all(|layer| {
            layer.is_cold() || start.forest.as_ref().is_some_and(|forest| forest.is_shared(layer.lazy()))
        });
        let draft = Arc::new(Mutex::new(Draft::new(layers.collect(), cold)));
        let tap: Arc<dyn Observer> = Arc::new(Tap {
            draft: Arc::clone(&draft),
            layers: start.layers.iter().map(Arc::downgrade).collect(),
            upper: start.upper.clone(),
            callers: Callers::default(),
            dropped: Mutex::default(),
        });
        if let Some(forest) = &start.forest {
            forest.observe(&tap);
        }
        Self {
            image: start.image.clone(),
            manifest: start.manifest.clone(),
            index: start.index.clone(),
            stop: Notify::new(),
            _tap: tap,
            draft,
        }
    }

    /// A container is about to be started: as long as nothing was read, this is the beginning.
    pub(super) fn prepared(&self) {
        lock(&self.draft).prepared();
    }

    /// Waits until nothing new was read for `quiet`, or it has taken `longest`, or it is to stop.
    pub(super) async fn over(&self, quiet: Duration, longest: Duration) {
        let last = Instant::now() + longest;
        loop {
            let end = {
                let draft = lock(&self.draft);
                if draft.is_full() { Instant::now() } else { last.min(draft.advanced() + quiet) }
            };
            if end <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(end) => {}
                () = self.stop.notified() => return,
            }
        }
    }

    /// Reads and bytes so far.
    pub(super) fn progress(&self) -> (usize, u64) {
        let draft = lock(&self.draft);
        (draft.len(), draft.bytes())
    }

    /// What was recorded; `None` if nothing was read.
    pub(super) fn recording(&self) -> Option<Recording> {
        let draft = lock(&self.draft);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (draft.len() > 0).then(|| Recording {
            image: self.image.clone(),
            manifest: self.manifest.clone(),
            index: self.index.clone(),
            taken: now.as_secs(),
            cold: draft.cold,
            waited: draft.waited,
            layers: draft.layers.clone(),
            reads: draft.own().to_vec(),
            unattributed: Some(draft.others()),
        })
    }
}
