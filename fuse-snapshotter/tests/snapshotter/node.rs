//! A node: containerd with the daemon as its snapshotter.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use testdata::containerd::{Containerd, Options, Release};
use testdata::digest::sha256;
use testdata::image::Image;

use crate::cri;
use crate::daemon::{Daemon, eventually, program};

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
    /// nerdctl, through the transfer service.
    Nerdctl,
    /// `ctr image pull`, through the transfer service.
    Ctr,
}

impl Pull {
    /// The namespace that the image is in.
    pub(crate) fn namespace(self) -> &'static str {
        match self {
            Self::Cri => cri::NAMESPACE,
            Self::Soci | Self::Nerdctl | Self::Ctr => "default",
        }
    }

    /// Whether it can be tried on this node: what pulls through the transfer service is lazy from containerd 2.1 on.
    pub(crate) fn works_on(self, node: &Node) -> bool {
        match self {
            Self::Cri | Self::Soci => true,
            Self::Nerdctl => crate::nerdctl::can_run(node),
            Self::Ctr => node.containerd.release().is_current(),
        }
    }
}

/// containerd dials a snapshotter again after this time at the latest, if it failed when both were started.
const CONTAINERD_DIALS_AGAIN: Duration = Duration::from_secs(5);

impl Node {
    /// Starts both; `None`, with a word about it, where that is not possible.
    pub(crate) fn start() -> Option<Self> {
        Self::with("")
    }

    /// With more configuration of the daemon, in TOML.
    pub(crate) fn with(toml: &str) -> Option<Self> {
        Self::of(Options::new(), toml)
    }

    /// With more in containerd's configuration, too.
    pub(crate) fn of(options: Options, toml: &str) -> Option<Self> {
        if !crate::can_run() {
            return None;
        }
        let mut daemon = Daemon::new();
        let version = match options.which() {
            Release::Debian => "1.6",
            Release::V2_3 => "2.3",
            Release::V2_4 => "2.4",
        };
        // Version 4 is another matter: see `documented`.
        let older = if options.which().is_current() { &["--config-version", "3"][..] } else { &[] };
        let text = configuration(&daemon, &[&["--version", version], older].concat());
        let containerd = options.cri().documented(&text).start()?;
        daemon.configure(&format!(
            "{toml}\n[content_store]\ncontainerd_address = {:?}\n",
            containerd.address()
        ));
        daemon.start();
        Some(Self { containerd, daemon })
    }

    /// containerd 2.3 that imports what `config containerd` writes, of version 4.
    pub(crate) fn documented() -> Option<Self> {
        if !crate::can_run() {
            return None;
        }
        let mut daemon = Daemon::new();
        let text = configuration(&daemon, &["--version", "2.3"]);
        // What is said of CRI here is what the import has to change.
        let options = Options::new().release(Release::V2_3).cri().without_annotations().import(&text);
        let containerd = options.start()?;
        daemon.configure(&format!("[content_store]\ncontainerd_address = {:?}\n", containerd.address()));
        daemon.start();
        Some(Self { containerd, daemon })
    }

    /// Ends the daemon and starts it again.
    pub(crate) fn restart(&mut self, signal: Signal) {
        self.daemon.stop(signal);
        self.start_again();
    }

    /// Starts the daemon, and waits until containerd has noticed: its connection waits longer after each failure.
    pub(crate) fn start_again(&mut self) {
        self.daemon.start();
        eventually("containerd reaches the daemon", Duration::from_secs(30), || {
            // A call that containerd cannot answer by itself.
            let output = self.ctr("probe", &["snapshots", "--snapshotter", SOCI, "prepare", "probe"]);
            let _ = self.ctr("probe", &["snapshots", "--snapshotter", SOCI, "remove", "probe"]);
            if output.status.success() { Ok(()) } else { Err(said(&output)) }
        });
    }

    /// Pulls an image, which may fail.
    pub(crate) fn try_pull(&self, how: Pull, reference: &str) -> Result<(), String> {
        match how {
            Pull::Cri => {
                let host = reference.split('/').next().unwrap();
                self.containerd.allow_http(host);
                let started = Instant::now();
                loop {
                    let pulled = cri::pull(&self.containerd.address(), reference).map(drop);
                    // containerd dialled before the daemon listened, and says for a while what it heard then.
                    let too_early = ["connect: connection refused", "timed out waiting for server handshake"];
                    let early = pulled
                        .as_ref()
                        .is_err_and(|error| too_early.iter().any(|reason| error.contains(reason)));
                    if !early || started.elapsed() > CONTAINERD_DIALS_AGAIN {
                        break pulled;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
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
            Pull::Nerdctl | Pull::Ctr => {
                self.containerd.allow_http(reference.split('/').next().unwrap());
                let output = if how == Pull::Nerdctl {
                    crate::nerdctl::run(self, &["pull", "--quiet", reference])
                } else {
                    let certs = self.containerd.certs_d().display().to_string();
                    let pull = ["image", "pull", "--hosts-dir", &certs, "--snapshotter", SOCI, reference];
                    self.ctr(how.namespace(), &pull)
                };
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

    /// Mounts an image as a container has it (writable) or as a view. Not by `ctr image mount`, which in containerd 1.6
    /// always takes overlayfs.
    pub(crate) fn mount(
        &self,
        namespace: &str,
        snapshotter: &str,
        image: &Image,
        writable: bool,
    ) -> Mounted<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let key = format!("mounted-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let target = self.daemon.file(&key);
        std::fs::create_dir_all(&target).unwrap();
        let mounts = crate::snapshots::make(
            &self.containerd.address(),
            namespace,
            snapshotter,
            (&key, &chain(image)),
            writable,
        );
        let mounted = Mounted {
            node: self,
            namespace: namespace.to_owned(),
            snapshotter: snapshotter.to_owned(),
            key,
            target,
        };
        let [mount] = &mounts[..] else { panic!("{mounts:?}") };
        let mut command = Command::new("mount");
        match mount.r#type.as_str() {
            "bind" => command.args(["--rbind", &mount.source]),
            kind => command.args(["-t", kind, "-o", &mount.options.join(","), &mount.source]),
        };
        command.arg(&mounted.target);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{mount:?}: {}", said(&output));
        mounted
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
    key: String,
    target: PathBuf,
}

impl Mounted<'_> {
    pub(crate) fn path(&self) -> &Path {
        &self.target
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // A failed test may not have come to the mount. And a program that another test is about to start may for a moment have
        // open what this one has.
        for _ in 0..50 {
            match unmount(&self.target, UnmountFlags::NOFOLLOW) {
                Err(rustix::io::Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(100)),
                _ => break,
            }
        }
        let arguments = ["snapshots", "--snapshotter", &self.snapshotter, "remove", &self.key];
        let output = self.node.ctr(&self.namespace, &arguments);
        if !std::thread::panicking() {
            assert!(output.status.success(), "{}", said(&output));
        }
    }
}

/// What `config containerd` says for this daemon.
fn configuration(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = Command::new(program("soci-snapshotter-grpc"))
        .arg("--address")
        .arg(daemon.socket())
        .arg("--root")
        .arg(daemon.root())
        .args(["config", "containerd"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The chain ID of all layers of an image, which is the name of its topmost snapshot.
fn chain(image: &Image) -> String {
    let mut layers = image.layers().iter().map(|layer| layer.diff_id.clone());
    let first = layers.next().unwrap();
    layers.fold(first, |chain, layer| sha256(format!("{chain} {layer}").as_bytes()))
}

/// What a program printed, for messages.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
