//! What a test needs of the machine.
//!
//! A test that cannot run says so aloud, and in CI (where the variable `CI` is set) it fails: a check that quietly does
//! not happen is worse than none.

use std::path::Path;

use crate::clients::Client;

/// Something that not every machine has.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A program, and the Debian package that has it.
    Program(&'static str, &'static str),
    /// A client that `scripts/build-test-clients` builds.
    Client(Client),
    /// Being root: mounting, making devices.
    Root,
    /// `/dev/fuse`.
    Fuse,
    /// `/dev/fuse` for every user, as udev sets it up, and `fusermount3`.
    FuseForUsers,
    /// `/dev/net/tun`.
    Tun,
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Program(name, _) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&path).any(|directory| directory.join(name).exists())
            }
            Self::Client(client) => client.directory().is_some(),
            Self::Root => {
                std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
            }
            Self::Fuse => Path::new("/dev/fuse").exists(),
            Self::Tun => Path::new("/dev/net/tun").exists(),
            Self::FuseForUsers => {
                let mode =
                    std::fs::metadata("/dev/fuse").map_or(0, |m| std::os::unix::fs::MetadataExt::mode(&m));
                mode & 0o006 == 0o006 && Self::Program("fusermount3", "fuse3").is_met()
            }
        }
    }

    fn complaint(self) -> String {
        match self {
            Self::Program(name, package) => format!("{name} is not installed (Debian package {package})"),
            Self::Client(client) => {
                format!("{} is not built (scripts/build-test-clients, which needs Go)", client.name())
            }
            Self::Root => "this needs root".to_owned(),
            Self::Fuse => "/dev/fuse is not there".to_owned(),
            Self::Tun => "/dev/net/tun is not there".to_owned(),
            Self::FuseForUsers => {
                "fusermount3 is not installed (Debian package fuse3), or /dev/fuse is not open to users (mode 0666)".to_owned()
            }
        }
    }
}

/// Whether all of `needs` are met; says aloud which one is not.
///
/// # Panics
/// In CI, if one is not met.
#[must_use]
#[expect(clippy::print_stderr, reason = "what a test leaves out is said aloud")]
pub fn available(needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find(|need| !need.is_met()) else { return true };
    let complaint = missing.complaint();
    assert!(std::env::var_os("CI").is_none(), "{complaint}, and in CI no test may be skipped");
    eprintln!("\n*** SKIPPED: {complaint} ***\n");
    false
}

/// Whether the kernel mounts EROFS from files, as from Linux 6.12 on it can; says so aloud if it does not. Since the product can
/// do without, this is not asked of CI.
#[must_use]
#[expect(clippy::print_stderr, reason = "what a test leaves out is said aloud")]
pub fn can_mount_erofs() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-', '\n']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if version >= (6, 12) && known.lines().any(|line| line.trim_start_matches("nodev").trim() == "erofs") {
        return true;
    }
    eprintln!("\n*** SKIPPED: the kernel does not mount EROFS from files ***\n");
    false
}
