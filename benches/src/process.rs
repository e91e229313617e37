//! Running programs and seeing what they use.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// What a program took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From start to end.
    pub time: Duration,
    /// Largest resident size, in bytes.
    pub peak_memory: u64,
}

/// A program of this project, built with the same profile as the one that runs.
///
/// # Errors
/// If it has not been built.
pub fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let directory = std::env::current_exe()?;
    let mut directory = directory.parent().context("no directory")?;
    // Tests and criterion benchmarks are one level deeper.
    if directory.ends_with("deps") {
        directory = directory.parent().context("no directory")?;
    }
    let path = directory.join(name);
    if !path.exists() {
        bail!("{} is not built: run `cargo build --release --workspace` first", path.display());
    }
    Ok(path)
}

/// Largest resident size of a running process so far, in bytes.
#[must_use]
pub fn peak_memory(pid: u32) -> u64 {
    status_field(pid, "VmHWM:")
}

/// Resident size of a running process, in bytes.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    status_field(pid, "VmRSS:")
}

fn status_field(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Runs a program to its end.
///
/// # Errors
/// If it cannot be run, or fails.
pub fn run(command: &mut Command) -> anyhow::Result<Cost> {
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let mut peak = 0;
    let status = loop {
        // The peak only grows, so the last look before the end has nearly all of it.
        peak = peak.max(peak_memory(child.id()));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(Cost { time: started.elapsed(), peak_memory: peak })
}

/// A mount by our own program, unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    child: Option<Child>,
    directory: PathBuf,
    started: Instant,
}

impl Mount {
    /// Mounts an image and waits until it is there.
    ///
    /// # Errors
    /// If it is not there within a minute.
    pub fn new(image: &str, directory: &Path, root: &Path, more: &[&str]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let started = Instant::now();
        let child = Command::new(sibling("soci-snapshotter-grpc")?)
            .arg("--root")
            .arg(root)
            .args(["mount", "--json"])
            .args(more)
            .arg(image)
            .arg(directory)
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut mount = Self { child: Some(child), directory: directory.to_owned(), started };
        let mut line = String::new();
        if let Some(output) = mount.child.as_mut().and_then(|child| child.stdout.as_mut()) {
            // Byte by byte, so that what comes after the line stays in the pipe for the end.
            use std::io::Read;
            let mut byte = [0];
            while output.read(&mut byte)? == 1 && byte[0] != b'\n' {
                line.push(char::from(byte[0]));
            }
        }
        if !line.contains(r#""event":"mounted""#) {
            bail!("cannot mount {image}");
        }
        Ok(mount)
    }

    /// Process id of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// When mounting began.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Unmounts; returns the report.
    ///
    /// # Errors
    /// If there is no report.
    pub fn finish(mut self) -> anyhow::Result<serde_json::Value> {
        let child = self.child.take().context("already finished")?;
        interrupt(&child);
        let output = child.wait_with_output()?;
        serde_json::from_slice(&output.stdout).context("the report is not JSON")
    }
}

fn interrupt(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // If it has ended already there is nothing to interrupt.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            interrupt(&child);
            let _ = child.wait();
        }
    }
}
