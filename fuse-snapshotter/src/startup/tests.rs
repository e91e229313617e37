//! Forecasts of made-up images, and of this machine's own programs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use soci_index::oci::ImageConfig;
use testdata::image::{Compression, Entry, Texture};

use super::root::Place;
use super::{Command, Forecast, Part, Root};
use crate::cache::CacheRoot;
use crate::fetch::LayerSource;
use crate::fetch::tests::rig::{Fake, Image, lazy};
use crate::fs::{Forest, ROOT};
use crate::tree::{Below, Tree};

/// A program of this machine, which has dynamic libraries as nearly all have.
const PROGRAM: &str = "/bin/sh";

struct Setup {
    _directory: tempfile::TempDir,
    /// The upper part, in which there is an empty `etc`.
    unpacked: std::path::PathBuf,
    image: Image,
    fake: Arc<Fake>,
    forecast: Arc<Forecast>,
}

fn setup(entries: Vec<Entry>, span_size: u64, config: &str) -> Setup {
    let image = Image::new(Compression::GZIP, span_size, entries);
    let directory = tempfile::tempdir().unwrap();
    let cache = Arc::new(CacheRoot::open(&directory.path().join("cache"), u64::MAX).unwrap());
    let fake = Fake::new(image.blob.clone(), 10_000);
    let layer = lazy(&image, Arc::clone(&fake) as _, &LayerSource::new(cache, 4));
    let tree = Tree::merge(&[&image.ztoc], Below::Nothing).unwrap();
    let forest = Arc::new(Forest::single(tree, vec![layer]).unwrap());
    let unpacked = directory.path().join("unpacked");
    std::fs::create_dir_all(unpacked.join("etc")).unwrap();
    let command = Command::of(&ImageConfig::parse(config.as_bytes()).unwrap()).unwrap();
    let root = Root::new(forest, vec![Part::Directory(unpacked.clone()), Part::Tree(ROOT)]);
    Setup { _directory: directory, unpacked, image, fake, forecast: Forecast::new(root, command) }
}

impl Setup {
    /// The files that were looked at, by their names in the image.
    fn seen(&self) -> BTreeSet<String> {
        let root = &self.forecast.root;
        let names = self.image.ztoc.entries().map(|entry| String::from_utf8_lossy(entry.name).into_owned());
        let seen = &self.forecast.seen.lock().unwrap().0;
        names
            .filter(|name| root.find(name.as_bytes()).is_some_and(|file| seen.contains(&file.place)))
            .collect()
    }
}

/// Files of this machine that a program needs, with the links on the way, as entries of an image.
fn entries_of(paths: &BTreeSet<String>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut made = BTreeSet::new();
    let mut queue: Vec<String> = paths.iter().cloned().collect();
    while let Some(path) = queue.pop() {
        // `/lib` and `/bin` may be links themselves.
        let mut at = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = format!("{at}/{name}");
            let metadata = std::fs::symlink_metadata(&at).unwrap();
            let name = at.trim_start_matches('/').to_owned();
            if metadata.is_symlink() {
                let target = std::fs::read_link(&at).unwrap();
                if made.insert(name.clone()) {
                    entries.push(Entry::symlink(name, target.to_str().unwrap()));
                }
                let rest = path[at.len()..].to_owned();
                let parent = Path::new(&at).parent().unwrap();
                queue.push(format!("{}{rest}", parent.join(target).display()));
                break;
            }
            if metadata.is_file() && made.insert(name.clone()) {
                entries.push(Entry::file(name, std::fs::read(&at).unwrap()).mode(0o755));
            }
        }
    }
    entries
}

#[tokio::test]
async fn a_script_leads_to_a_program_and_its_libraries() {
    // What ldd would say, without running it.
    let maps = std::process::Command::new(PROGRAM).args(["-c", "cat /proc/$$/maps"]).output().unwrap();
    let maps = String::from_utf8_lossy(&maps.stdout).into_owned();
    let files: BTreeSet<_> = maps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5).filter(|path| path.starts_with('/')))
        .map(str::to_owned)
        .chain([PROGRAM.to_owned()])
        .collect();
    // The C library and the linker at least, or this machine is no test.
    assert!(files.len() >= 3, "{files:?}");
    let mut entries = entries_of(&files);
    // The name by which programs ask for the dynamic linker.
    for linker in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"] {
        if Path::new(linker).exists() {
            entries.extend(entries_of(&BTreeSet::from([linker.to_owned()])));
        }
    }
    entries.push(
        Entry::file("entry", format!("#!{PROGRAM}\nset -e\nexec /opt/other --file=/etc/c \"$@\"\n"))
            .mode(0o755),
    );
    entries.push(Entry::symlink("opt/other", "../usr/local/real"));
    entries.push(Entry::file("usr/local/real", "#!/nowhere\n").mode(0o755));
    entries.push(Entry::made("etc/c", Texture::Text, 1, 5000));
    entries.push(Entry::made("etc/d", Texture::Random, 2, 400_000));
    let setup =
        setup(entries, 65536, r#"{"config": {"Entrypoint": ["./entry"], "Cmd": null, "WorkingDir": "/"}}"#);
    let expected = setup.forecast.start().await;
    let seen = setup.seen();
    for file in &files {
        let real = std::fs::canonicalize(file).unwrap();
        let name = real.as_os_str().as_bytes().strip_prefix(b"/").unwrap();
        let name = String::from_utf8_lossy(name).into_owned();
        assert!(seen.contains(&name), "{name} was not expected: {seen:?}");
    }
    assert!(seen.contains("usr/local/real") && seen.contains("etc/c") && !seen.contains("etc/d"), "{seen:?}");
    assert_eq!(expected.files, setup.forecast.seen.lock().unwrap().0.len());
    // What was expected is there: nothing of it is asked for again. What was not, is not.
    let requests = setup.fake.requests().len();
    for name in seen {
        let file = setup.forecast.root.find(name.as_bytes()).unwrap();
        let content = setup.forecast.root.content(&file);
        content.read(0..file.size.min(super::WHOLE)).await.unwrap();
    }
    assert_eq!(setup.fake.requests().len(), requests);
    let other = setup.forecast.root.find(b"etc/d").unwrap();
    setup.forecast.root.content(&other).read(0..other.size).await.unwrap();
    assert!(setup.fake.requests().len() > requests);
}

#[tokio::test]
async fn what_makes_no_sense_is_expected_to_do_nothing() {
    let head = b"\x7fELF\x02\x01\x01\0";
    let entries = vec![
        Entry::symlink("loop", "loop"),
        Entry::symlink("out", "../../../../etc/passwd"),
        Entry::file("short", &head[..]).mode(0o755),
        Entry::file("ones", [&head[..], &[0xff; 5000]].concat()).mode(0o755),
        Entry::file("zeros", [&head[..], &[0; 5000]].concat()).mode(0o755),
        Entry::file("other", [&b"\x7fELF\x01\x02\x01\0"[..], &[0x41; 5000]].concat()).mode(0o755),
        Entry::file("script", "#!/script\nexec script /script ones").mode(0o755),
        Entry::dir("directory"),
    ];
    let config = r#"{"config": {"Cmd": ["/script", "/loop", "/out", "/short", "/ones", "/zeros", "/other", "/directory",
        "/nothing", "", "/", "/../..", "script/x"], "Env": ["PATH=::/:relative"]}}"#;
    let setup = setup(entries, 65536, config);
    setup.forecast.start().await;
    let seen = setup.seen();
    assert!(
        ["short", "ones", "zeros", "other", "script"].iter().all(|name| seen.contains(*name)),
        "{seen:?}"
    );
}

#[test]
fn the_upper_part_and_links_between_parts_are_seen() {
    let entries = vec![
        Entry::file("etc/a", "lower"),
        Entry::symlink("usr/up", "/etc/../etc/b"),
        Entry::file("etc/deep", "12345"),
    ];
    let setup = setup(entries, 65536, r#"{"config": {"Cmd": ["x"]}}"#);
    let root = &setup.forecast.root;
    let unpacked = &setup.unpacked;
    std::fs::write(unpacked.join("etc/b"), "in the upper part").unwrap();
    std::os::unix::fs::symlink("../etc/deep", unpacked.join("down")).unwrap();
    std::os::unix::fs::symlink("/etc", unpacked.join("link")).unwrap();
    assert!(matches!(root.find(b"/usr/up").unwrap().place, Place::Directory(0, _)));
    assert_eq!(root.find(b"/down").unwrap().size, 5);
    assert_eq!(root.find(b"//link/./deep").unwrap().size, 5);
    assert_eq!(root.find(b"/link/deep").unwrap().directory.unwrap(), b"/etc");
    for none in [&b"/etc"[..], b"/etc/c", b"/etc/a/b", b"", b"/", b"/etc/a/"] {
        assert!(root.find(none).is_none() || none == b"/etc/a/", "{none:?}");
    }
}

#[test]
fn configurations_that_make_no_sense_have_no_command() {
    for config in [
        r#"{"config": 5}"#,
        r#"{"config": {"Cmd": "text"}}"#,
        r#"{"config": null}"#,
        "{}",
        r#"{"config": {}}"#,
    ] {
        assert_eq!(Command::of(&ImageConfig::parse(config.as_bytes()).unwrap()), None, "{config}");
    }
}
