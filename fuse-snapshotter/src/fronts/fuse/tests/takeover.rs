//! The device of one session, served by another one: what a process does that takes over from one that has ended.
#![expect(unsafe_code, reason = "a session's threads own their descriptors and do not lend them")]

use std::fs;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use testdata::image::{Entry, Texture};
use tokio::runtime::Runtime;

use super::{bind, can_mount, names, walk};
use crate::base::sys::redirect;
use crate::fronts::forest::tests::{Made, Rig, add_tree};
use crate::fronts::forest::{Forest, Operation, TreeSlot};
use crate::fronts::fuse::connection::{Connection, FuseOptions};
use crate::fronts::fuse::negotiated::Negotiated;
use crate::fronts::mount_point::is_mounted;
use crate::fronts::mounted::Mounted;

const OPTIONS: FuseOptions = FuseOptions { threads: 2, allow_other: true };

/// Descriptors of this process for a FUSE connection.
fn descriptors(connection: u32) -> Vec<RawFd> {
    let line = format!("fuse_connection:\t{connection}");
    let all = fs::read_dir("/proc/self/fd").unwrap();
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number: &RawFd| {
            // Another test may have closed it meanwhile.
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
            info.lines().any(|found| found == line)
        })
        .collect()
}

/// `struct fuse_in_header` of a request that ends the thread that reads it (`FUSE_DESTROY`).
fn destroy_request() -> [u8; 40] {
    let mut request = [0; 40];
    request[..4].copy_from_slice(&40_u32.to_ne_bytes());
    request[4..8].copy_from_slice(&38_u32.to_ne_bytes());
    request[8..16].copy_from_slice(&1_u64.to_ne_bytes());
    request
}

/// `struct fuse_out_header` and `struct fuse_notify_retrieve_out`: has the kernel send a request that wants no
/// answer, with no bytes of a file (`FUSE_NOTIFY_RETRIEVE`).
fn retrieve_nothing(file: u64) -> [u8; 48] {
    let mut notification = [0; 48];
    notification[..4].copy_from_slice(&48_u32.to_ne_bytes());
    notification[4..8].copy_from_slice(&5_u32.to_ne_bytes());
    notification[24..32].copy_from_slice(&file.to_ne_bytes());
    notification
}

/// Ends the threads that serve a mount, as if their process had ended, while `kept` holds the connection. The
/// kernel knows `file`.
fn stop_serving(mounted: Mounted, file: &fs::Metadata, kept: &OwnedFd) {
    let connection = rustix::fs::minor(file.dev());
    let served: Vec<_> = descriptors(connection);
    let served: Vec<_> = served.into_iter().filter(|number| *number != kept.as_raw_fd()).collect();
    assert_eq!(served.len(), OPTIONS.threads);
    let mut ends = Vec::new();
    for number in served {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) = socketpair(kind.0, kind.1, SocketFlags::CLOEXEC, None).unwrap();
        rustix::io::write(&ours, &destroy_request()).unwrap();
        // SAFETY: a thread of `mounted` owns this descriptor, and has no reason to end before the next statement.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        redirect(descriptor, theirs.as_fd()).unwrap();
        ends.push(ours);
    }
    // Threads that wait for a request still wait for it at the device.
    for attempt in 0.. {
        if mounted.is_finished() {
            break;
        }
        assert!(attempt < 10_000, "the threads do not end");
        rustix::io::write(kept, &retrieve_nothing(file.ino())).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(descriptors(connection), [kept.as_raw_fd()]);
    mounted.leave();
}

/// The file system of one process: each has trees of its own, in the slots that they have always had.
fn forest(layer: &Made) -> Arc<Forest> {
    let forest = Arc::new(Forest::new());
    add_tree(&forest, 1, "one", &[(1, layer)]);
    forest
}

fn read_from_start(mut file: &fs::File) -> Vec<u8> {
    let mut content = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut content).unwrap();
    content
}

fn content(entry: &Entry) -> Vec<u8> {
    entry.content().unwrap().to_vec()
}

#[test]
fn another_session_takes_over_the_device_without_init() {
    if !can_mount() {
        return;
    }
    let (rig, runtime, directory) = (Rig::new(), Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let [path, target] = ["forest", "target"].map(|name| directory.path().join(name));
    for directory in [&path, &target] {
        fs::create_dir(directory).unwrap();
    }
    let read_before = Entry::made("d/before", Texture::Random, 1, 300_000);
    let read_after = Entry::made("d/after", Texture::Random, 2, 300_000);
    let read_between = Entry::made("between", Texture::Random, 3, 300_000);
    let layer = rig.layer(&[Entry::dir("d"), read_before.clone(), read_after.clone(), read_between.clone()]);

    let first = forest(&layer);
    let opened = Connection::open(&path, OPTIONS).unwrap();
    let kept = opened.device().try_clone_to_owned().unwrap();
    let negotiated = serde_json::to_string(opened.negotiated()).unwrap();
    let mounted = opened.serve(&first, OPTIONS.threads, runtime.handle().clone()).unwrap();
    let bound = bind(&path.join("one"), &target);
    let found = walk(&target);
    assert_eq!(found.len(), 5);
    assert!(fs::read(target.join("d/before")).unwrap() == content(&read_before));
    let held = fs::File::open(target.join("d/after")).unwrap();
    stop_serving(mounted, &held.metadata().unwrap(), &kept);
    drop(first);

    // A process that asks now waits for whoever serves next.
    let asked = target.join("between");
    let reader = std::thread::spawn(move || fs::read(asked).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!reader.is_finished());

    let second = forest(&layer);
    let agreed: Negotiated = serde_json::from_str(&negotiated).unwrap();
    let adopted = Connection::adopt(&path, kept, agreed);
    let mounted = adopted.serve(&second, OPTIONS.threads, runtime.handle().clone()).unwrap();
    assert!(reader.join().unwrap() == content(&read_between));
    assert!(read_from_start(&held) == content(&read_after));
    assert_eq!(held.metadata().unwrap().ino(), fs::metadata(target.join("d/after")).unwrap().ino());
    assert_eq!(walk(&target), found);
    assert_eq!(mounted.stats().failures().get(Operation::Lookup), 0);
    // Nor are the answers those of the kernel's caches.
    look_anew(&path, &second, &layer);
    assert!(mounted.stats().requests() > 0 && mounted.stats().reads() > 0);

    drop(bound);
    drop(mounted);
    assert!(!is_mounted(&path));
}

/// What the kernel is told of names reaches it, and what it has not seen before is looked up.
fn look_anew(path: &Path, forest: &Forest, layer: &Made) {
    assert_eq!(names(path), ["one"]);
    for slot in 2..4 {
        add_tree(forest, slot, "two", &[(1, layer)]);
        assert_eq!(names(path), ["one", "two"]);
        let number = |name: &str| fs::metadata(path.join(name)).unwrap().ino();
        assert_eq!(number("two/d/before"), number("one/d/before"));
        assert_ne!(number("two/d"), number("one/d"));
        assert!(forest.remove_tree(TreeSlot(slot)));
        assert!(!path.join("two").exists());
    }
}
