//! The real thing: containerd with runc, whose files, sockets and containers are all below one temporary directory.
//!
//! Which one is a matter of its [`Release`]: that of Debian, or a current one.
//!
//! Several may run at the same time. Containers of [`Containerd::run`] have runc directories of their own; whoever starts
//! containers by [`Containerd::ctr`] should pass `--runc-root` of [`Containerd::runc_root`], because runc's default
//! directory is shared by every containerd of the machine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

mod options;
mod release;

pub use options::Options;
pub use release::Release;

/// Where Debian's package has them.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";
/// How long anything may take to start or end.
const PATIENCE: Duration = Duration::from_secs(30);
/// A socket's path has at most 107 bytes, and containerd appends `.ttrpc`.
const MAX_DIRECTORY: usize = 80;

/// A running containerd. Dropping it ends its containers, itself, and removes its directory.
#[derive(Debug)]
pub struct Containerd {
    release: Release,
    process: Option<Child>,
    home: PathBuf,
    containers: AtomicU32,
}

impl Containerd {
    /// Starts one without CRI and without snapshotters of others; see [`Options`] for one that has them.
    #[must_use]
    pub fn start() -> Option<Self> {
        Options::new().start()
    }

    fn launch(options: &Options) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cd-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut home = std::env::temp_dir().join(&name);
        if home.as_os_str().len() > MAX_DIRECTORY {
            home = Path::new("/tmp").join(name);
        }
        // What an earlier process with this number left is not ours to remove: fail loudly.
        fs::create_dir(&home).unwrap();
        for directory in ["certs.d", "cni", "opt"] {
            fs::create_dir(home.join(directory)).unwrap();
        }
        fs::write(home.join("config.toml"), options.text(&home)).unwrap();
        if let Some((path, text)) = options.imported(&home) {
            fs::write(path, text).unwrap();
        }
        let release = options.which();
        let mut containerd = Self { release, process: None, home, containers: AtomicU32::new(0) };
        containerd.spawn();
        containerd
    }

    fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.home.join("log")).unwrap();
        let process = Command::new(self.release.program("containerd"))
            .env("PATH", self.release.path())
            .arg("--config")
            .arg(self.home.join("config.toml"))
            // Not those of a daemon of the machine.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .env_remove("CONTAINERD_ADDRESS")
            .env_remove("CONTAINERD_NAMESPACE")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let end = Instant::now() + PATIENCE;
        while !(UnixStream::connect(self.address()).is_ok() && self.ctr(&["version"]).status.success()) {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("containerd ended at its start ({status}):\n{}", self.end_of_log());
            }
            assert!(Instant::now() < end, "containerd does not answer in time:\n{}", self.end_of_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The path of its socket.
    #[must_use]
    pub fn address(&self) -> String {
        self.home.join("c").display().to_string()
    }

    /// The directory of everything it has: `root`, `state`, `runc`, `certs.d`, `config.toml`, `log`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.home
    }

    /// The directory with `<host>/hosts.toml`, for CRI and for `ctr image pull --hosts-dir`.
    #[must_use]
    pub fn certs_d(&self) -> PathBuf {
        self.home.join("certs.d")
    }

    /// A directory for `ctr run --runc-root`.
    #[must_use]
    pub fn runc_root(&self) -> PathBuf {
        self.home.join("runc")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.home.join("log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The last of it, where an error that ended it stands.
    fn end_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Lets CRI, and `ctr image pull --hosts-dir`, reach a registry (`127.0.0.1:5000`) over plain HTTP.
    pub fn allow_http(&self, host: &str) {
        let directory = self.certs_d().join(host);
        fs::create_dir_all(&directory).unwrap();
        let hosts = format!("server = \"http://{host}\"\n[host.\"http://{host}\"]\n");
        fs::write(directory.join("hosts.toml"), hosts).unwrap();
    }

    /// Runs `ctr` on it, in namespace `default` if `args` does not begin with `-n`.
    #[must_use]
    pub fn ctr<A: AsRef<OsStr>>(&self, args: &[A]) -> Output {
        self.ctr_command().args(args).output().unwrap()
    }

    /// Its `ctr`, to be run on it, with nothing of the user's.
    #[must_use]
    pub fn ctr_command(&self) -> Command {
        let mut command = Command::new(self.release.program("ctr"));
        command
            .arg("--address")
            .arg(self.address())
            .env_remove("CONTAINERD_NAMESPACE")
            .env_remove("CONTAINERD_SNAPSHOTTER")
            .stdin(Stdio::null());
        command
    }

    /// Which one it is.
    #[must_use]
    pub fn release(&self) -> Release {
        self.release
    }

    /// Runs `ctr`, which has to succeed, and returns what it printed.
    ///
    /// # Panics
    /// If it fails.
    pub fn ok<A: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[A]) -> String {
        let output = self.ctr(args);
        let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (printed(&output.stdout), printed(&output.stderr));
        assert!(output.status.success(), "ctr {args:?}:\n{stdout}{stderr}");
        stdout
    }

    /// Pulls an image over plain HTTP and unpacks it, as `ctr` does.
    ///
    /// # Panics
    /// If it fails.
    pub fn pull(&self, snapshotter: &str, reference: &str) {
        self.ok(&["image", "pull", "--plain-http", "--snapshotter", snapshotter, reference]);
    }

    /// Runs a command in a new container of an image that is there, and waits for its end.
    #[must_use]
    pub fn run(&self, snapshotter: &str, reference: &str, command: &[&str]) -> Output {
        let (root, fifos) = (self.runc_root(), self.home.join("fifo"));
        let (root, fifos) = (root.display().to_string(), fifos.display().to_string());
        let name = self.container_name();
        let mut args = vec!["run", "--rm", "--snapshotter", snapshotter, "--runc-root", &root];
        args.extend(["--fifo-dir", &fifos, reference, &name]);
        args.extend(command);
        self.ctr(&args)
    }

    /// Has the garbage of all namespaces collected, and waits for it.
    ///
    /// # Panics
    /// If it fails.
    pub fn collect_garbage(&self) {
        self.ok(&["leases", "create", "--id", "collect-garbage"]);
        self.ok(&["leases", "delete", "--sync", "collect-garbage"]);
    }

    /// A name for a container that none on this machine has.
    #[must_use]
    pub fn container_name(&self) -> String {
        let home = self.home.file_name().unwrap_or_default().to_string_lossy();
        format!("{home}-{}", self.containers.fetch_add(1, Ordering::Relaxed))
    }

    /// Ends it (containers go on) and starts it again.
    ///
    /// # Panics
    /// If it does not end or start.
    pub fn restart(&mut self) {
        self.stop();
        self.spawn();
    }

    /// Ends it; containers go on. [`restart`](Self::restart) brings it back.
    ///
    /// # Panics
    /// If it does not end.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        signal(process.id(), Signal::TERM);
        let end = Instant::now() + PATIENCE;
        while process.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                process.kill().unwrap();
                process.wait().unwrap();
                panic!("containerd does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Removes tasks the way users do, so that runc clears up its cgroups.
    fn remove_tasks(&self) {
        let lines = |args: &[&str]| {
            let output = self.ctr(args);
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
        };
        for namespace in lines(&["namespace", "list", "--quiet"]) {
            for task in lines(&["-n", &namespace, "tasks", "list", "--quiet"]) {
                let _ = self.ctr(&["-n", &namespace, "tasks", "delete", "--force", &task]);
            }
        }
    }

    /// Kills what is left of shims that were started with our address, and their children first.
    fn kill_shims(&self) {
        let address = self.address();
        let processes = processes();
        for (shim, arguments, _) in &processes {
            let ours = arguments.windows(2).any(|w| w[0] == b"-address" && w[1] == address.as_bytes());
            let is_shim = arguments.first().is_some_and(|a| a.windows(15).any(|w| w == b"containerd-shim"));
            if !(ours && is_shim) {
                continue;
            }
            for (child, _, parent) in &processes {
                if parent == shim {
                    signal(*child, Signal::KILL);
                }
            }
            signal(*shim, Signal::KILL);
        }
    }

    /// Detaches what is still mounted below the directory, topmost first.
    fn unmount_all(&self) {
        let Ok(mounts) = fs::read("/proc/self/mountinfo") else { return };
        // Names of ours have no characters that are escaped there.
        let below = |line: &[u8]| {
            let point = line.split(|&byte| byte == b' ').nth(4)?;
            let point = Path::new(OsStr::from_bytes(point));
            point.starts_with(&self.home).then(|| point.to_owned())
        };
        let points: Vec<_> = mounts.split(|&byte| byte == b'\n').filter_map(below).collect();
        for point in points.iter().rev() {
            let _ = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.remove_tasks();
        }
        self.kill_shims();
        if let Some(mut process) = self.process.take() {
            signal(process.id(), Signal::TERM);
            let end = Instant::now() + PATIENCE;
            while process.try_wait().is_ok_and(|status| status.is_none()) {
                if Instant::now() > end {
                    let _ = process.kill();
                    let _ = process.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.unmount_all();
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn signal(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // One that is gone needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// Number, arguments and parent of all processes.
fn processes() -> Vec<(u32, Vec<Vec<u8>>, u32)> {
    let Ok(listing) = fs::read_dir("/proc") else { return Vec::new() };
    let process = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // After the name in parentheses: state, parent.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, arguments.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect(), parent))
    };
    listing.flatten().filter_map(process).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker_registry::DockerRegistry;
    use crate::image::host::HostFiles;
    use crate::image::{Compression, ImageBuilder};

    fn shell_image(registry: &DockerRegistry) -> String {
        let mut files = HostFiles::new();
        files.binary("/bin/sh").binary("/bin/sleep");
        let image = ImageBuilder::new().layer(files.layer(Compression::GZIP)).cmd(&["/bin/sh"]).build();
        let directory = tempfile::tempdir().unwrap();
        image.write_layout(directory.path(), "v1");
        registry.copy(&format!("oci:{}:v1", directory.path().display()), "shell:v1")
    }

    #[test]
    fn it_pulls_and_runs_and_leaves_nothing() {
        let Some(registry) = DockerRegistry::start() else { return };
        let Some(mut containerd) = Containerd::start() else { return };
        let reference = shell_image(&registry);
        let home = containerd.directory().to_owned();
        for snapshotter in ["overlayfs", "native"] {
            containerd.pull(snapshotter, &reference);
            let output = containerd.run(snapshotter, &reference, &["/bin/sh", "-c", "echo from inside"]);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "from inside\n", "{output:?}");
        }
        // One that does not end by itself, and lives through a restart.
        let name = containerd.container_name();
        let root = containerd.runc_root().display().to_string();
        let sleep =
            ["run", "--detach", "--null-io", "--runc-root", &root, &reference, &name, "/bin/sleep", "1000"];
        let output = containerd.ctr(&sleep);
        assert!(output.status.success(), "{output:?}");
        containerd.restart();
        let tasks = containerd.ok(&["tasks", "list"]);
        assert!(tasks.lines().any(|line| line.contains(&name) && line.contains("RUNNING")), "{tasks}");
        let address = containerd.address();
        drop(containerd);
        assert!(!home.exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&format!("{}/", home.display())), "{mounts}");
        let left = processes()
            .into_iter()
            .find(|(_, arguments, _)| arguments.iter().any(|a| a == address.as_bytes()));
        assert!(left.is_none(), "{left:?}");
    }

    #[test]
    fn cri_is_there_when_asked_for() {
        let plugin = |containerd: &Containerd| {
            let plugins = containerd.ok(&["plugins", "list"]);
            plugins.lines().find(|line| line.contains("grpc.v1") && line.contains(" cri ")).map(str::to_owned)
        };
        let Some(containerd) = Options::new().cri().proxy("soci", "/nonexistent/socket").start() else {
            return;
        };
        let line = plugin(&containerd).unwrap_or_default();
        assert!(line.trim().ends_with("ok"), "{line}\n{}", containerd.log());
        assert!(containerd.ok(&["plugins", "list"]).lines().any(|line| line.contains(" soci ")));
        drop(containerd);
        let containerd = Containerd::start().unwrap();
        assert_eq!(plugin(&containerd), None);
    }
}
