//! Versions of containerd, and which one runs here.

use std::fmt;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use soci_index::containerd::{Containerd, ContainerdError, DEFAULT_NAMESPACE};

/// How long `containerd --version` may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest text that is looked into for a version, in bytes.
const MAX_TEXT: usize = 4096;

/// A version of containerd, without what distributions add to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerdVersion {
    /// 2 of 2.3.7.
    pub major: u32,
    /// 3 of 2.3.7.
    pub minor: u32,
    /// 7 of 2.3.7; 0 where it is not given.
    pub patch: u32,
}

/// Text that is no version.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// It is something else.
    #[error("expected a version of containerd such as 1.7 or 2.3.7")]
    Malformed,
}

impl ContainerdVersion {
    /// `major.minor.0`.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, patch: 0 }
    }

    /// Whether it is this version or a later one.
    #[must_use]
    pub fn is_at_least(self, major: u32, minor: u32) -> bool {
        self >= Self::new(major, minor)
    }

    /// The highest version of a configuration file that it reads.
    #[must_use]
    pub fn config_version(self) -> i64 {
        match (self.major, self.minor) {
            (0 | 1, _) => 2,
            (2, 0..=2) => 3,
            _ => 4,
        }
    }
}

impl FromStr for ContainerdVersion {
    type Err = VersionError;

    /// `1.7`, `v2.1.5`, `2.3.7+unknown`, `1.6.20~ds1`, `2.0.0-rc.1`.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].trim_end_matches('.').split('.').map(str::parse::<u32>);
        let mut next = || numbers.next().transpose().map_err(|_| VersionError::Malformed);
        let (major, minor, patch) = (next()?, next()?, next()?);
        let (Some(major), Some(minor)) = (major, minor) else { return Err(VersionError::Malformed) };
        Ok(Self { major, minor, patch: patch.unwrap_or(0) })
    }
}

impl fmt::Display for ContainerdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A containerd of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its version.
    pub version: ContainerdVersion,
    /// How that is known.
    pub source: String,
}

/// Why the version of containerd is not known.
#[derive(Debug, thiserror::Error)]
pub enum RunningError {
    /// containerd cannot be asked.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// What it says is no version.
    #[error("containerd at {address} says that it is {said:?}")]
    NoVersion {
        /// Its socket.
        address: String,
        /// Its words.
        said: String,
    },
    /// The program does not run.
    #[error("cannot run `containerd --version`: {0}")]
    Run(std::io::Error),
    /// The program runs for too long.
    #[error("`containerd --version` does not end")]
    Endless,
    /// The program prints something else.
    #[error("`containerd --version` says no version")]
    Silent,
    /// Neither containerd nor the program says it.
    #[error("{0}; {1}")]
    Both(Box<Self>, Box<Self>),
}

impl Running {
    /// The containerd that answers at `address`; without one, the program `containerd`.
    ///
    /// # Errors
    /// If neither says its version.
    pub async fn find(address: &str) -> Result<Self, RunningError> {
        let why = match Self::ask(address).await {
            Ok(running) => return Ok(running),
            Err(why) => why,
        };
        Self::program().await.map_err(|also| RunningError::Both(Box::new(why), Box::new(also)))
    }

    async fn ask(address: &str) -> Result<Self, RunningError> {
        let containerd = Containerd::connect(address, DEFAULT_NAMESPACE).await?;
        let said = containerd.version().await?;
        let Ok(version) = said.parse() else {
            return Err(RunningError::NoVersion { address: address.to_owned(), said });
        };
        Ok(Self { version, source: format!("containerd {said} answers at {address}") })
    }

    /// What `containerd --version` says.
    pub(super) async fn program() -> Result<Self, RunningError> {
        let mut command = tokio::process::Command::new("containerd");
        command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .map_err(|_| RunningError::Endless)?
            .map_err(RunningError::Run)?;
        let said = String::from_utf8_lossy(&output.stdout[..output.stdout.len().min(MAX_TEXT)]).into_owned();
        let version = said.split_whitespace().find_map(|word| word.parse().ok());
        let version = version.ok_or(RunningError::Silent)?;
        Ok(Self { version, source: format!("`containerd --version` says {version}") })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        for (text, (major, minor, patch)) in [
            ("1.6", (1, 6, 0)),
            ("v2.1.5", (2, 1, 5)),
            ("2.3.7+unknown", (2, 3, 7)),
            ("1.6.20~ds1", (1, 6, 20)),
            ("2.0.0-rc.1", (2, 0, 0)),
        ] {
            assert_eq!(text.parse::<ContainerdVersion>().unwrap(), ContainerdVersion { major, minor, patch });
        }
        for text in ["", "2", "v", "containerd", "2.", ".", "a.b", "99999999999.1", "github.com/x/v2"] {
            assert!(text.parse::<ContainerdVersion>().is_err(), "{text}");
        }
    }
}
