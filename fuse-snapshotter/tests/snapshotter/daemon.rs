//! The daemon as a process.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testdata::docker_registry::DockerRegistry;
use testdata::image::Image;

/// How long anything may take that should be quick.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A built program of this workspace.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_soci-snapshotter-grpc"));
    let path = own.with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// Puts an image into a registry; returns its reference there.
pub(crate) fn publish(registry: &DockerRegistry, image: &Image, name: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    image.write_layout(directory.path(), "v1");
    registry.copy(&format!("oci:{}:v1", directory.path().display()), name)
}

/// Builds the index of an image in a registry and pushes it beside the image; returns the index's digest.
pub(crate) fn index(reference: &str, arguments: &[&str]) -> String {
    let root = tempfile::tempdir().unwrap();
    let output = Command::new(program("soci"))
        .arg("--root")
        .arg(root.path())
        .args(["create", "--quiet", "--push"])
        .args(arguments)
        // Not from a containerd that this machine may have.
        .arg(format!("docker://{reference}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits until something holds, or says what does not.
pub(crate) fn eventually(what: &str, patience: Duration, mut check: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + patience;
    loop {
        match check() {
            Ok(()) => return,
            Err(why) => assert!(Instant::now() < end, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A daemon with a root directory and a socket of its own. Dropping it ends it and unmounts what is left.
pub(crate) struct Daemon {
    child: Option<Child>,
    home: TempDir,
}

impl Daemon {
    /// A place for one; it does not run yet, but its socket's path is known.
    pub(crate) fn new() -> Self {
        // A short path: it appears in the options of overlays once for every layer.
        Self { child: None, home: tempfile::Builder::new().prefix("sd").tempdir().unwrap() }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    /// A file in the daemon's home, for what a test needs.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Replaces the configuration; the next start reads it.
    pub(crate) fn configure(&self, toml: &str) {
        fs::write(self.file("config.toml"), toml).unwrap();
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none());
        if !self.file("config.toml").exists() {
            self.configure("");
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.file("log")).unwrap();
        let child = Command::new(program("soci-snapshotter-grpc"))
            .args(["--log-level", "debug", "--address"])
            .arg(self.socket())
            .arg("--root")
            .arg(self.root())
            .arg("--config")
            .arg(self.file("config.toml"))
            // Nothing of this machine's user.
            .env("HOME", self.home.path())
            .env("RUST_BACKTRACE", "1")
            .env_remove("DOCKER_CONFIG")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "it does not start ({ended:?}):\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal and waits for the end, which must come soon; SIGTERM and SIGINT end it with status 0.
    pub(crate) fn stop(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        kill_process(Pid::from_child(&child), signal).unwrap();
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it does not end on {signal:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(signal == Signal::KILL || status.success(), "{signal:?}: {status}\n{}", self.log());
        assert!(!self.log().contains("panicked at"), "{}", self.log());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Everything it has logged, all runs of it.
    pub(crate) fn log(&self) -> String {
        fs::read(self.file("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// How many log lines have a field with a value.
    pub(crate) fn logged(&self, field: &str, value: &str) -> usize {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line[field] == value).count()
    }

    /// What `status --json` prints.
    pub(crate) fn status(&self) -> serde_json::Value {
        let output = Command::new(program("soci-snapshotter-grpc"))
            .arg("--address")
            .arg(self.socket())
            .args(["status", "--json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// How each layer of an image is served, bottom first, and why: `lazy`, `eager`, `containerd`.
    pub(crate) fn modes(&self, reference: &str) -> Vec<(String, String)> {
        let status = self.status();
        let images = status["images"].as_array().unwrap();
        let image = images.iter().find(|image| image["image"] == reference);
        let image = image.unwrap_or_else(|| panic!("{reference} is not in {status:#}"));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let layers = image["layers"].as_array().unwrap();
        layers.iter().map(|layer| (text(&layer["mode"]), text(&layer["reason"]))).collect()
    }

    /// What it holds of the system's resources.
    pub(crate) fn held(&self) -> Held {
        let process = PathBuf::from(format!("/proc/{}", self.child.as_ref().unwrap().id()));
        let count = |path: PathBuf| fs::read_dir(path).map_or(0, Iterator::count);
        let directory = |name: &str| count(self.root().join("snapshotter").join(name));
        Held {
            mounts: mounts_below(self.home.path()),
            descriptors: count(process.join("fd")),
            threads: count(process.join("task")),
            snapshots: directory("snapshots"),
            unpacking: directory("unpack"),
            ztocs: count(self.root().join("ztocs")),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill_process(Pid::from_child(&child), Signal::INT);
            let end = Instant::now() + PATIENCE;
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains(r#""level":"DEBUG""#)).collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- end of the daemon's log, without debug ---\n{last}\n---");
        }
        for point in mounts_below(self.home.path()).iter().rev() {
            let _ = unmount(point.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// Resources that must be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) mounts: BTreeSet<PathBuf>,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Directories of snapshots.
    pub(crate) snapshots: usize,
    pub(crate) unpacking: usize,
    pub(crate) ztocs: usize,
}

/// Mount points at and below a directory.
pub(crate) fn mounts_below(directory: &Path) -> BTreeSet<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    // The directories of these tests have no characters that are escaped there.
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(directory)).collect()
}
