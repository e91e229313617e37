//! Running the real binary.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "each test takes what it needs"
)]

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

/// `soci` with a store of its own.
pub(crate) struct Soci {
    dir: TempDir,
    /// containerd's socket.
    containerd: Option<String>,
}

impl Soci {
    /// That leaves a containerd of this machine alone.
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), containerd: None }
    }

    /// That uses the containerd at this socket.
    pub(crate) fn with_containerd(address: &str) -> Self {
        Self { containerd: Some(address.to_owned()), ..Self::new() }
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
        let mut command = self.command();
        command.args(args).write_stdin(input);
        Run(command.output().unwrap())
    }

    /// The command without arguments.
    pub(crate) fn command(&self) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::cargo_bin("soci").unwrap();
        // Nothing of the user's: no credentials, no store, no mirrors.
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.dir.path());
        command.arg("--root").arg(self.root());
        match &self.containerd {
            Some(address) => command.env("CONTAINERD_ADDRESS", address),
            None => command.arg("--content-store=soci"),
        };
        command.timeout(std::time::Duration::from_secs(60));
        command
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

/// The digests after `prefix` in the lines of `text`.
pub(crate) fn after<'a>(text: &'a str, prefix: &'a str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(prefix)).collect()
}
