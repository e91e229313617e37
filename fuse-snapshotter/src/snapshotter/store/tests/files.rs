//! The file: its mode, its lock, and what happens when it or the disk is broken.

use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::super::database::{Database, META};
use super::{Fixture, commit, new};
use crate::snapshotter::store::SnapshotStore;
use crate::snapshotter::store::error::StoreError;
use crate::snapshotter::store::info::{Commit, Kind, Usage};

#[test]
fn the_file_is_its_owners_and_locked() {
    let f = Fixture::new();
    let path = f.path();
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o600);
    let error = SnapshotStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("another soci-snapshotter-grpc runs"), "{error}");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let _f = f.reopen();
    assert_eq!(mode(), 0o600);
}

#[test]
fn a_missing_directory_is_an_error() {
    let error = SnapshotStore::open(Path::new("/proc/none/snapshots.redb")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn another_format_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshots.redb");
    drop(SnapshotStore::open(&path).unwrap());
    let set = |format: Option<u64>| {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        match format {
            Some(format) => drop(write.open_table(META).unwrap().insert("format", format).unwrap()),
            None => drop(write.open_table(META).unwrap().remove("format").unwrap()),
        }
        write.commit().unwrap();
    };
    set(Some(2));
    let error = SnapshotStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("has format 2; this program reads format 1"), "{error}");
    set(None);
    let error = SnapshotStore::open(&path).unwrap_err();
    assert!(error.to_string().contains("is a database of something else"), "{error}");
    set(Some(1));
    SnapshotStore::open(&path).unwrap();
}

/// A store with a little of everything, closed.
fn sample(path: &Path) {
    let store = SnapshotStore::open(path).unwrap();
    for n in 0..40 {
        let parent = if n == 0 { String::new() } else { format!("c{}", n - 1) };
        store.create(new(Kind::Active, &format!("a{n}"), &parent)).unwrap();
        store
            .commit(Commit { record: Some(vec![7; 300]), ..commit(&format!("a{n}"), &format!("c{n}")) })
            .unwrap();
        store.number("s", &format!("n{n}")).unwrap();
    }
}

/// Calls everything that reads, and a few that write.
fn exercise(store: &SnapshotStore) {
    let _ = store.list(|_| true);
    let _ = store.ids();
    let _ = store.get_any("c39");
    let _ = store.numbers("s");
    let _ = store.number("s", "new");
    let _ = store.create(new(Kind::View, "v", "c39"));
    let _ = store.remove("v");
}

#[test]
fn a_damaged_file_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshots.redb");
    for contents in [vec![0x55; 8192], b"x".to_vec(), vec![0; 4096]] {
        std::fs::write(&path, contents).unwrap();
        let error = SnapshotStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("and pull them again"), "{error}");
    }
}

#[test]
fn no_damage_makes_it_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshots.redb");
    sample(&path);
    let good = std::fs::read(&path).unwrap();
    let mut random = 12345_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut refused = 0;
    for round in 0..400 {
        let mut bad = good.clone();
        match round % 3 {
            0 => bad.truncate(next(good.len())),
            1 => {
                let at = next(good.len());
                bad[at] ^= 1 << next(8);
            }
            // Pages of the header and of the trees, where it hurts most.
            _ => {
                for _ in 0..8 {
                    let page = next(good.len() / 4096).min(next(good.len() / 4096));
                    let at = (page * 4096 + next(256)).min(good.len() - 1);
                    bad[at] = next(256) as u8;
                }
            }
        }
        std::fs::write(&path, bad).unwrap();
        match SnapshotStore::open(&path) {
            Ok(store) => exercise(&store),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 50, "{refused}");
}

/// A disk that can be full, and that remembers what was done to it.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Step>>>,
}

#[derive(Debug, Clone)]
enum Step {
    Length(u64),
    Write(u64, Vec<u8>),
    Sync,
    /// Not of the disk: so many calls of the store have returned.
    Acknowledged(usize),
}

impl Disk {
    fn step(&self, step: Step) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.log.lock().unwrap().push(step);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.step(Step::Length(len))?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.step(Step::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.step(Step::Write(offset, data.to_vec()))?;
        self.file.write(offset, data)
    }
}

type Log = Arc<Mutex<Vec<Step>>>;

fn on_disk(path: &Path) -> (SnapshotStore, Arc<AtomicBool>, Log) {
    let full = Arc::new(AtomicBool::new(false));
    let log = Log::default();
    let opener = {
        let (full, log) = (Arc::clone(&full), Arc::clone(&log));
        move |file: File| {
            let disk = Disk { file: FileBackend::new(file)?, full: Arc::clone(&full), log: Arc::clone(&log) };
            redb::Builder::new().create_with_backend(disk)
        }
    };
    (SnapshotStore { database: Database::open(path, Box::new(opener)).unwrap() }, full, log)
}

#[test]
fn a_full_disk_is_survived() {
    let directory = tempfile::tempdir().unwrap();
    let (store, full, _) = on_disk(&directory.path().join("snapshots.redb"));
    store.create(new(Kind::Active, "a", "")).unwrap();
    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let error = store.commit(commit("a", "c")).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    }
    full.store(false, Ordering::SeqCst);
    assert_eq!(store.get("a").unwrap().kind, Kind::Active);
    store.commit(commit("a", "c")).unwrap();
    assert_eq!(store.create(new(Kind::Active, "b", "c")).unwrap().id, 2);
}

/// The file after a power failure: what was synced is there, of the rest only some.
fn after_crash(log: &[Step], mut keep: impl FnMut() -> bool, path: &Path) {
    let synced = log.iter().rposition(|step| matches!(step, Step::Sync)).unwrap_or(0);
    let file = File::create(path).unwrap();
    for (at, step) in log.iter().enumerate() {
        match step {
            // A file's length is metadata, which file systems write in order.
            Step::Length(length) => file.set_len(*length).unwrap(),
            Step::Write(offset, data) if at < synced || keep() => file.write_all_at(data, *offset).unwrap(),
            Step::Write(..) | Step::Sync | Step::Acknowledged(_) => {}
        }
    }
}

#[test]
fn a_crash_at_any_moment_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _, log) = on_disk(&directory.path().join("snapshots.redb"));
    log.lock().unwrap().push(Step::Acknowledged(0));
    // State after each call: a chain of snapshots, the last of which may still be active.
    let mut states = vec![Vec::<String>::new()];
    for n in 0..12 {
        let (key, name) = (format!("a{n}"), format!("c{n:02}"));
        let parent = if n == 0 { String::new() } else { format!("c{:02}", n - 1) };
        store.create(new(Kind::Active, &key, &parent)).unwrap();
        let mut state: Vec<String> = (0..n).map(|below| format!("c{below:02}")).collect();
        states.push([vec![key.clone()], state.clone()].concat());
        log.lock().unwrap().push(Step::Acknowledged(states.len() - 1));
        store.commit(commit(&key, &name)).unwrap();
        state.push(name.clone());
        states.push(state);
        log.lock().unwrap().push(Step::Acknowledged(states.len() - 1));
        // Changes nothing that is looked at, and need not be there afterwards.
        store.set_usage(&name, Usage { size: 1, inodes: 1 }).unwrap();
    }
    let log = log.lock().unwrap().clone();
    let start = log.iter().position(|step| matches!(step, Step::Acknowledged(0))).unwrap();
    let path = directory.path().join("crashed.redb");
    let mut random = 1_u64;
    for end in start + 1..=log.len() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bits = random;
        let keep = || {
            bits = bits.rotate_left(7);
            bits & 1 == 0
        };
        after_crash(&log[..end], keep, &path);
        let acknowledged = log[..end]
            .iter()
            .rev()
            .find_map(|step| if let Step::Acknowledged(calls) = step { Some(*calls) } else { None })
            .unwrap();
        let store = SnapshotStore::open(&path).unwrap();
        let found: Vec<String> = store.list(|_| true).unwrap().into_iter().map(|info| info.name).collect();
        // The call that was under way may have taken effect or not.
        let possible = &states[acknowledged..(acknowledged + 2).min(states.len())];
        assert!(possible.contains(&found), "cut at {end}: {found:?}, not of {possible:?}");
        store
            .create(new(
                Kind::Active,
                "after",
                found.last().filter(|name| name.starts_with('c')).map_or("", |name| name),
            ))
            .unwrap();
    }
}
