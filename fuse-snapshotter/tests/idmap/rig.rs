//! A snapshotter with an image, and containers of it as containerd would mount them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fuse_snapshotter::snapshotter::store::{Commit, Kind, Labels, NewSnapshot, SnapshotStore, Usage};
use fuse_snapshotter::snapshotter::{
    IdMapping, Layout, Mount, Options, Prepared, Record, RecordedMode, SnapshotError, Snapshotter, labels,
};
use registry::{Client, ClientConfig, Digest};
use rustix::fs::{CWD, FileType, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use testdata::image::{Compression, Entry, LayerBuilder};
use testdata::need::{Need, available};
use testdata::registry::TestRegistry;
use tokio::runtime::Runtime;
use ztoc::{BuildOptions, Builder};

pub(crate) const MAPPED: &[&str] = &["0:100000:65536", "0:100000:65536"];

/// What `setcap cap_net_bind_service+ep` writes.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

static ALONE: Mutex<()> = Mutex::new(());

/// Runs tests one by one, for they count what the process has. `None` if they cannot run here.
pub(crate) fn alone() -> Option<MutexGuard<'static, ()>> {
    available(&[Need::Root, Need::Fuse]).then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) struct Rig {
    runtime: Runtime,
    _registry: TestRegistry,
    snapshotter: Option<Arc<Snapshotter>>,
    directory: tempfile::TempDir,
}

/// An overlay, which is unmounted in the end.
pub(crate) struct Merged(tempfile::TempDir);

impl Merged {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::empty()).unwrap();
    }
}

fn layer(
    registry: &TestRegistry,
    layout: &Layout,
    reference: &str,
    entries: impl IntoIterator<Item = Entry>,
) -> Record {
    let mut layer = LayerBuilder::new(Compression::GZIP);
    for entry in entries {
        layer.add(entry);
    }
    let bytes = layer.finish().bytes();
    let mut builder = Builder::new(BuildOptions::new(ztoc::Compression::Gzip)).unwrap();
    builder.push(bytes.clone()).unwrap();
    let ztoc = builder.finish().unwrap().bytes;
    let digest = Digest::of(&ztoc);
    fs::create_dir_all(layout.ztocs()).unwrap();
    fs::write(layout.ztocs().join(digest.hex()), &ztoc).unwrap();
    let size = bytes.len() as u64;
    let layer: Digest = registry.put_blob(bytes).parse().unwrap();
    let mode = RecordedMode::Lazy { ztoc: digest.clone(), index: digest.clone() };
    Record { image: reference.to_owned(), manifest: digest, layer, size, mode, others: Vec::new() }
}

/// Adds a layer on top of the others.
fn commit(store: &SnapshotStore, number: usize, record: Option<&Record>) -> u64 {
    let (key, name) = (format!("unpack-{number}"), format!("layer-{number}"));
    let parent = (number > 0).then(|| format!("layer-{}", number - 1));
    let parent = parent.as_deref();
    let labels = Labels::new();
    let new = NewSnapshot { kind: Kind::Active, key: &key, parent, labels, record: None };
    store.create(new).unwrap();
    let record = record.and_then(Record::encode);
    let (labels, usage) = (Labels::new(), Usage::default());
    store.commit(Commit { key: &key, name: &name, parent, labels, usage, record }).unwrap()
}

/// A layer as containerd or we would have unpacked it.
fn unpacked(root: &Path) {
    fs::create_dir_all(root.join("directory/opaque")).unwrap();
    let make = |path: &str, mode: u32, owner: u32| {
        let path = root.join(path);
        fs::write(&path, path.as_os_str().as_encoded_bytes()).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    make("directory/file", 0o644, 0);
    make("directory/setuid", 0o4755, 12);
    make("directory/beyond", 0o644, 70_000);
    make("directory/capable", 0o755, 0);
    make("directory/opaque/new", 0o600, 3);
    fs::hard_link(root.join("directory/file"), root.join("directory/again")).unwrap();
    fs::hard_link(root.join("directory/file"), root.join("top")).unwrap();
    symlink("file", root.join("directory/link")).unwrap();
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("directory/capable", "security.capability", &CAPABILITY);
    set("directory/file", "user.note", b"text");
    // Of the lazy layers below it hides one name, and all that is in a directory.
    fs::create_dir(root.join("lazy")).unwrap();
    rustix::fs::mknodat(
        CWD,
        root.join("lazy/hidden"),
        FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    )
    .unwrap();
    fs::create_dir(root.join("lazy/opaque")).unwrap();
    set("lazy/opaque", "trusted.overlay.opaque", b"y");
}

impl Rig {
    /// With an image of two lazy layers, an unpacked one, and one more that is lazy.
    pub(crate) fn new(how: IdMapping) -> Self {
        let registry = TestRegistry::builder().start_blocking();
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(&directory.path().join("root")).unwrap();
        let reference = format!("{}/app:latest", registry.host());
        let record = |entries: Vec<Entry>| layer(&registry, &layout, &reference, entries);
        let records = [
            Some(record(vec![
                Entry::dir("lazy").mode(0o750).owner(5, 6),
                Entry::file("lazy/hidden", "x"),
                Entry::dir("lazy/opaque"),
                Entry::file("lazy/opaque/hidden", "x"),
                Entry::file("lazy/file", "content").owner(70_000, 1),
                Entry::hard_link("lazy/linked", "lazy/file"),
                Entry::file("lazy/capable", "x").owner(1000, 1000).xattr("security.capability", CAPABILITY),
                Entry::file("lazy/setuid", "x").mode(0o6755),
                Entry::symlink("lazy/link", "file").owner(3, 4),
            ])),
            Some(record(vec![
                Entry::char_device("lazy/device", 1, 3),
                Entry::file("lazy/second", "more").xattr("user.note", "x"),
            ])),
            None,
            Some(record(vec![
                Entry::file("directory/from-above", "x").owner(9, 9),
                Entry::whiteout("directory/.wh.beyond"),
                Entry::dir("above").mode(0o1777),
            ])),
        ];
        let store = SnapshotStore::open(&layout.store()).unwrap();
        for (number, record) in records.iter().enumerate() {
            let id = commit(&store, number, record.as_ref());
            if record.is_none() {
                fs::create_dir_all(layout.fs(id)).unwrap();
                unpacked(&layout.fs(id));
            }
        }
        drop(store);
        let runtime = Runtime::new().unwrap();
        let mut rig = Self { runtime, _registry: registry, snapshotter: None, directory };
        rig.start(how);
        rig
    }

    pub(crate) fn start(&mut self, how: IdMapping) {
        let program = env!("CARGO_BIN_EXE_soci-snapshotter-grpc").into();
        let client = Client::new(ClientConfig::default()).unwrap();
        let options = Options {
            user_namespace_program: (program, vec!["hold-user-namespace".to_owned()]),
            id_mapping: how,
            ..Options::new(self.directory.path().join("root"), client)
        };
        // The threads that serve the kernel are not waited for, and let go of the cache when they end.
        let end = Instant::now() + Duration::from_secs(10);
        self.snapshotter = Some(loop {
            match Snapshotter::open(options.clone(), self.runtime.handle().clone()) {
                Err(SnapshotError::Unavailable(reason))
                    if reason.ends_with("in use by another process") && Instant::now() < end =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                opened => break opened.unwrap(),
            }
        });
    }

    /// Ends the snapshotter as a restart does.
    pub(crate) fn stop(&mut self) {
        self.snapshotter.take().unwrap().leave();
    }

    fn snapshotter(&self) -> &Arc<Snapshotter> {
        self.snapshotter.as_ref().unwrap()
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.directory.path().join("root/snapshotter/snapshots")
    }

    /// A container, with a mapping of users and one of groups.
    pub(crate) fn prepare(&self, key: &str, mapping: &[&str]) -> Result<Vec<Mount>, SnapshotError> {
        let names = [labels::UID_MAPPING, labels::GID_MAPPING];
        let given = names.iter().zip(mapping).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let preparing = self.snapshotter().prepare(Some("test"), key, "layer-3", given.collect());
        match self.runtime.block_on(preparing)? {
            Prepared::Mounts(mounts) => Ok(mounts),
            Prepared::Ready(target) => panic!("a container is no layer, as {target} is"),
        }
    }

    /// Mounts a container's root.
    pub(crate) fn mount(&self, key: &str) -> Merged {
        let mounts = self.runtime.block_on(self.snapshotter().mounts(key)).unwrap();
        let [mount] = &mounts[..] else { panic!("{mounts:?}") };
        assert_eq!(mount.kind, "overlay");
        let merged = tempfile::tempdir_in(self.directory.path()).unwrap();
        let options = std::ffi::CString::new(mount.options.join(",")).unwrap();
        rustix::mount::mount(
            "overlay",
            merged.path(),
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        Merged(merged)
    }

    /// The same request several times at once.
    pub(crate) fn mounts_at_once(&self, key: &str, times: usize) -> Vec<Vec<Mount>> {
        self.runtime.block_on(async {
            let requests = (0..times).map(|_| {
                let (snapshotter, key) = (Arc::clone(self.snapshotter()), key.to_owned());
                tokio::spawn(async move { snapshotter.mounts(&key).await.unwrap() })
            });
            let mut answers = Vec::new();
            for request in requests.collect::<Vec<_>>() {
                answers.push(request.await.unwrap());
            }
            answers
        })
    }

    pub(crate) fn remove(&self, key: &str) {
        self.runtime.block_on(self.snapshotter().remove(key)).unwrap();
    }

    pub(crate) fn cleanup(&self) {
        self.runtime.block_on(self.snapshotter().cleanup()).unwrap();
    }

    /// How many numbers there are for layers with other owners.
    pub(crate) fn mapped_numbers(&self) -> usize {
        self.snapshotter().mapped_layers().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(snapshotter) = self.snapshotter.take() {
            snapshotter.unmount_all();
        }
    }
}
