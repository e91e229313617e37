//! Whose container a process is in.
//!
//! The root of a container is an overlay whose upper directory belongs to its own snapshot, and `/proc/PID/mountinfo`
//! shows that, whatever started the container. A process that is about to enter a container is looked at again each
//! time. That one is in a container is remembered, for a moment only, since numbers of processes and namespaces are
//! given out again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::lock::lock;
use crate::base::sys::MountLine;

/// How long it is believed that a process is in a container.
const LIFE: Duration = Duration::from_secs(1);

/// Processes that are remembered.
const MAX_KNOWN: usize = 1024;

/// Largest table of mounts that is read: of a host with some ten thousand containers.
const MAX_TABLE: u64 = 16 << 20;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// A process of a container, by the container's upper directory.
    Container(PathBuf),
    /// A process of no container: of the host, or of one that is about to enter a container.
    Outside,
    /// The kernel itself, or a process that cannot be seen: of another PID namespace, or one that has ended.
    Nobody,
}

/// Finds out who asks.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// Upper directories of the containers of processes, with their mount namespaces.
    known: Mutex<HashMap<(u32, PathBuf), (Instant, PathBuf)>>,
}

impl Callers {
    pub(super) fn of(&self, process: u32) -> Caller {
        if process == 0 {
            return Caller::Nobody;
        }
        let directory = Path::new("/proc").join(process.to_string());
        let Ok(namespace) = std::fs::read_link(directory.join("ns/mnt")) else { return Caller::Nobody };
        let key = (process, namespace);
        if let Some((found, upper)) = lock(&self.known).get(&key)
            && found.elapsed() < LIFE
        {
            return Caller::Container(upper.clone());
        }
        let mut table = Vec::new();
        let read = File::open(directory.join("mountinfo"))
            .and_then(|file| file.take(MAX_TABLE).read_to_end(&mut table));
        if read.is_err() {
            return Caller::Nobody;
        }
        let Some(upper) = root_of(&table) else { return Caller::Outside };
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, (Instant::now(), upper.clone()));
        Caller::Container(upper)
    }
}

/// The upper directory of the overlay that is the root of a process, if it is one.
fn root_of(table: &[u8]) -> Option<PathBuf> {
    // What was mounted last lies on top.
    MountLine::all(table).filter(|mount| mount.point() == Path::new("/")).last()?.upper()
}

/// Whether a process that waits for a read waits for a page of what it has mapped, or for a program that it is about
/// to become; not because it has called read(2).
pub(super) fn executes(process: u32) -> bool {
    let path = Path::new("/proc").join(process.to_string()).join("syscall");
    std::fs::read_to_string(path).is_ok_and(|call| is_execution(&call))
}

/// The kernel gives the number of the system call, and -1 for none.
fn is_execution(call: &str) -> bool {
    let number = call.split_whitespace().next().and_then(|number| number.parse::<i64>().ok());
    number.is_some_and(|number| number == -1 || EXECVE.contains(&number))
}

/// The numbers of execve(2) and execveat(2).
#[cfg(target_arch = "x86_64")]
const EXECVE: [i64; 2] = [59, 322];
#[cfg(not(target_arch = "x86_64"))]
const EXECVE: [i64; 2] = [221, 281];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_root() {
        let overlay = |id: u32, point: &str, upper: &str| {
            format!("{id} 1 0:50 / {point} rw - overlay overlay rw,lowerdir=/l,upperdir={upper},workdir=/w\n")
        };
        let disk = "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n";
        let root = |table: String| root_of(table.as_bytes());
        // The host sees the roots of all containers.
        assert_eq!(root(disk.to_owned() + &overlay(30, "/run/containerd/rootfs", "/s/7/fs")), None);
        assert_eq!(root(overlay(30, "/", "/s/7/fs")), Some("/s/7/fs".into()));
        // While it is being started, a container still has the host's mounts, and its own lie over them.
        assert_eq!(root(disk.to_owned() + &overlay(30, "/", "/s/7/fs")), Some("/s/7/fs".into()));
        // One that has the host's root, and those of others in it.
        let agent = overlay(30, "/", "/s/8/fs") + &overlay(31, "/host/run/rootfs", "/s/7/fs");
        assert_eq!(root(agent), Some("/s/8/fs".into()));
        assert_eq!(root(String::new()), None);
    }

    #[test]
    fn execution_is_known_by_what_a_process_waits_in() {
        assert!(
            is_execution("-1 0x7ffd1d50 0x7f52c5\n")
                && is_execution("322 0x0 0x0\n".replace("322", &EXECVE[1].to_string()).as_str())
        );
        assert!(
            !is_execution("running\n")
                && !is_execution("0 0x3 0x7f 0x20000 0x0 0x0 0x0 0x7ffd 0x7f52\n")
                && !is_execution("")
        );
        // This thread runs.
        assert!(!executes(std::process::id()));
    }

    #[test]
    fn who_cannot_be_seen_is_nobody() {
        let callers = Callers::default();
        assert_eq!(callers.of(0), Caller::Nobody);
        assert_eq!(callers.of(u32::MAX), Caller::Nobody);
    }
}
