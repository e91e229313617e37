//! A daemon in a directory of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take; much less than the daemon waits for calls under way.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where a daemon lives. Dropping it unmounts what is left there.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("sd").tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The daemon's program, to be given an address.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_soci-snapshotter-grpc"));
        self.prepare(&mut command);
        command
    }

    /// Gives a command the daemon's environment and arguments.
    pub(crate) fn prepare(&self, command: &mut Command) {
        if !self.path("config.toml").exists() {
            self.configure("");
        }
        for variable in ["CONFIG", "LOG_LEVEL", "ADDRESS", "ROOT"] {
            command.env_remove(format!("SOCI_SNAPSHOTTER_{variable}"));
        }
        command
            .arg("--root")
            .arg(self.path("root"))
            .arg("--config")
            .arg(self.path("config.toml"))
            .env("HOME", self.0.path())
            .env_remove("DOCKER_CONFIG")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
    }

    /// What the daemon is to read. There is no containerd at the usual place, whatever this machine has.
    pub(crate) fn configure(&self, toml: &str) {
        let address = self.path("no-containerd");
        let text = format!("{toml}\n[content_store]\ncontainerd_address = {address:?}\n");
        fs::write(self.path("config.toml"), text).unwrap();
    }

    /// Starts the daemon at its usual socket and waits until it listens there and says that it is ready.
    pub(crate) fn start(&self) -> Daemon<'_> {
        let mut command = self.program();
        command.arg("--address").arg(self.path("s"));
        self.run(command)
    }

    /// Runs a command that is the daemon, and waits until it is ready.
    pub(crate) fn run(&self, mut command: Command) -> Daemon<'_> {
        let known = self.log().len();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        let mut daemon = Daemon { home: self, child };
        eventually("it starts", || {
            let log = self.log().split_off(known);
            assert!(daemon.child.try_wait().unwrap().is_none(), "{log}");
            log.contains("successfully started").then_some(())
        });
        daemon
    }

    /// Runs the daemon, which is expected not to start; what it says.
    pub(crate) fn fail(&self, socket: &Path) -> String {
        let output = self.program().arg("--address").arg(socket).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        said.lines().last().unwrap().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Log lines, parsed.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(self.0.path())).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _ = unmount(point.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A running daemon. Dropping it kills it.
pub(crate) struct Daemon<'h> {
    home: &'h Home,
    child: Child,
}

impl Daemon<'_> {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("it ends", || self.child.try_wait().unwrap())
    }

    /// Sends a signal and waits for the end, which is a success.
    pub(crate) fn stop(&mut self, signal: Signal) {
        self.signal(signal);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(!self.home.log().contains("panicked at"));
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.home.path("s")).unwrap()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
