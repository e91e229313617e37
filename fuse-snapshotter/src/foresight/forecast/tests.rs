//! Forecasts of made-up images, and of this machine's own programs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use soci_index::oci::ImageConfig;
use testdata::image::{Compression, Entry, Texture};

use super::Forecast;
use super::command::Command;
use super::root::Place;
use super::root::{Root, RootPart};
use crate::content::FetchContext;
use crate::content::cache::CacheRoot;
use crate::content::tests::rig::{Fake, Image, lazy};
use crate::content::tree::{Below, Tree};
use crate::fronts::forest::{Forest, ROOT};

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
    let layer = lazy(&image, Arc::clone(&fake) as _, &FetchContext::new(cache, 4));
    let tree = Tree::merge(&[&image.ztoc], Below::Nothing).unwrap();
    let forest = Arc::new(Forest::single(tree, vec![layer]).unwrap());
    let unpacked = directory.path().join("unpacked");
    std::fs::create_dir_all(unpacked.join("etc")).unwrap();
    let command = Command::of(&ImageConfig::parse(config.as_bytes()).unwrap()).unwrap();
    let root = Root::new(forest, vec![RootPart::Directory(unpacked.clone()), RootPart::Tree(ROOT)]);
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
async fn a_shell_s_text_leads_to_a_runtime_and_what_it_reads_beside() {
    let jdk = |name: &str| format!("usr/lib/jvm/17/{name}");
    let entries = vec![
        Entry::symlink("usr/bin/java", "/etc/alternatives/java"),
        Entry::symlink("etc/alternatives/java", "/usr/lib/jvm/17/bin/java"),
        Entry::file(jdk("bin/java"), std::fs::read(PROGRAM).unwrap()).mode(0o755),
        Entry::made(jdk("lib/server/libjvm.so"), Texture::Binary, 1, 50_000),
        Entry::made(jdk("lib/modules"), Texture::Random, 2, 16 << 20),
        Entry::made(jdk("lib/server/classes.jsa"), Texture::Random, 3, 3 << 20),
        Entry::made("srv/app.jar", Texture::Random, 4, 3 << 20),
        Entry::made("srv/lib/other.jar", Texture::Random, 5, 5000),
        Entry::made("srv/unnamed.jar", Texture::Random, 6, 400_000),
        Entry::made("srv/bin/start.jar", Texture::Random, 7, 1000),
        Entry::symlink("srv/lib/linked.jar", "../share/linked.jar"),
        Entry::made("srv/share/linked.jar", Texture::Random, 8, 1000),
        Entry::made("plugins/one.jar", Texture::Random, 10, 1000),
        Entry::made("srv/data/settings", Texture::Text, 11, 1000),
        Entry::made("srv/data/state/control", Texture::Binary, 12, 8192),
        Entry::made("srv/data/state/log", Texture::Binary, 13, 100_000),
        Entry::made("srv/data/state/deeper/not", Texture::Text, 14, 1000),
    ];
    let config = r#"{"config": {"Cmd": ["/bin/sh", "-c", "LIB=$HOME/lib; exec java -cp ${LIB}/other.jar:bin/start.jar:/plugins/* -D /srv/data -jar app.jar"],
        "WorkingDir": "/srv", "Env": ["HOME=/srv"]}}"#;
    let setup = setup(entries, 65536, config);
    setup.forecast.start().await;
    let seen = setup.seen();
    let wanted = ["bin/java", "lib/server/libjvm.so", "lib/modules", "lib/server/classes.jsa"].map(jdk);
    let wanted = wanted.iter().map(String::as_str).chain([
        "srv/app.jar",
        "srv/lib/other.jar",
        "srv/bin/start.jar",
        "srv/share/linked.jar",
        "plugins/one.jar",
        "srv/data/settings",
        "srv/data/state/control",
    ]);
    assert!(wanted.into_iter().all(|name| seen.contains(name)), "{seen:?}");
    let not = ["srv/unnamed.jar", "srv/data/state/log", "srv/data/state/deeper/not"];
    assert!(not.iter().all(|name| !seen.contains(*name)), "{seen:?}");
    // Of the long ones what is known to be read: the start of the modules, all shared classes, the end of an archive.
    let content =
        |name: &str| setup.forecast.root.content(&setup.forecast.root.find(name.as_bytes()).unwrap());
    let there = |name: &str, range: std::ops::Range<u64>| match content(name) {
        super::FileContent::Lazy { layer, entry, .. } => layer
            .try_read(entry, range.start, &mut vec![0; (range.end - range.start) as usize])
            .unwrap()
            .is_some(),
        _ => false,
    };
    let mib = 1 << 20;
    assert!(there(&jdk("lib/modules"), 0..3 * mib) && !there(&jdk("lib/modules"), 4 * mib..5 * mib));
    assert!(there(&jdk("lib/server/classes.jsa"), 0..3 * mib));
    assert!(there("srv/app.jar", 3 * mib - 100_000..3 * mib) && !there("srv/app.jar", mib..2 * mib));
}

#[test]
fn only_a_shell_that_is_given_text_runs_text() {
    let text = |words: &str| {
        let config = format!(r#"{{"config": {{"Cmd": {words}}}}}"#);
        let command = Command::of(&ImageConfig::parse(config.as_bytes()).unwrap()).unwrap();
        command.text().map(|text| String::from_utf8_lossy(text).into_owned())
    };
    assert_eq!(text(r#"["/bin/bash", "-e", "-c", "a b"]"#).unwrap(), "a b");
    assert_eq!(text(r#"["sh", "-exc", "a", "b"]"#).unwrap(), "a");
    assert_eq!(text(r#"["/bin/bash", "-o", "pipefail", "-c", "a"]"#).unwrap(), "a");
    for none in [
        r#"["sh", "script"]"#,
        r#"["sh", "-c"]"#,
        r#"["python3", "-c", "a"]"#,
        r#"["sh", "/file", "-c", "a"]"#,
    ] {
        assert_eq!(text(none), None, "{none}");
    }
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
    assert_eq!(root.find(b"/link/deep").unwrap().directory().unwrap(), b"/etc");
    assert_eq!(root.list(b"/link").unwrap(), [&b"/etc/a"[..], b"/etc/b", b"/etc/deep"]);
    assert!(root.list(b"/etc/a").is_none() && root.list(b"/none").is_none());
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
