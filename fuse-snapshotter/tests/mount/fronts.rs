//! What tells the kernel the names and attributes: an EROFS image, or FUSE.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testdata::image::{Compression, Entry, ImageBuilder, Layer, LayerBuilder, Texture};
use testdata::need::can_mount_erofs;
use testdata::registry::{Action, Fault, TestRegistry};

use crate::can_mount;
use crate::program::{Mount, index, is_mounted, program};

/// Those that this machine can have.
pub(crate) fn fronts() -> Vec<&'static str> {
    if can_mount_erofs() { vec!["erofs", "fuse"] } else { vec!["fuse"] }
}

/// File system type of what is mounted at the target.
pub(crate) fn kind_of(mount: &Mount) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let path = mount.path().to_str().unwrap().to_owned();
    let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(&path)).unwrap();
    line.split(' ').nth(2).unwrap().to_owned()
}

fn layer(entries: impl IntoIterator<Item = Entry>) -> Layer {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    for entry in entries {
        layer.add(entry);
    }
    layer.finish()
}

fn put(registry: &TestRegistry, layer: Layer) -> String {
    ImageBuilder::new().layer(layer).build().put_into(registry, "app", "1");
    let reference = format!("{}/app:1", registry.host());
    index(&reference, &["--min-layer-size", "0", "--span-size", "200000"]);
    reference
}

fn files(registry: &TestRegistry) -> String {
    put(registry, layer((0..4).map(|n| Entry::made(format!("data/{n}"), Texture::Random, n, 300_000))))
}

#[test]
fn the_front_is_the_one_that_was_asked_for() {
    if !can_mount() || !can_mount_erofs() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let reference = files(&registry);
    for (front, kind) in [("auto", "erofs"), ("erofs", "erofs"), ("fuse", "fuse.rawBridge")] {
        let mount = Mount::new(&reference, &["--front", front]);
        assert_eq!(kind_of(&mount), kind, "{front}");
        mount.finish();
    }
    // Ordinary users have FUSE alone.
    let said = Mount::as_user(65534, &reference, &["--front", "erofs"]).err().unwrap();
    assert!(said.contains("only root") && said.contains("--front auto or fuse"), "{said}");
}

#[test]
fn what_erofs_cannot_express_is_served_by_fuse() {
    if !can_mount() || !can_mount_erofs() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let reference =
        put(&registry, layer([Entry::made("file", Texture::Text, 1, 10).xattr("system.odd", "x")]));
    let mount = Mount::new(&reference, &["--front", "auto"]);
    assert_eq!(kind_of(&mount), "fuse.rawBridge");
    assert_eq!(std::fs::read(mount.path().join("file")).unwrap().len(), 10);
    mount.finish();
    let said = Mount::try_new(&reference, &["--front", "erofs"]).err().unwrap();
    assert!(said.contains("an extended attribute of unknown kind"), "{said}");
}

#[test]
fn where_the_kernel_does_not_mount_it_fuse_serves() {
    if !can_mount() || !can_mount_erofs() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let reference = files(&registry);
    // EROFS cannot read an image there.
    let memory = tempfile::tempdir().unwrap();
    rustix::mount::mount("tmpfs", memory.path(), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let root = ["--root", memory.path().to_str().unwrap()];
    let said = Mount::try_new(&reference, &[&["--front", "erofs"], &root[..]].concat()).err().unwrap();
    assert!(said.contains("the kernel cannot mount EROFS"), "{said}");
    let mount = Mount::new(&reference, &[&["--front", "auto"], &root[..]].concat());
    assert_eq!(kind_of(&mount), "fuse.rawBridge");
    assert_eq!(std::fs::read(mount.path().join("data/0")).unwrap().len(), 300_000);
    mount.finish();
    rustix::mount::unmount(memory.path(), rustix::mount::UnmountFlags::empty()).unwrap();
}

#[test]
fn all_users_read_what_root_mounted() {
    if !can_mount() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let reference = files(&registry);
    for front in fronts() {
        let mount = Mount::new(&reference, &["--front", front]);
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(mount.path().parent().unwrap(), open).unwrap();
        // Something that has to be fetched, so that it is this user who asks for it.
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
            .arg(mount.path().join("data/1"))
            .output()
            .unwrap();
        assert_eq!(output.stdout.len(), 300_000, "{front}: {}", String::from_utf8_lossy(&output.stderr));
        mount.finish();
    }
}

#[test]
fn who_waits_for_a_read_can_be_killed() {
    if !can_mount() {
        return;
    }
    for front in fronts() {
        let registry = TestRegistry::builder().start_blocking();
        let reference = files(&registry);
        let mount = Mount::new(&reference, &["--front", front]);
        registry.clear_requests();
        registry.inject(Fault::always(Action::Stall(Duration::from_secs(600))).range_only());
        let mut reader =
            Command::new("cat").arg(mount.path().join("data/2")).stdout(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while registry.requests().is_empty() {
            assert!(Instant::now() < end, "{front}: nothing is read");
            std::thread::sleep(Duration::from_millis(5));
        }
        reader.kill().unwrap();
        while reader.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "{front}: the reader does not die");
            std::thread::sleep(Duration::from_millis(5));
        }
        // The next one gets all of it.
        registry.clear_faults();
        assert_eq!(std::fs::read(mount.path().join("data/2")).unwrap().len(), 300_000, "{front}");
        mount.finish();
    }
}

#[test]
fn a_killed_program_leaves_nothing_in_the_way() {
    if !can_mount() || !can_mount_erofs() {
        return;
    }
    let registry = TestRegistry::builder().start_blocking();
    let reference = files(&registry);
    let mount = Mount::new(&reference, &["--front", "erofs"]);
    let read = std::fs::read(mount.path().join("data/1")).unwrap();
    let path = mount.path();
    let directory = mount.crash();
    // What the kernel has is there, and the rest is an error.
    assert!(is_mounted(&path));
    assert_eq!(std::fs::read_dir(path.join("data")).unwrap().count(), 4);
    assert_eq!(std::fs::read(path.join("data/1")).unwrap(), read);
    let error = std::fs::read(path.join("data/3")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    // The next one, at the same place and with the same root, hides it and clears up.
    let mut command = Command::new(program("soci-snapshotter-grpc"));
    let mut mount = Mount::in_directory(&reference, &["--front", "erofs"], directory, &mut command).unwrap();
    assert_eq!(std::fs::read(path.join("data/3")).unwrap().len(), 300_000);
    assert_eq!(std::fs::read_dir(mount.root().join("mounts")).unwrap().count(), 2);
    mount.signal(Signal::INT);
    assert_eq!(mount.wait().0, Some(0));
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty()).unwrap();
    assert!(!is_mounted(&path));
}
