//! Random trees and random archives.

use std::path::PathBuf;

use proptest::prelude::*;

use super::oracle::{gnu_tar, pack};
use super::*;

/// Few names, so that they meet.
fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ".", "..", "ab"]), 1..5)
        .prop_map(|parts| parts.join("/"))
}

#[derive(Debug, Clone)]
enum Step {
    Dir(String, u32),
    File(String, usize, u32),
    Symlink(String, String),
    Link(String, String),
    Fifo(String),
    Whiteout(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (name(), 0u32..0o10000).prop_map(|(path, mode)| Step::Dir(path, mode)),
        (name(), 0usize..3000, 0u32..0o10000).prop_map(|(path, size, mode)| Step::File(path, size, mode)),
        (name(), name()).prop_map(|(path, to)| Step::Symlink(path, to)),
        (name(), name()).prop_map(|(path, to)| Step::Link(path, to)),
        name().prop_map(Step::Fifo),
        name().prop_map(Step::Whiteout),
    ]
}

/// Where a step may act: below `root`, through real directories only, which are made if they are missing. `None`
/// if there is a link or a file on the way. Tests run as root and the links lead anywhere, `/` included: what is
/// made or changed through one of them would be the machine's own.
fn place_for(root: &Path, name: &str) -> Option<PathBuf> {
    let path = place::clean(name.as_bytes()).unwrap();
    let mut at = root.to_path_buf();
    let mut names = path.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next().filter(|name| !name.is_empty()) {
        at.push(std::ffi::OsStr::from_bytes(name));
        if names.peek().is_none() {
            return Some(at);
        }
        match at.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return None,
            Err(_) => std::fs::create_dir(&at).unwrap(),
        }
    }
    None
}

/// Makes what can be made of the steps on a real file system. What exists is left alone.
fn make(root: &Path, steps: &[Step]) {
    use std::os::unix::fs::PermissionsExt as _;
    for (i, step) in steps.iter().enumerate() {
        let (Step::Dir(name, _)
        | Step::File(name, ..)
        | Step::Symlink(name, _)
        | Step::Link(name, _)
        | Step::Fifo(name)
        | Step::Whiteout(name)) = step;
        let Some(path) = place_for(root, name).filter(|path| path.symlink_metadata().is_err()) else {
            continue;
        };
        match step {
            Step::Dir(_, mode) => {
                std::fs::create_dir(&path).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Step::File(_, size, mode) => {
                std::fs::write(&path, vec![b'x'; *size]).unwrap();
                std::os::unix::fs::lchown(&path, Some(i as u32), Some(2 * i as u32)).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Step::Symlink(_, to) => std::os::unix::fs::symlink(to, &path).unwrap(),
            Step::Link(_, to) => {
                let target = place_for(root, to)
                    .filter(|target| target.symlink_metadata().is_ok_and(|meta| !meta.is_dir()));
                let Some(target) = target else { continue };
                std::fs::hard_link(target, &path).unwrap();
            }
            Step::Fifo(_) => {
                let mode = rustix::fs::Mode::RUSR;
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            Step::Whiteout(_) => continue,
        }
        let time = rustix::fs::Timespec { tv_sec: 1_600_000_000 + i as i64, tv_nsec: 5 * i as i64 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags).unwrap();
    }
}

/// Runs `work` in a directory so deep that none of the links lead out of the temporary one, and checks that
/// nothing around it changed.
fn contained<T>(work: impl FnOnce(&Path) -> T) -> (TempDir, PathBuf, T) {
    let around = tempfile::tempdir().unwrap();
    let inner = around.path().join("1/2/3/4/5");
    std::fs::create_dir_all(&inner).unwrap();
    let outside = || -> BTreeMap<_, _> {
        tree(around.path()).into_iter().filter(|(path, _)| !path.starts_with(b"1/2/3/4/5")).collect()
    };
    let before = outside();
    let result = work(&inner);
    assert_same(&outside(), &before, "around the target");
    (around, inner, result)
}

fn archive(steps: &[Step]) -> Vec<u8> {
    let mut tar = Tar::default();
    for step in steps {
        tar = match step {
            Step::Dir(path, mode) => {
                // The tests that use these are not root, and look inside.
                let mode = mode | 0o700;
                tar.raw(b'5', path.as_bytes(), b"", 0, |block| {
                    block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
                });
                tar
            }
            Step::File(path, size, _) => tar.file(path, &vec![b'x'; *size]),
            Step::Symlink(path, to) => tar.symlink(path, to),
            Step::Link(path, to) => tar.link(path, to),
            Step::Fifo(path) => tar.entry(b'6', path, ""),
            Step::Whiteout(path) => match path.rsplit_once('/') {
                Some((parent, name)) => tar.file(&format!("{parent}/.wh.{name}"), b""),
                None => tar.file(&format!(".wh.{path}"), b""),
            },
        };
    }
    tar.end()
}

/// What the archive means, on paths instead of a file system: kinds of the final tree.
fn model(steps: &[Step]) -> Result<BTreeMap<Vec<u8>, &'static str>, ()> {
    let mut nodes: BTreeMap<Vec<u8>, &'static str> = BTreeMap::from([(Vec::new(), "dir")]);
    fn remove(nodes: &mut BTreeMap<Vec<u8>, &'static str>, path: &[u8]) {
        let below = [path, b"/"].concat();
        nodes.retain(|other, _| other != path && !other.starts_with(&below));
    }
    for step in steps {
        let (name, kind) = match step {
            Step::Dir(path, _) => (path, "dir"),
            Step::File(path, ..) => (path, "file"),
            Step::Symlink(path, _) => (path, "symlink"),
            Step::Link(path, _) => (path, "link"),
            Step::Fifo(path) => (path, "fifo"),
            Step::Whiteout(path) => (path, "char"),
        };
        let mut path = place::clean(name.as_bytes()).unwrap();
        if kind == "char" {
            let (parent, last) = name.rsplit_once('/').unwrap_or(("", name));
            if last == "." || last == ".." {
                return Err(());
            }
            path = place::clean(format!("{parent}/{last}").as_bytes()).unwrap();
        }
        if path.is_empty() {
            continue;
        }
        for slash in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at) {
            if nodes.get(&path[..slash]) != Some(&"dir") {
                nodes.insert(path[..slash].to_vec(), "dir");
            }
        }
        let kind = match step {
            Step::Link(_, to) => {
                let to = place::clean(to.as_bytes()).unwrap();
                match nodes.get(&to).copied() {
                    None | Some("dir") => return Err(()),
                    // What it replaces may hold what it leads to.
                    Some(_) if to.starts_with(&[&path[..], b"/"].concat()) => return Err(()),
                    Some(kind) => kind,
                }
            }
            _ => kind,
        };
        match (nodes.get(&path).copied(), kind) {
            (Some("dir"), "dir") => {}
            (Some(_), "char") if matches!(step, Step::Whiteout(_)) => {}
            _ => {
                remove(&mut nodes, &path);
                nodes.insert(path, kind);
            }
        }
    }
    Ok(nodes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unpack_equals_gnu_tar(steps in prop::collection::vec(step(), 0..30), gnu: bool) {
        if is_root() {
            let (_around, made, ()) = contained(|root| make(root, &steps));
            let archive = pack(&made, &[if gnu { "--format=gnu" } else { "--format=posix" }]);
            let (_around, ours, result) = contained(|target| unpack(&archive[..], None, target, &Options::default()));
            result.unwrap();
            assert_same(&tree(&ours), &tree(gnu_tar(&archive).path()), "random");
        }
    }
}

/// Gives back the rights to remove what an archive with odd modes left.
fn make_removable(root: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let entries = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap());
        pending.extend(entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()));
    }
}

#[test]
fn archives_mean_what_the_model_says() {
    if !ran_as_nobody() {
        check_meaning();
    }
}

#[test]
fn damaged_archives_do_not_panic() {
    if !ran_as_nobody() {
        check_damaged();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    fn check_meaning(steps in prop::collection::vec(step(), 0..30)) {
        let archive = archive(&steps);
        let (_around, ours, result) = contained(|target| unpack(&archive[..], None, target, &Options::default()));
        match (model(&steps), result) {
            (Ok(expected), Ok(_)) => {
                let ours: BTreeMap<_, _> =
                    tree(&ours).into_iter().map(|(path, node)| (path, node.kind)).collect();
                prop_assert_eq!(ours, expected);
            }
            (Err(()), Err(_)) => {}
            (model, result) => prop_assert!(false, "{model:?} but {result:?}"),
        }
    }

    fn check_damaged(
        steps in prop::collection::vec(step(), 1..10),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        fix in any::<bool>(),
    ) {
        let mut bytes = archive(&steps);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
            if fix {
                // With a checksum that is right, the damage gets further.
                let block = at / 512 * 512;
                let block = &mut bytes[block..block + 512];
                block[148..156].fill(b' ');
                let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let limits = Limits { file_size: 1 << 20, ..Limits::default() };
        let options = Options { limits, ..Options::default() };
        let target = tempfile::tempdir().unwrap();
        let _ = unpack(&bytes[..], None, target.path(), &options);
        make_removable(target.path());
    }
}
