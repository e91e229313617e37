//! A node: containerd with the daemon as its snapshotter.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use testdata::containerd::{Containerd, Options};

use crate::cri;
use crate::daemon::{Daemon, program};

/// The name under which containerd knows the daemon.
pub(crate) const SOCI: &str = "soci";

/// Both, each in directories of its own. The containers end first, then containerd, then the daemon.
pub(crate) struct Node {
    pub(crate) containerd: Containerd,
    pub(crate) daemon: Daemon,
}

/// Ways to pull an image through the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pull {
    /// As Kubernetes does.
    Cri,
    /// Our own command.
    Soci,
}

impl Pull {
    /// The namespace that the image is in.
    pub(crate) fn namespace(self) -> &'static str {
        match self {
            Self::Cri => cri::NAMESPACE,
            Self::Soci => "default",
        }
    }
}

impl Node {
    /// Starts both; `None`, with a word about it, where that is not possible.
    pub(crate) fn start() -> Option<Self> {
        Self::with("")
    }

    /// With more configuration of the daemon, in TOML.
    pub(crate) fn with(toml: &str) -> Option<Self> {
        if !crate::can_run() {
            return None;
        }
        let mut daemon = Daemon::new();
        let containerd = Options::new().cri().proxy(SOCI, daemon.socket()).start()?;
        daemon.configure(&format!(
            "{toml}\n[content_store]\ncontainerd_address = {:?}\n",
            containerd.address()
        ));
        daemon.start();
        Some(Self { containerd, daemon })
    }

    /// Pulls an image, which may fail.
    pub(crate) fn try_pull(&self, how: Pull, reference: &str) -> Result<(), String> {
        match how {
            Pull::Cri => {
                let host = reference.split('/').next().unwrap();
                self.containerd.allow_http(host);
                cri::pull(&self.containerd.address(), reference).map(drop)
            }
            Pull::Soci => {
                let output = Command::new(program("soci"))
                    .args(["--address", &self.containerd.address(), "--namespace", how.namespace()])
                    .arg("--root")
                    .arg(self.daemon.file("soci"))
                    .args(["pull", "--snapshotter", SOCI, reference])
                    .env("HOME", self.daemon.file("home"))
                    .output()
                    .unwrap();
                if output.status.success() { Ok(()) } else { Err(said(&output)) }
            }
        }
    }

    /// Pulls an image.
    pub(crate) fn pull(&self, how: Pull, reference: &str) {
        self.try_pull(how, reference).unwrap_or_else(|error| panic!("{how:?} of {reference}: {error}"));
    }

    /// Removes an image and waits until containerd has given back what it used.
    pub(crate) fn remove(&self, how: Pull, reference: &str) -> Result<(), String> {
        // By the removal of the name: CRI has several names for an image, and waits for nothing.
        if how == Pull::Cri {
            cri::remove(&self.containerd.address(), reference)?;
        }
        let output = self.ctr(how.namespace(), &["image", "remove", "--sync", reference]);
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    }

    pub(crate) fn ctr(&self, namespace: &str, arguments: &[&str]) -> Output {
        self.containerd.ctr(&[&["-n", namespace], arguments].concat())
    }

    pub(crate) fn ok(&self, namespace: &str, arguments: &[&str]) -> String {
        let output = self.ctr(namespace, arguments);
        assert!(output.status.success(), "ctr {arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Mounts an image as a container has it (writable) or as a view.
    pub(crate) fn mount(
        &self,
        namespace: &str,
        snapshotter: &str,
        reference: &str,
        writable: bool,
    ) -> Mounted<'_> {
        let name = format!("{snapshotter}-{writable}-{}", reference.replace(['/', ':'], "-"));
        let target = self.daemon.file(&name);
        std::fs::create_dir_all(&target).unwrap();
        let text = target.display().to_string();
        let mut arguments = vec!["image", "mount", "--snapshotter", snapshotter];
        arguments.extend(writable.then_some("--rw"));
        arguments.extend([reference, text.as_str()]);
        self.ok(namespace, &arguments);
        Mounted { node: self, namespace: namespace.to_owned(), snapshotter: snapshotter.to_owned(), target }
    }

    /// The directory that a container's writes go to.
    pub(crate) fn upper(&self, namespace: &str, container: &str) -> PathBuf {
        let mounts =
            self.ok(namespace, &["snapshots", "--snapshotter", SOCI, "mounts", "/nowhere", container]);
        let option = mounts.split([',', ' ']).find_map(|option| option.strip_prefix("upperdir="));
        PathBuf::from(option.unwrap_or_else(|| panic!("{mounts}")))
    }

    /// Keys of all snapshots of a namespace.
    pub(crate) fn snapshots(&self, namespace: &str) -> Vec<String> {
        let list = self.ok(namespace, &["snapshots", "--snapshotter", SOCI, "list"]);
        list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }
}

/// An image that is mounted somewhere. Dropping it unmounts it.
pub(crate) struct Mounted<'n> {
    node: &'n Node,
    namespace: String,
    snapshotter: String,
    target: PathBuf,
}

impl Mounted<'_> {
    pub(crate) fn path(&self) -> &Path {
        &self.target
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let target = self.target.display().to_string();
        let arguments = ["image", "unmount", "--rm", "--snapshotter", &self.snapshotter, &target];
        let output = self.node.ctr(&self.namespace, &arguments);
        if !std::thread::panicking() {
            assert!(output.status.success(), "{}", said(&output));
        }
    }
}

/// What a program printed, for messages.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
