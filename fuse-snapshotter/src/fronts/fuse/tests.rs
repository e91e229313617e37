//! The file system as the kernel shows it. Needs root and `/dev/fuse`.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

mod takeover;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testdata::image::{Entry, Texture};
use testdata::need::{Need, available};
use tokio::runtime::Runtime;

use super::connection::{FuseOptions, mount_forest};
use crate::base::sys::id_mapped_clone;
use crate::fronts::forest::tests::{Rig, add_tree};
use crate::fronts::forest::{Forest, Operation, TreeSlot};
use crate::fronts::mount_point::{detach, is_mounted};
use crate::fronts::mounted::Mounted;

/// A mounted forest.
struct MountedForest {
    // In this order: unmounted before the directory goes, and before the runtime that serves it.
    mount: Mounted,
    forest: Arc<Forest>,
    _runtime: Runtime,
    directory: tempfile::TempDir,
}

impl MountedForest {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("forest")).unwrap();
        let forest = Arc::new(Forest::new());
        let options = FuseOptions { threads: 2, allow_other: true };
        let at = directory.path().join("forest");
        let mount = mount_forest(&forest, &at, options, runtime.handle().clone()).unwrap();
        Self { mount, forest, _runtime: runtime, directory }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.mount.path().join(path)
    }

    fn reads(&self) -> u64 {
        self.mount.stats().reads()
    }

    /// A new empty directory beside the mount.
    fn beside(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

/// Unmounts in the end, whatever happens.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

fn bind(source: &Path, target: &Path) -> Unmount {
    rustix::mount::mount_bind(source, target).unwrap();
    Unmount(target.to_owned())
}

fn can_mount() -> bool {
    available(&[Need::Root, Need::Fuse])
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn images_that_share_a_layer_share_its_pages() {
    if !can_mount() {
        return;
    }
    let (rig, mounted) = (Rig::new(), MountedForest::new());
    let base = rig.layer(&[Entry::made("usr/lib/shared", Texture::Binary, 1, 1_000_000)]);
    let other = rig.layer(&[Entry::file("other", "x")]);
    add_tree(&mounted.forest, 1, "one", &[(1, &base)]);
    add_tree(&mounted.forest, 2, "two", &[(1, &base), (2, &other)]);
    // As containers see them: through mounts of their own.
    let (one, two) = (mounted.beside("1"), mounted.beside("2"));
    let _one = bind(&mounted.path("one"), &one);
    let _two = bind(&mounted.path("two"), &two);
    let first = fs::read(one.join("usr/lib/shared")).unwrap();
    let reads = mounted.reads();
    assert!(reads > 0 && first.len() == 1_000_000);
    assert!(fs::read(two.join("usr/lib/shared")).unwrap() == first);
    assert_eq!(mounted.reads(), reads, "everything was in the page cache");
    let (one, two) = (one.join("usr/lib"), two.join("usr/lib"));
    let number = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(number(&one.join("shared")), number(&two.join("shared")));
    assert_ne!(number(&one), number(&two));
}

#[test]
fn trees_come_and_go_before_the_kernels_eyes() {
    if !can_mount() {
        return;
    }
    let (rig, mounted) = (Rig::new(), MountedForest::new());
    let base = rig.layer(&[Entry::file("file", "content"), Entry::file("unread", "more")]);
    let root = mounted.path("");
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
    for round in 1..4 {
        let name = "tree";
        assert!(!mounted.path(name).exists(), "and the kernel remembers that");
        assert!(names(&root).is_empty());
        add_tree(&mounted.forest, round, name, &[(1, &base)]);
        assert_eq!(names(&root), [name]);
        assert_eq!(fs::read(mounted.path("tree/file")).unwrap(), b"content");
        let target = mounted.beside(&round.to_string());
        let bound = bind(&mounted.path(name), &target);
        assert!(mounted.forest.remove_tree(TreeSlot(round)));
        assert!(names(&root).is_empty());
        // Whoever still has the tree mounted is told that it is gone.
        let error = fs::read(target.join("unread")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::STALE.raw_os_error()));
        drop(bound);
    }
    let failures = mounted.mount.stats().failures();
    assert!(Operation::ALL.iter().map(|operation| failures.get(*operation)).sum::<u64>() >= 3);
}

#[test]
fn a_bind_mount_outlives_changes_elsewhere() {
    if !can_mount() {
        return;
    }
    let (rig, mounted) = (Rig::new(), MountedForest::new());
    let base = rig.layer(&[Entry::dir("d"), Entry::file("d/file", "content")]);
    add_tree(&mounted.forest, 1, "one", &[(1, &base)]);
    let target = mounted.beside("target");
    let _bound = bind(&mounted.path("one"), &target);
    let here = fs::File::open(target.join("d")).unwrap();
    for slot in 2..20 {
        add_tree(&mounted.forest, slot, &slot.to_string(), &[(1, &base)]);
        assert_eq!(names(&mounted.path(&slot.to_string())), ["d"]);
        mounted.forest.remove_tree(TreeSlot(slot));
        // The kernel asks for this name anew each time, and must find the same directory.
        assert_eq!(fs::metadata(mounted.path("one")).unwrap().ino(), fs::metadata(&target).unwrap().ino());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(target.to_str().unwrap())).unwrap();
    assert!(mount.contains(" /one ") && mount.contains("fuse.rawBridge soci"), "{mount}");
    assert_eq!(fs::read(target.join("d/file")).unwrap(), b"content");
    assert_eq!(names(&target), ["d"]);
    assert!(here.metadata().unwrap().is_dir());
}

#[test]
fn state_files_are_fresh_whenever_they_are_opened() {
    if !can_mount() {
        return;
    }
    let (rig, mounted) = (Rig::new(), MountedForest::new());
    let base = rig.layer(&[
        Entry::made("one", Texture::Random, 1, 200_000),
        Entry::made("two", Texture::Random, 2, 200_000),
    ]);
    add_tree(&mounted.forest, 1, "tree", &[(1, &base)]);
    let state = mounted.path("tree/.soci-snapshotter");
    let file = state.join(format!("{}.json", base.lazy.digest()));
    let fetched = || {
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        json["fetchedSize"].as_u64().unwrap()
    };
    assert_eq!(names(&mounted.path("tree")), ["one", "two"]);
    assert_eq!(fetched(), 0);
    let mut held = fs::File::open(&file).unwrap();
    fs::read(mounted.path("tree/one")).unwrap();
    let some = fetched();
    assert_eq!(some, base.lazy.fetched_size());
    fs::read(mounted.path("tree/two")).unwrap();
    assert!(some > 0 && fetched() > some);
    // What was opened before says what it said then.
    let mut before = String::new();
    held.read_to_string(&mut before).unwrap();
    assert!(before.contains("\"fetchedSize\":0,"));
    drop(held);

    let expected = ["layers.json".to_owned(), format!("{}.json", base.lazy.digest())];
    for _ in 0..50 {
        assert_eq!(names(&state), expected);
        fetched();
        assert_eq!(fs::metadata(&file).unwrap().mode(), 0o100_400);
    }
    assert_eq!(fs::metadata(&state).unwrap().mode(), 0o040_500);
    // The kernel forgets them, and so do we.
    for _ in 0..1000 {
        if mounted.forest.state_files() < 10 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(mounted.forest.state_files() < 10, "{} of 150 are kept", mounted.forest.state_files());
    let json = fs::read_to_string(state.join("layers.json")).unwrap();
    assert!(json.ends_with("}\n") && json.lines().count() == 1);
}

#[test]
fn trees_come_and_go_while_others_look() {
    if !can_mount() {
        return;
    }
    let (rig, mounted) = (Rig::new(), MountedForest::new());
    let base = rig.layer(&[Entry::file("d/file", "content")]);
    add_tree(&mounted.forest, 1, "stays", &[(1, &base)]);
    let done = AtomicBool::new(false);
    // More of them than there are threads that answer.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(names(&mounted.path("")).contains(&"stays".to_owned()));
                    let _ = fs::read_dir(mounted.path("comes/d")).map(Iterator::count);
                    let _ = fs::read(mounted.path("comes/.soci-snapshotter/layers.json"));
                    assert_eq!(fs::read(mounted.path("stays/d/file")).unwrap(), b"content");
                }
            });
        }
        for slot in 2..300 {
            add_tree(&mounted.forest, slot, "comes", &[(1, &base)]);
            assert_eq!(fs::read(mounted.path("comes/d/file")).unwrap(), b"content");
            mounted.forest.remove_tree(TreeSlot(slot));
            assert!(!mounted.path("comes").exists());
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(names(&mounted.path("")), ["stays"]);
}

/// Everything in a directory: path, inode number, owner.
fn walk(root: &Path) -> Vec<(PathBuf, u64, u32)> {
    let mut all = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.push((path.strip_prefix(root).unwrap().to_owned(), meta.ino(), meta.uid()));
    }
    all.sort();
    all
}

fn overlay(lower: &[&Path], target: &Path) -> Unmount {
    let lower: Vec<_> = lower.iter().map(|path| path.to_str().unwrap()).collect();
    let options = std::ffi::CString::new(format!("lowerdir={},xino=on", lower.join(":"))).unwrap();
    let flags = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount("overlay", target, "overlay", flags, Some(options.as_c_str())).unwrap();
    Unmount(target.to_owned())
}

#[test]
fn containers_stack_overlayfs_on_trees() {
    if !available(&[Need::Root, Need::Fuse, Need::Program("unshare", "util-linux")]) {
        return;
    }
    let (rig, mounted) = (Rig::new(), MountedForest::new());
    let base = rig.layer(&[Entry::dir("d"), Entry::file("d/a", "a"), Entry::file("d/b", "b")]);
    let top = rig.layer(&[Entry::file("d/c", "c"), Entry::file("e", "e")]);
    add_tree(&mounted.forest, 1, "base", &[(1, &base)]);
    add_tree(&mounted.forest, 2, "top", &[(2, &top)]);
    let bound = ["base", "top"].map(|name| (mounted.beside(&format!("{name}-bound")), name));
    let _bound = bound.each_ref().map(|(target, name)| bind(&mounted.path(name), target));
    let merged = mounted.beside("merged");
    let _merged = overlay(&[&bound[1].0, &bound[0].0], &merged);
    let found = walk(&merged);
    let paths: Vec<_> = found.iter().map(|(path, ..)| path.to_str().unwrap()).collect();
    assert_eq!(paths, ["", "d", "d/a", "d/b", "d/c", "e"]);
    let mut numbers: Vec<_> = found.iter().map(|(_, number, _)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), paths.len());
    for name in ["a", "b", "c"] {
        assert_eq!(fs::read(merged.join("d").join(name)).unwrap(), name.as_bytes());
    }
    let device = |path: &str| fs::metadata(merged.join(path)).unwrap().dev();
    assert_eq!(device("d"), device("d/a"));
    mounted.forest.remove_tree(TreeSlot(7));
    add_tree(&mounted.forest, 3, "another", &[(1, &base)]);
    assert_eq!(walk(&merged), found);
    assert_eq!(fs::read(merged.join(".soci-snapshotter/layers.json")).unwrap().last(), Some(&b'\n'));

    if mounted.mount.negotiated().unwrap().idmap {
        let (mapped, merged) = (mounted.beside("mapped"), mounted.beside("mapped-merged"));
        let namespace = UserNamespace::new("0 100000 65536");
        id_mapped_clone(&mounted.path("top"), &mapped, namespace.open().as_fd()).unwrap();
        let _mapped = Unmount(mapped.clone());
        let _merged = overlay(&[&mapped, &mounted.beside("empty")], &merged);
        let found = walk(&merged);
        assert!(found.iter().all(|(_, _, owner)| *owner == 100_000), "{found:?}");
        assert_eq!(fs::read(merged.join("d/c")).unwrap(), b"c");
    }
}

/// Version of the kernel.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A process in a user namespace of its own, which ends when it is dropped.
struct UserNamespace(Child);

impl UserNamespace {
    fn new(map: &str) -> Self {
        let mut child = Command::new("unshare")
            .args(["--user", "sh", "-c", "echo ready; read -r end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        fs::write(proc.join("uid_map"), map).unwrap();
        fs::write(proc.join("gid_map"), map).unwrap();
        Self(child)
    }

    fn open(&self) -> fs::File {
        fs::File::open(format!("/proc/{}/ns/user", self.0.id())).unwrap()
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn mounts_of_it_can_be_id_mapped() {
    let programs = ["unshare", "setpriv"].map(|name| Need::Program(name, "util-linux"));
    if !available(&[&[Need::Root, Need::Fuse], &programs[..]].concat()) {
        return;
    }
    let (rig, mounted) = (Rig::new(), MountedForest::new());
    let negotiated = mounted.mount.negotiated().unwrap();
    assert_eq!(negotiated.idmap, kernel() >= (6, 12), "{negotiated:?}");
    assert_eq!(negotiated.lacking.contains(&"id-mapped mounts".to_owned()), !negotiated.idmap);
    if !negotiated.idmap {
        return;
    }
    let base = rig.layer(&[
        Entry::dir("root"),
        Entry::made("root/file", Texture::Text, 1, 10_000),
        Entry::file("user", "x").owner(1000, 50).mode(0o640),
        Entry::file("beyond", "x").owner(70_000, 70_000),
    ]);
    add_tree(&mounted.forest, 1, "tree", &[(1, &base)]);
    let target = mounted.beside("target");
    let namespace = UserNamespace::new("0 100000 65536");
    id_mapped_clone(&mounted.path("tree"), &target, namespace.open().as_fd()).unwrap();
    let _target = Unmount(target.clone());
    // The mount keeps the namespace.
    drop(namespace);
    let owner = |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
    assert_eq!(owner(&target.join("root/file")), (100_000, 100_000));
    assert_eq!(owner(&target.join("user")), (101_000, 100_050));
    assert_eq!(owner(&target.join("beyond")), (65_534, 65_534));
    assert_eq!(owner(&mounted.path("tree/user")), (1000, 50));
    assert_eq!(fs::read(target.join("root/file")).unwrap().len(), 10_000);
    // The pages are those of everybody else.
    let reads = mounted.reads();
    assert_eq!(fs::read(mounted.path("tree/root/file")).unwrap().len(), 10_000);
    assert_eq!(mounted.reads(), reads);

    // Permissions are those of the translated owner.
    let cat = |uid: &str, path: &Path| {
        let path = format!("exec 3<{}", path.display());
        let status = Command::new("setpriv")
            .args(["--reuid", uid, "--regid", uid, "--clear-groups", "sh", "-c", &path])
            .stderr(Stdio::null())
            .status();
        status.unwrap().success()
    };
    fs::set_permissions(mounted.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    assert!(cat("101000", &target.join("user")) && !cat("1000", &target.join("user")));
}

#[test]
fn a_failed_id_mapping_leaves_nothing() {
    if !available(&[Need::Root]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = (directory.path().join("source"), directory.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let no_namespace = fs::File::open("/dev/null").unwrap();
    assert!(id_mapped_clone(&source, &target, no_namespace.as_fd()).is_err());
    // The namespace that the files are in translates nothing, and the kernel says so.
    let own = fs::File::open("/proc/self/ns/user").unwrap();
    assert!(id_mapped_clone(&source, &target, own.as_fd()).is_err());
    assert!(names(&target).is_empty() && !is_mounted(&target));
}
