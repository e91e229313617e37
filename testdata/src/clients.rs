//! Current releases of containerd and of its clients, which Debian does not have: `scripts/build-test-clients` builds them
//! from their Go modules, as listed in `clients/modules`, and keeps them in the user's cache.

use std::path::PathBuf;

/// The same list that the script reads.
const MODULES: &str = include_str!("../clients/modules");

/// A release in a directory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// containerd 2.3 with `ctr` and the shim.
    Containerd23,
    /// containerd 2.4 with `ctr` and the shim.
    Containerd24,
    /// nerdctl.
    Nerdctl,
    /// crictl.
    Crictl,
    /// runc, which containerd 2 wants newer than Debian's.
    Runc,
}

impl Client {
    /// Name, and the beginning of the version.
    fn wanted(self) -> (&'static str, &'static str) {
        match self {
            Self::Containerd23 => ("containerd", "2.3."),
            Self::Containerd24 => ("containerd", "2.4."),
            Self::Nerdctl => ("nerdctl", "2."),
            Self::Crictl => ("crictl", "1."),
            Self::Runc => ("runc", "1."),
        }
    }

    /// The directory with its programs, if it was built.
    #[must_use]
    pub fn directory(self) -> Option<PathBuf> {
        let (name, version) = self.wanted();
        let lines = MODULES.lines().filter(|line| !line.starts_with('#'));
        let mut columns = lines.map(|line| line.split_whitespace());
        let version = columns.find_map(|mut line| {
            (line.next() == Some(name)).then(|| line.next()).flatten().filter(|v| v.starts_with(version))
        })?;
        let directory = store()?.join(format!("{name}-{version}"));
        directory.join(".complete").exists().then_some(directory)
    }

    /// One of its programs, if it was built.
    #[must_use]
    pub fn program(self, name: &str) -> Option<PathBuf> {
        Some(self.directory()?.join(name))
    }

    pub(crate) fn name(self) -> &'static str {
        self.wanted().0
    }
}

/// Where the script puts them.
fn store() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    variable("SOCI_TEST_CLIENTS").or_else(|| Some(cache()?.join("soci-test-clients")))
}
