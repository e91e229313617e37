//! The daemon's root directory.

use std::path::Path;

use rustix::fs::statfs;

use super::report::{Report, Subject};
use crate::daemon::config::Config;
use crate::snapshotter::try_root;

/// What came of looking at the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    /// containers can run on it.
    Usable,
    /// They cannot.
    Refused { reason: String, file_system: Option<String> },
    /// Only root can try, or nobody wants it tried.
    NotTried(&'static str),
}

pub(super) fn check(root: &Path, config: &Config) -> Checked {
    if !rustix::process::geteuid().is_root() {
        return Checked::NotTried("only root can mount overlayfs");
    }
    if !config.settings().check_overlay {
        return Checked::NotTried("snapshotter.skip_check_snapshotter_supported is set");
    }
    match try_root(root) {
        Ok(()) => Checked::Usable,
        Err(problem) => Checked::Refused { reason: problem.to_string(), file_system: file_system(root) },
    }
}

pub(super) fn judge(root: &Path, checked: Checked, report: &mut Report) {
    let shown = root.display();
    match checked {
        Checked::Usable => {
            report.ok(Subject::Root, "root", format!("{shown} can be used: overlayfs takes it"))
        }
        Checked::NotTried(why) => {
            report.note(
                Subject::Root,
                "root-not-tried",
                format!("{shown} was not tried with overlayfs: {why}"),
            );
        }
        Checked::Refused { reason, file_system } => {
            let on = file_system.map(|name| format!(" (its file system is {name})")).unwrap_or_default();
            let message = format!("the root directory {shown} cannot be used{on}: {reason}");
            report.problem(Subject::Root, "root-unusable", message).advise(
                "Put it on a local file system such as ext4, or xfs with ftype=1: give the service another --root, and \
                 containerd the same (`soci-snapshotter-grpc --root DIR config containerd`).",
            );
        }
    }
}

/// The name of the file system that the directory is on, or will be on.
fn file_system(root: &Path) -> Option<String> {
    let there = root.ancestors().find(|path| path.exists())?;
    let name = match statfs(there).ok()?.f_type as u64 & 0xffff_ffff {
        0x794c_7630 => "overlayfs",
        0x0102_1994 => "tmpfs",
        0x6969 => "NFS",
        0x6573_5546 => "FUSE",
        0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x2fc1_2fc1 => "ZFS",
        0x4d44 => "FAT",
        _ => return None,
    };
    Some(name.to_owned())
}
