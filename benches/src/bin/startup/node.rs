//! A node: containerd with a snapshotter, both new and empty.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use benches::process::{peak_memory, sibling};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use testdata::containerd::{Containerd, Options};

use crate::interrupt;
use crate::site::Site;
use crate::usage::{self, Group};
use crate::variant::{Peer, Variant};

/// Longest pull.
const PULL: Duration = Duration::from_secs(1800);
/// Longest time for anything that should be quick.
const PATIENCE: Duration = Duration::from_secs(30);
/// containerd's namespace.
pub(crate) const NAMESPACE: &str = "default";

/// containerd and, unless it is containerd's own, the snapshotter. What is dropped first ends first.
pub(crate) struct Node {
    pub(crate) containerd: Containerd,
    daemon: Option<Daemon>,
    peer: Option<(u32, f64)>,
    variant: Variant,
    group: Option<Group>,
}

/// Makes a peer cold and waits until it listens. Returns its process, and the processor time that it has used so far.
fn meet(peer: &Peer, registry: &str, containerd: &Containerd) -> anyhow::Result<(u32, f64)> {
    if let Some(command) = &peer.reset {
        let command = command.replace("{registry}", registry).replace("{address}", &containerd.address());
        let status = Command::new("sh").args(["-c", &command]).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "--peer-reset of {}: {status}", peer.name);
    }
    let pid = until(PATIENCE, || Ok(listener(&peer.socket)))?
        .with_context(|| format!("{}: nobody listens at {:?}", peer.name, peer.socket))?;
    usage::forget_peak(pid);
    Ok((pid, usage::process_seconds(pid)))
}

impl Node {
    /// Starts both for one variant.
    pub(crate) fn start(variant: &Variant, site: &Site) -> anyhow::Result<Self> {
        let registry = site.host();
        let group = Group::new();
        let mut options = Options::new();
        let mut daemon = None;
        match variant {
            Variant::Overlayfs => {}
            Variant::Lazy | Variant::Recorded | Variant::Eager => {
                let place = Daemon::new()?;
                if *variant == Variant::Recorded {
                    place.remember(&site.recordings.borrow())?;
                }
                options = options.proxy(variant.snapshotter(), place.socket());
                daemon = Some(place);
            }
            Variant::Peer(other) => options = options.proxy(&other.name, &other.socket),
        }
        let containerd = options.start().context("containerd cannot run here")?;
        containerd.allow_http(registry);
        if let (Some(group), Some(pid)) = (&group, containerd.pid()) {
            group.add(pid);
        }
        if let Some(daemon) = &mut daemon {
            let eager = *variant == Variant::Eager;
            daemon.start(eager, &site.daemon_config, &containerd, group.as_ref())?;
        }
        let peer = match variant {
            Variant::Peer(other) => Some(meet(other, registry, &containerd)?),
            _ => None,
        };
        let node = Self { containerd, daemon, peer, variant: variant.clone(), group };
        node.wait_for_snapshotter()?;
        Ok(node)
    }

    /// Waits until containerd reaches the snapshotter: it began to look before there was one, and after a failure waits a
    /// second, which is no part of a start.
    fn wait_for_snapshotter(&self) -> anyhow::Result<()> {
        let probe = |arguments: &[&str]| {
            let mut command = self.containerd_client("probe");
            command.args(["snapshots", "--snapshotter", self.variant.snapshotter()]).args(arguments);
            command.output()
        };
        // Something that containerd cannot answer by itself.
        let reached = until(PATIENCE, || {
            let reached = probe(&["prepare", "probe"])?.status.success();
            probe(&["remove", "probe"])?;
            Ok(reached.then_some(()))
        })?;
        reached.with_context(|| format!("containerd does not reach {}:\n{}", self.variant.name(), self.log()))
    }

    /// A command that is counted.
    fn command(&self, program: &Path) -> Command {
        let mut command =
            self.group.as_ref().map_or_else(|| Command::new(program), |group| group.command(program));
        for name in ["CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE", "CONTAINERD_SNAPSHOTTER", "DOCKER_CONFIG"]
        {
            command.env_remove(name);
        }
        command.env("HOME", self.containerd.directory()).stdin(Stdio::null());
        command
    }

    /// `ctr` on this node's containerd.
    pub(crate) fn ctr(&self) -> Command {
        self.containerd_client(NAMESPACE)
    }

    fn containerd_client(&self, namespace: &str) -> Command {
        let mut command = self.command(Path::new("ctr"));
        command.args(["--address", &self.containerd.address(), "--namespace", namespace]);
        command
    }

    /// Pulls an image the way of the variant.
    pub(crate) fn pull(&self, reference: &str) -> anyhow::Result<()> {
        let mut command = match &self.variant {
            Variant::Overlayfs => {
                let mut command = self.ctr();
                command.args(["image", "pull", "--plain-http", "--snapshotter", "overlayfs", reference]);
                command
            }
            Variant::Lazy | Variant::Recorded | Variant::Eager => {
                let mut command = self.command(&sibling("soci")?);
                command.args(["--address", &self.containerd.address(), "--namespace", NAMESPACE, "--root"]);
                command.arg(self.containerd.directory().join("soci-root"));
                command.args(["pull", "--plain-http", "--quiet", "--snapshotter", "soci", reference]);
                command
            }
            Variant::Peer(peer) => {
                let mut command = self.command(Path::new("sh"));
                let pull = peer.command(reference, &self.containerd.address(), NAMESPACE);
                command.args(["-c", &pull]);
                command
            }
        };
        let log = self.containerd.directory().join("pull.log");
        let output = fs::File::create(&log)?;
        let mut child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        let status = wait(&mut child, PULL)?;
        if !status.success() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("{} cannot pull {reference}: {status}\n{said}", self.variant.name());
        }
        Ok(())
    }

    /// The options of `ctr run` for a container of this node.
    pub(crate) fn run(&self, reference: &str, name: &str) -> Command {
        let mut command = self.ctr();
        command.args(["run", "--rm", "--snapshotter", self.variant.snapshotter(), "--runc-root"]);
        command.arg(self.containerd.runc_root());
        command.arg("--fifo-dir").arg(self.containerd.directory().join("fifo"));
        if let Some(group) = &self.group {
            command.args(["--cgroup", &group.container()]);
        }
        command.args([reference, name]);
        command
    }

    /// Processor time so far, in seconds: containerd, snapshotter, clients and container; without control groups only that
    /// of containerd and the snapshotter.
    pub(crate) fn cpu(&self) -> f64 {
        let own = self.group.as_ref().and_then(Group::seconds).unwrap_or_else(|| {
            let daemon = self.daemon.as_ref().and_then(Daemon::pid);
            self.containerd.pid().into_iter().chain(daemon).map(usage::process_seconds).sum()
        });
        own + self.peer.map_or(0.0, |(pid, before)| usage::process_seconds(pid) - before)
    }

    /// Largest resident sizes so far of containerd and the snapshotter, in bytes.
    pub(crate) fn memory(&self) -> [u64; 2] {
        let daemon = self.daemon.as_ref().and_then(Daemon::pid).or(self.peer.map(|(pid, _)| pid));
        [self.containerd.pid(), daemon].map(|pid| pid.map_or(0, peak_memory))
    }

    /// Mount points of the daemon's trees, with their device.
    pub(crate) fn trees(&self) -> Vec<(PathBuf, String)> {
        self.daemon
            .as_ref()
            .map_or_else(Vec::new, |daemon| mounts(daemon.home.path(), Some("fuse.rawBridge")))
    }

    /// Waits until our daemon has recorded a start, and returns the recordings by file name.
    pub(crate) fn recordings(&self) -> anyhow::Result<BTreeMap<OsString, Vec<u8>>> {
        let directory = self.daemon.as_ref().context("only our own daemon records")?.recordings();
        let found = until(PATIENCE, || {
            let mut all = BTreeMap::new();
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "json") {
                    all.insert(path.file_name().unwrap_or_default().to_owned(), fs::read(&path)?);
                }
            }
            Ok((!all.is_empty()).then_some(all))
        })?;
        found.with_context(|| format!("no start was recorded in {}:\n{}", directory.display(), self.log()))
    }

    /// All that our daemon has logged; empty if the snapshotter is another one.
    pub(crate) fn daemon_log(&self) -> String {
        self.daemon.as_ref().map_or_else(String::new, Daemon::log)
    }

    /// What to look at when something has failed.
    pub(crate) fn log(&self) -> String {
        let log = self.daemon.as_ref().map_or_else(|| self.containerd.log(), Daemon::log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A peer lives on, and is to forget the image.
        if self.peer.is_some() {
            let list = self.ctr().args(["image", "list", "--quiet"]).output();
            let list = list.map(|output| output.stdout).unwrap_or_default();
            for name in String::from_utf8_lossy(&list).lines() {
                let _ = self.ctr().args(["image", "remove", "--sync", name]).output();
            }
        }
    }
}

/// Our daemon, in a directory of its own. Dropping it ends it and unmounts what is left.
struct Daemon {
    child: Option<Child>,
    home: tempfile::TempDir,
}

impl Daemon {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { child: None, home: tempfile::Builder::new().prefix("sd").tempdir()? })
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }

    /// Where it keeps recordings of starts.
    fn recordings(&self) -> PathBuf {
        self.home.path().join("root/recordings")
    }

    /// Gives it recordings, as an earlier start would have left them.
    fn remember(&self, recordings: &BTreeMap<OsString, Vec<u8>>) -> anyhow::Result<()> {
        fs::create_dir_all(self.recordings())?;
        for (name, recording) in recordings {
            fs::write(self.recordings().join(name), recording)?;
        }
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn start(
        &mut self,
        eager: bool,
        settings: &str,
        containerd: &Containerd,
        group: Option<&Group>,
    ) -> anyhow::Result<()> {
        let home = self.home.path();
        let config = home.join("config.toml");
        let text = format!(
            "{settings}\n[registry]\nconfig_path = {:?}\n[content_store]\ncontainerd_address = {:?}\n\
             [pull_modes.parallel_pull_unpack]\nenable = {eager}\n",
            containerd.certs_d(),
            containerd.address()
        );
        fs::write(&config, text)?;
        let log = fs::File::create(home.join("log"))?;
        let program = sibling("soci-snapshotter-grpc")?;
        let child = group
            .map_or_else(|| Command::new(&program), |group| group.command(&program))
            .arg("--address")
            .arg(self.socket())
            .arg("--root")
            .arg(home.join("root"))
            .arg("--config")
            .arg(config)
            .env("HOME", home)
            .env_remove("DOCKER_CONFIG")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let listening = until(PATIENCE, || Ok(UnixStream::connect(self.socket()).ok()))?;
        listening.with_context(|| format!("soci-snapshotter-grpc does not start:\n{}", self.log()))?;
        Ok(())
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
        for (point, _) in mounts(self.home.path(), None).iter().rev() {
            let _ = unmount(point.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// Waits for the end of a client; one that takes longer than that is killed.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> anyhow::Result<ExitStatus> {
    let end = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > end || interrupt::check().is_err() {
            let _ = child.kill();
            let _ = child.wait();
            interrupt::check()?;
            bail!("no end after {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until there is something, for so long.
fn until<T>(
    patience: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let end = Instant::now() + patience;
    loop {
        interrupt::check()?;
        let found = look()?;
        if found.is_some() || Instant::now() > end {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The process that listens at a socket.
fn listener(socket: &Path) -> Option<u32> {
    let stream = UnixStream::connect(socket).ok()?;
    let credentials = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    u32::try_from(credentials.pid.as_raw_nonzero().get()).ok()
}

/// Mount points below a directory with their device numbers; of one type of file system, or of all.
fn mounts(directory: &Path, kind: Option<&str>) -> Vec<(PathBuf, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The directories here have no characters that are escaped there.
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let (device, point) = (fields.next()?, PathBuf::from(fields.nth(1)?));
        let right = kind.is_none_or(|kind| after.split(' ').next() == Some(kind));
        (right && point.starts_with(directory)).then(|| (point, device.to_owned()))
    };
    table.lines().filter_map(mount).collect()
}
