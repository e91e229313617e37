//! What the kernel has, and what the configuration needs of it.

use std::fs::OpenOptions;
use std::io::Read;

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};

use super::report::{Report, Subject};

/// The first version that the daemon is made for.
const FLOOR: (u32, u32) = (5, 10);
/// The first version that maps ids of FUSE file systems.
const MAPS_FUSE: (u32, u32) = (6, 12);
/// Longest list of file systems that is read, in bytes.
const MAX_LIST: u64 = 1 << 16;

/// A kernel, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Its release, such as `6.1.0-18-amd64`.
    pub(super) release: String,
    /// Whether `/dev/fuse` can be opened, or why not.
    pub(super) fuse: Result<(), Errno>,
    pub(super) overlayfs: bool,
    pub(super) erofs: bool,
}

/// What the configuration needs beside FUSE and overlayfs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Containers in user namespaces are to be served without copies.
    pub(super) id_mapping: bool,
    /// The front is EROFS.
    pub(super) erofs: bool,
}

impl Kernel {
    /// This machine's.
    pub(super) fn look() -> Self {
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            fuse: fuse.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            overlayfs: has("overlay"),
            erofs: has("erofs"),
        }
    }

    fn is_before(&self, version: (u32, u32)) -> bool {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < version,
            _ => false,
        }
    }
}

/// Whether the kernel knows a file system, a module that it loads on demand included.
fn has(name: &str) -> bool {
    match fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => true,
        Err(Errno::NODEV) => false,
        // Not allowed to ask, or a kernel without the call.
        Err(_) => {
            let mut list = String::new();
            let file = std::fs::File::open("/proc/filesystems");
            let read = file.and_then(|file| file.take(MAX_LIST).read_to_string(&mut list));
            read.is_ok() && list.lines().any(|line| line.split_whitespace().last() == Some(name))
        }
    }
}

pub(super) fn judge(kernel: &Kernel, needs: Needs, report: &mut Report) {
    let Kernel { release, .. } = kernel;
    let before = report.findings.len();
    if let Err(reason) = &kernel.fuse {
        let message = format!(
            "the kernel gives no FUSE, so nothing can be read lazily: cannot open /dev/fuse: {reason}"
        );
        report
            .problem(Subject::Kernel, "kernel-without-fuse", message)
            .advise("`modprobe fuse`; in a container or virtual machine, have the device passed in.");
    }
    if !kernel.overlayfs {
        let message = "the kernel has no overlayfs, so no container can start with this snapshotter";
        report
            .problem(Subject::Kernel, "kernel-without-overlayfs", message)
            .advise("`modprobe overlay`, or use a kernel built with CONFIG_OVERLAY_FS.");
    }
    if needs.erofs && !kernel.erofs {
        let message = "the kernel has no EROFS, which the configured front needs";
        report
            .problem(Subject::Kernel, "kernel-without-erofs", message)
            .advise("Use the front `fuse` or `auto`, or a kernel built with CONFIG_EROFS_FS.");
    }
    if kernel.is_before(FLOOR) {
        let message =
            format!("Linux {release} is older than 5.10, the first version that the daemon is made for");
        report
            .warning(Subject::Kernel, "kernel-old", message)
            .advise("docs/kernels.md says what older kernels lack.");
    }
    if needs.id_mapping && kernel.is_before(MAPS_FUSE) {
        let message = format!(
            "Linux {release} cannot map the ids of lazy layers (6.12 and later can): containers in user namespaces start \
             slower and do not share memory"
        );
        report.note(Subject::Kernel, "kernel-without-id-mapping", message);
    }
    if report.findings.len() == before {
        report.ok(Subject::Kernel, "kernel", format!("Linux {release} has what the configuration needs"));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::daemon::node::doctor::Verdict;

    fn kernel() -> Kernel {
        Kernel { release: "6.12.3-amd64".into(), fuse: Ok(()), overlayfs: true, erofs: true }
    }

    fn judged(kernel: &Kernel, needs: Needs) -> Report {
        let mut report = Report::default();
        judge(kernel, needs, &mut report);
        report
    }

    #[test]
    fn the_first_line_names_what_the_kernel_lacks_of_what_the_configuration_needs() {
        let all = Needs { id_mapping: true, erofs: true };
        assert!(judged(&kernel(), all).worst().is_none());
        let no_fuse = Kernel { fuse: Err(Errno::NOENT), ..kernel() };
        let no_overlay = Kernel { overlayfs: false, ..kernel() };
        let no_erofs = Kernel { erofs: false, ..kernel() };
        for (lacking, id, word) in [
            (&no_fuse, "kernel-without-fuse", "/dev/fuse: No such file"),
            (&no_overlay, "kernel-without-overlayfs", "overlayfs"),
            (&no_erofs, "kernel-without-erofs", "EROFS"),
        ] {
            let report = judged(lacking, all);
            let worst = report.worst().unwrap();
            assert_eq!((worst.id, worst.verdict), (id, Verdict::Problem));
            let text = report.to_string();
            let first = text.lines().next().unwrap();
            assert!(first.starts_with("problem: the kernel") && first.contains(word), "{first}");
        }
        // What is not needed is not missed.
        assert!(judged(&no_erofs, Needs::default()).worst().is_none());
    }

    #[test]
    fn an_old_kernel_is_a_warning_and_costs_of_user_namespaces_are_a_note() {
        for (release, worst) in [("4.18.0-553.el8", Some("kernel-old")), ("5.10.0", None), ("odd", None)] {
            let report = judged(&Kernel { release: release.into(), ..kernel() }, Needs::default());
            assert_eq!(report.worst().map(|finding| finding.id), worst, "{release}");
        }
        let report = judged(
            &Kernel { release: "6.8.0-1".into(), ..kernel() },
            Needs { id_mapping: true, erofs: false },
        );
        assert_eq!(report.findings[0].id, "kernel-without-id-mapping");
        assert!(report.worst().is_none());
    }
}
