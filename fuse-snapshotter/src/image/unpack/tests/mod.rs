#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod formats;
mod golden;
mod hostile;
mod layer;
mod oracle;
mod random;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// Everything about a file that a layer can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: &'static str,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, i64),
    pub(super) device: u64,
    /// File contents, or what a link leads to.
    pub(super) content: Vec<u8>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// First path of the same inode.
    pub(super) same_as: Vec<u8>,
}

/// A directory tree, by path; the root is "".
pub(super) fn tree(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = path.symlink_metadata().unwrap();
        let key = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let kind = meta.file_type();
        let (kind, content) = if kind.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            ("dir", Vec::new())
        } else if kind.is_symlink() {
            ("symlink", std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            ("file", std::fs::read(&path).unwrap())
        } else if kind.is_char_device() {
            ("char", Vec::new())
        } else if kind.is_block_device() {
            ("block", Vec::new())
        } else {
            ("fifo", Vec::new())
        };
        let mut names = vec![0; 65536];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
        let xattrs = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        });
        let node = Node {
            kind,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            device: meta.rdev(),
            content,
            xattrs: xattrs.collect(),
            same_as: Vec::new(),
        };
        inodes.entry(meta.ino()).or_insert_with(Vec::new).push(key.clone());
        nodes.insert(key, node);
    }
    for mut paths in inodes.into_values() {
        paths.sort();
        for path in &paths {
            nodes.get_mut(path).unwrap().same_as.clone_from(&paths[0]);
        }
    }
    nodes
}

/// Compares trees and names the first differences only.
pub(super) fn assert_same(ours: &BTreeMap<Vec<u8>, Node>, theirs: &BTreeMap<Vec<u8>, Node>, what: &str) {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for path in paths {
        let shorten = |node: Option<&Node>| {
            node.map(|node| Node {
                content: node.content[..node.content.len().min(80)].to_vec(),
                ..node.clone()
            })
        };
        if ours.get(path) != theirs.get(path) {
            panic!(
                "{what}: {:?} differs\n ours   {:?}\n theirs {:?}",
                String::from_utf8_lossy(path),
                shorten(ours.get(path)),
                shorten(theirs.get(path))
            );
        }
    }
}

/// Whether tests can use what only root can; says so if not, and fails in CI.
pub(super) fn is_root() -> bool {
    testdata::need::available(&[testdata::need::Need::Root])
}

/// Runs the current test again as nobody when it was started by root, and says whether it did.
///
/// Also for tests with archives at random: were the unpacker ever to follow a link out of its target, root would
/// change the machine it runs on.
pub(super) fn ran_as_nobody() -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    // The test binary may be where nobody cannot go.
    let place = tempfile::tempdir().unwrap();
    let binary = place.path().join("tests");
    testdata::copied::copy_program(&std::env::current_exe().unwrap(), &binary);
    let temporary = place.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    std::os::unix::fs::chown(&temporary, Some(NOBODY), Some(NOBODY)).unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = std::process::Command::new(&binary)
        .args(["--exact", std::thread::current().name().unwrap()])
        .env("TMPDIR", &temporary)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "as nobody: {stdout}");
    true
}

/// Unpacks into a new directory.
pub(super) fn unpack_bytes(layer: &[u8]) -> Result<(TempDir, Unpacked), UnpackError> {
    unpack_with(layer, &Options::default())
}

pub(super) fn unpack_with(layer: &[u8], options: &Options) -> Result<(TempDir, Unpacked), UnpackError> {
    let target = tempfile::tempdir().unwrap();
    let unpacked = unpack(layer, None, target.path(), options)?;
    Ok((target, unpacked))
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// Writes archives that no tar would.
#[derive(Debug, Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    pub(super) fn raw(
        &mut self,
        typeflag: u8,
        name: &[u8],
        link: &[u8],
        size: u64,
        edit: impl Fn(&mut [u8; 512]),
    ) {
        let mut block = [0u8; 512];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        block[100..107].copy_from_slice(if typeflag == b'5' { b"0000755" } else { b"0000644" });
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"14712345670");
        block[156] = typeflag;
        block[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        block[257..265].copy_from_slice(b"ustar\x0000");
        edit(&mut block);
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
    }

    pub(super) fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn entry(mut self, typeflag: u8, name: &str, link: &str) -> Self {
        self.raw(typeflag, name.as_bytes(), link.as_bytes(), 0, |_| {});
        self
    }

    pub(super) fn file(mut self, name: &str, data: &[u8]) -> Self {
        self.raw(b'0', name.as_bytes(), b"", data.len() as u64, |_| {});
        self.data(data)
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "")
    }

    pub(super) fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(b'2', name, to)
    }

    pub(super) fn link(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name, to)
    }

    pub(super) fn device(mut self, typeflag: u8, name: &str, major: u32, minor: u32) -> Self {
        self.raw(typeflag, name.as_bytes(), b"", 0, |block| {
            block[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
            block[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
        });
        self
    }

    pub(super) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.raw(b'x', b"pax", b"", content.len() as u64, |_| {});
        self.data(&content)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
