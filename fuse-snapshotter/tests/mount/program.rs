//! Running the programs.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A built program of this workspace.
pub(crate) fn program(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_soci-snapshotter-grpc"));
    let path = own.with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// Builds the index of an image in a registry and pushes it beside the image.
pub(crate) fn index(reference: &str, arguments: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    let output = Command::new(program("soci"))
        .arg("--root")
        .arg(root.path())
        .args(["create", "--push"])
        .args(arguments)
        .arg(reference)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A mount by the real program. Dropping it unmounts.
pub(crate) struct Mount {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    directory: TempDir,
}

impl Mount {
    pub(crate) fn new(reference: &str, arguments: &[&str]) -> Self {
        Self::try_new(reference, arguments)
            .unwrap_or_else(|error| panic!("cannot mount {reference}: {error}"))
    }

    /// Mounts an image, or says what the program said.
    pub(crate) fn try_new(reference: &str, arguments: &[&str]) -> Result<Self, String> {
        Self::with(reference, arguments, &mut Command::new(program("soci-snapshotter-grpc")))
    }

    /// The same by a command that is the program, in surroundings of its own.
    pub(crate) fn with(reference: &str, arguments: &[&str], command: &mut Command) -> Result<Self, String> {
        Self::in_directory(reference, arguments, tempfile::tempdir().unwrap(), command)
    }

    /// As an ordinary user, who has a directory of their own.
    pub(crate) fn as_user(user: u32, reference: &str, arguments: &[&str]) -> Result<Self, String> {
        let directory = tempfile::Builder::new().prefix("soci-user").tempdir_in("/tmp").unwrap();
        std::os::unix::fs::chown(directory.path(), Some(user), Some(user)).unwrap();
        // The build directory may be closed to other users, so they get a copy.
        let copy = directory.path().join("soci-snapshotter-grpc");
        testdata::copied::copy_program(program("soci-snapshotter-grpc").as_ref(), &copy);
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]).arg(copy);
        Self::in_directory(reference, arguments, directory, &mut command)
    }

    /// In a directory of an earlier mount, at the same place and with the same root.
    pub(crate) fn in_directory(
        reference: &str,
        arguments: &[&str],
        directory: TempDir,
        command: &mut Command,
    ) -> Result<Self, String> {
        let target = directory.path().join("mnt");
        std::fs::create_dir_all(&target).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(directory.path()).unwrap());
        // What an earlier program left mounted there cannot be changed.
        if !is_mounted(&target) {
            std::os::unix::fs::chown(&target, Some(owner), Some(owner)).unwrap();
        }
        // Commands read whatever DOCKER_CONFIG the machine has; tests must not.
        let mut child = command
            .env("HOME", directory.path())
            .arg("--root")
            .arg(directory.path().join("root"))
            .args(["mount", "--json"])
            .args(arguments)
            .arg(reference)
            .arg(&target)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        if line.contains(r#""event":"mounted""#) {
            return Ok(Self { child, output, directory });
        }
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        Err(line + &said)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end, which must come soon; returns the exit status and the report.
    pub(crate) fn wait(&mut self) -> (Option<i32>, serde_json::Value) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (status.code(), serde_json::from_str(&rest).unwrap_or_default())
    }

    /// Kills the program, which leaves everything as it is.
    pub(crate) fn crash(mut self) -> TempDir {
        self.signal(rustix::process::Signal::KILL);
        self.child.wait().unwrap();
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }

    /// Unmounts, and returns the report.
    pub(crate) fn finish(mut self) -> serde_json::Value {
        self.signal(rustix::process::Signal::INT);
        let (code, report) = self.wait();
        assert_eq!(code, Some(0));
        assert!(!is_mounted(&self.path()), "still mounted");
        report
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = rustix::process::kill_process(self.pid(), rustix::process::Signal::INT);
            for _ in 0..250 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.child.kill();
        }
    }
}

/// Whether something is mounted at or below a path.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let path = path.to_str().unwrap();
    mounts.lines().any(|line| {
        line.split(' ').nth(1).is_some_and(|at| at == path || at.starts_with(&format!("{path}/")))
    })
}
