//! Building the images, once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::pack::pack;
use super::recipe::{OWN, RECIPES, Recipe, SHARED, SUITE, Step};
use super::startup::STARTUP;
use super::{LayerRecord, Record, Workloads, blob};
use crate::digest::sha256;

/// A base system as small as debootstrap makes it.
pub(super) const BASE: &str = r#"
mirror=$1
debootstrap --variant=minbase "$SUITE" layers/0/upper "$mirror" > debootstrap.log 2>&1 || { tail -20 debootstrap.log; exit 1; }
cd layers/0/upper
rm -rf var/cache/apt/archives/*.deb var/cache/apt/*.bin var/log/bootstrap.log
{
    echo "deb $mirror $SUITE main"
} > etc/apt/sources.list
printf '#!/bin/sh\nexit 101\n' > usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
# Images are thrown away when this fails half-way; there is no need to wait for the disk.
echo force-unsafe-io > etc/dpkg/dpkg.cfg.d/unsafe-io
: > etc/resolv.conf
: > etc/hostname
"#;

/// Runs a step in the overlay of all layers below and an upper directory. The mounts are in a mount namespace that ends
/// with the shell, so nothing stays mounted whatever happens. Package lists and archives, the resolver's configuration
/// and /proc are those of outside.
const STEP: &str = r#"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
mount -t proc proc "$4/proc"
mount --bind "$5/lists" "$4/var/lib/apt/lists"
mount --bind "$5/archives" "$4/var/cache/apt"
mount --bind /etc/resolv.conf "$4/etc/resolv.conf"
exec chroot "$4" sh -euc "cd /
$6"
"#;

/// A directory below `target`, whose file system can hold upper directories of overlays where that of `/tmp` often
/// cannot. It is removed when the value is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A new directory beside the cache.
pub(super) fn scratch(name: &str) -> Scratch {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = cache().join(format!("{name}-{}-{number}", std::process::id()));
    // This process's number may have been another's, who was killed.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    Scratch(directory)
}

pub(super) fn cache() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    fs::create_dir_all(target.join("workloads")).unwrap();
    target.join("workloads").canonicalize().unwrap()
}

/// Finds or builds the images.
pub(super) fn get() -> Workloads {
    let sources = [include_str!("recipe.rs"), include_str!("build.rs"), include_str!("pack.rs")].concat();
    let digest = sha256(sources.as_bytes());
    let cache = cache();
    let directory = cache.join(&digest["sha256:".len()..][..16]);
    // Released when the file is closed, also by a process that is killed.
    let lock = File::create(cache.join("lock")).unwrap();
    lock.lock().unwrap();
    if !directory.join("images.json").exists() {
        // What other recipes made, and builders that were killed, would only pile up.
        for entry in fs::read_dir(&cache).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
            let name = entry.file_name();
            if !["unpacked-", STARTUP].iter().any(|kept| name.to_string_lossy().starts_with(kept)) {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        let scratch = scratch("build");
        build(scratch.path());
        fs::create_dir_all(&directory).unwrap();
        fs::rename(scratch.path().join("layout"), directory.join("layout")).unwrap();
        fs::rename(scratch.path().join("images.json"), directory.join("images.json")).unwrap();
    }
    let records: Vec<Record> =
        serde_json::from_slice(&fs::read(directory.join("images.json")).unwrap()).unwrap();
    let layout = directory.join("layout");
    Workloads { all: records.iter().map(|record| record.workload(&layout)).collect(), directory }
}

/// Builds everything in a directory: `layout`, `images.json`.
fn build(directory: &Path) {
    for name in ["layers/0/upper", "layout/blobs/sha256", "cache/lists", "cache/archives"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    run(
        Command::new("sh").args(["-euc", BASE, "sh", &mirror()]).env("SUITE", SUITE).current_dir(directory),
        "base",
    );
    let layers = directory.join("layers");
    let mut stack = vec![layers.join("0/upper")];
    for (number, step) in SHARED.iter().enumerate() {
        let layer = layers.join((number + 1).to_string());
        work(step, &stack, &layer, &directory.join("cache"), None);
        stack.push(layer.join("upper"));
    }
    let shared: Vec<LayerRecord> = std::thread::scope(|scope| {
        // The base is large: it is packed while the images are made.
        let packing = scope.spawn(|| stack.iter().map(|upper| blob_of(upper, directory)).collect());
        let records = images(directory, &stack);
        let shared: Vec<LayerRecord> = packing.join().unwrap();
        let records: Vec<Record> = records
            .into_iter()
            .map(|record| Record { layers: [shared.clone(), record.layers].concat(), ..record })
            .collect();
        fs::write(directory.join("images.json"), serde_json::to_vec_pretty(&records).unwrap()).unwrap();
        write_layout(&directory.join("layout"), &records);
        shared
    });
    assert_eq!(shared.len(), SHARED.len() + 1);
}

/// Makes the images' own layers, two images at a time: package scripts use one processor.
fn images(directory: &Path, shared: &[PathBuf]) -> Vec<Record> {
    let todo = Mutex::new(RECIPES.iter().enumerate().collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().unwrap().pop();
                    let Some((number, recipe)) = next else { return };
                    let record = image(recipe, directory, shared);
                    done.lock().unwrap().push((number, record));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, record)| record).collect()
}

/// The layers of one image above the shared ones.
fn image(recipe: &Recipe, directory: &Path, shared: &[PathBuf]) -> Record {
    let mut stack = shared.to_vec();
    // apt locks its directories.
    let cache = directory.join(format!("cache-{}", recipe.name));
    fs::create_dir_all(cache.join("archives")).unwrap();
    run(Command::new("cp").arg("-a").arg(directory.join("cache/lists")).arg(&cache), "package lists");
    for step in OWN {
        let layer = directory.join("layers").join(format!("{}-{}", recipe.name, step.name));
        work(step, &stack, &layer, &cache, Some(recipe));
        stack.push(layer.join("upper"));
    }
    let layers = stack[shared.len()..].iter().map(|upper| blob_of(upper, directory)).collect();
    Record { name: recipe.name.into(), ready: recipe.ready.into(), layers }
}

/// Does a step; its layer is in `layer/upper`.
pub(super) fn work(step: &Step, stack: &[PathBuf], layer: &Path, cache: &Path, recipe: Option<&Recipe>) {
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(layer.join(name)).unwrap();
    }
    // A new upper directory would hide what the root directory is like below.
    let below = stack.last().unwrap();
    run(Command::new("chmod").arg("--reference").arg(below).arg(layer.join("upper")), "root directory");
    let lower: Vec<_> = stack.iter().rev().map(|path| path.display().to_string()).collect();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-euc", STEP, "sh"])
        .arg(lower.join(":"))
        .args(["upper", "work", "merged"].map(|name| layer.join(name)))
        .arg(cache)
        .arg(step.script)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive");
    for proxy in ["http_proxy", "https_proxy", "no_proxy"] {
        if let Ok(value) = std::env::var(proxy) {
            command.env(proxy, value);
        }
    }
    if let Some(recipe) = recipe {
        command.env("NAME", recipe.name).env("PACKAGES", recipe.packages).env("ENTRY", recipe.entry);
    }
    run(&mut command, &format!("{} {}", recipe.map_or("shared", |recipe| recipe.name), step.name));
}

/// Packs an upper directory into the layout's blobs.
pub(super) fn blob_of(upper: &Path, directory: &Path) -> LayerRecord {
    let layer = pack(upper, &upper.with_file_name("layer"));
    let layout = directory.join("layout");
    fs::rename(upper.with_file_name("layer"), blob(&layout, &layer.digest)).unwrap();
    LayerRecord::of(&layer)
}

/// Adds configurations, manifests and the layout's index.
pub(super) fn write_layout(layout: &Path, records: &[Record]) {
    let mut manifests = Vec::new();
    let mut written = BTreeSet::new();
    for record in records {
        let workload = record.workload(layout);
        let (config, manifest) = (workload.image.config(), workload.image.manifest());
        for bytes in [&config, &manifest] {
            let digest = sha256(bytes);
            if written.insert(digest.clone()) {
                fs::write(blob(layout, &digest), bytes).unwrap();
            }
        }
        manifests.push(json!({
            "mediaType": workload.image.media_type(),
            "digest": workload.image.digest(),
            "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": record.name },
        }));
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// The mirror of Debian that this machine uses, if it is one.
pub(super) fn mirror() -> String {
    const SOURCES: &str = "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        sed -n 's/^URIs: *//p; s/^deb \\(\\[[^]]*\\] \\)\\?\\(http[^ ]*\\) .*/\\2/p' | grep '/debian/*$' | head -1";
    let output = Command::new("sh").args(["-c", SOURCES]).output().unwrap();
    let mirror = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if mirror.is_empty() { "http://deb.debian.org/debian".into() } else { mirror }
}

pub(super) fn run(command: &mut Command, what: &str) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
