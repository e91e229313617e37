//! What programs use: processor time of everything that a start involves, and memory of those that serve it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Processes and all that they start, counted by the kernel. What has ended stays counted.
#[derive(Debug)]
pub(crate) struct Group {
    directory: PathBuf,
    name: String,
    second_version: bool,
}

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

impl Group {
    /// Makes a group; `None` where there are no control groups to write to.
    pub(crate) fn new() -> Option<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("soci-startup-{}-{number}", std::process::id());
        let second_version = Path::new(GROUPS).join("cgroup.controllers").exists();
        let hierarchy =
            if second_version { PathBuf::from(GROUPS) } else { Path::new(GROUPS).join("cpuacct") };
        let directory = hierarchy.join(&name);
        // Processes only in leaves, as the second version wants it.
        fs::create_dir_all(directory.join("node")).ok()?;
        let group = Self { directory, name, second_version };
        group.seconds().is_some().then_some(group)
    }

    fn processes(&self) -> PathBuf {
        self.directory.join("node/cgroup.procs")
    }

    /// Counts a process that runs already, and what it starts from now on.
    pub(crate) fn add(&self, pid: u32) {
        // It may have ended.
        let _ = fs::write(self.processes(), pid.to_string());
    }

    /// A command that runs `program` in the group.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0"; exec "$@""#]).arg(self.processes()).arg(program);
        command
    }

    /// For `ctr run --cgroup`.
    pub(crate) fn container(&self) -> String {
        format!("/{}/container", self.name)
    }

    /// Processor time so far, in seconds.
    pub(crate) fn seconds(&self) -> Option<f64> {
        if self.second_version {
            let stat = fs::read_to_string(self.directory.join("cpu.stat")).ok()?;
            let line = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            return Some(line.trim().parse::<f64>().ok()? / 1e6);
        }
        let usage = fs::read_to_string(self.directory.join("cpuacct.usage")).ok()?;
        Some(usage.trim().parse::<f64>().ok()? / 1e9)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // runc makes directories of the name in every hierarchy, and removes its own only.
        let others = fs::read_dir(GROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
        let groups = others.map(|hierarchy| hierarchy.join(&self.name)).chain([self.directory.clone()]);
        for group in groups.filter(|group| group.is_dir()) {
            // A process that has just ended may be counted a moment longer.
            for _ in 0..50 {
                for leaf in ["container", "node"] {
                    let _ = fs::remove_dir(group.join(leaf));
                }
                if fs::remove_dir(&group).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

/// Processor time of a process and of those that it has waited for, in seconds.
pub(crate) fn process_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Lets [`benches::process::peak_memory`] of a process begin anew.
pub(crate) fn forget_peak(pid: u32) {
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
