//! Running the real binary.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// `soci` with a store of its own.
pub(crate) struct Soci {
    dir: TempDir,
}

impl Soci {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A directory for the test's files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The root of the store.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Runs `soci` and returns what it said.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.run_with_input(args, "")
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Run {
        let mut command = assert_cmd::Command::cargo_bin("soci").unwrap();
        // Nothing of the user's: no credentials, no store, no mirrors.
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.dir.path());
        command.arg("--root").arg(self.root()).args(args).write_stdin(input);
        command.timeout(std::time::Duration::from_secs(60));
        Run(command.output().unwrap())
    }

    /// Runs `soci`, which has to succeed, and returns its standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// Runs `soci`, which has to fail, and returns its standard error.
    pub(crate) fn err(&self, args: &[&str]) -> String {
        self.run(args).err()
    }

    /// `soci index list --json`.
    pub(crate) fn indexes(&self) -> Vec<Value> {
        serde_json::from_str(&self.ok(&["index", "list", "--json"])).unwrap()
    }
}

pub(crate) struct Run(Output);

impl Run {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.stdout
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    pub(crate) fn ok(&self) -> String {
        assert_eq!(self.code(), Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr());
        self.stdout()
    }

    pub(crate) fn err(&self) -> String {
        assert_eq!(self.code(), Some(1), "stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr());
        self.stderr()
    }
}

/// A real registry (Debian's docker-registry) on loopback, ended when dropped.
pub(crate) struct DockerRegistry {
    child: std::process::Child,
    address: String,
    _dir: TempDir,
}

impl DockerRegistry {
    /// Starts one; `None`, with a word about it, where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.exists() {
            eprintln!("skipped: {} is not installed (package docker-registry)", program.display());
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // Let the system choose a free port, then give it to the registry.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            dir.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = std::process::Command::new(program)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, address, _dir: dir };
        for _ in 0..200 {
            if std::net::TcpStream::connect(&registry.address).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("docker-registry does not listen on {}", registry.address);
    }

    /// `host:port`
    pub(crate) fn host(&self) -> &str {
        &self.address
    }

    /// Copies an image from an OCI layout into the registry with skopeo.
    pub(crate) fn copy(&self, from: &str, name: &str) -> String {
        let reference = format!("{}/{name}", self.address);
        let output = std::process::Command::new("skopeo")
            .args(["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false", from])
            .arg(format!("docker://{reference}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        reference
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The digests after `prefix` in the lines of `text`.
pub(crate) fn after<'a>(text: &'a str, prefix: &'a str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(prefix)).collect()
}
