//! `config.toml`: the daemon's configuration.
//!
//! A file of awslabs/soci-snapshotter works unchanged. What it says that is not known, or does nothing here, is
//! reported instead of being passed over in silence ([`Note`]); values that cannot be are errors which say what can.
//! What is well-formed but cannot work on this machine is found at start-up by [`Config::problems`].
//!
//! | module | subject |
//! |---|---|
//! | `keys` | the list of keys, which everything else is checked against |
//! | `file` | the raw values and their defaults |
//! | `check` | from a text to raw values |
//! | `settings`, `hosts` | what the daemon sees: durations, sizes, choices, a [`registry::ClientConfig`] |
//! | `problems` | what cannot work |
//! | `render` | `config default` and `config dump` |

mod check;
mod file;
mod hosts;
mod keys;
mod problems;
mod render;
mod settings;
mod size;
pub(crate) mod sockets;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use problems::{Problem, Severity};
pub use settings::{ContentStore, MetricsEndpoint, ParallelPull, PullModes};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/soci-snapshotter-grpc/config.toml";

/// Longest file that is read, in bytes: what is longer is some other file.
const MAX_FILE: u64 = 1 << 20;

/// The configuration in effect. [`Default`] is what applies without a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    file: file::File,
}

/// A configuration and what is to be said about the file it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file; `None` if there is none, so that defaults apply.
    pub path: Option<PathBuf>,
    /// What it says in vain, in the order of its lines.
    pub notes: Vec<Note>,
}

/// Something that a file says in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The key with its tables, as it is written.
    pub key: String,
    /// The line it is in, from 1.
    pub line: usize,
    /// What is to be said about it.
    pub kind: NoteKind,
}

/// Why a file says something in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteKind {
    /// No such key.
    Unknown {
        /// A key with nearly that name.
        meant: Option<String>,
    },
    /// The key exists but does nothing in this program, and does not have its default value.
    NoEffect {
        /// Why it does nothing.
        reason: &'static str,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, line, kind } = self;
        match kind {
            NoteKind::Unknown { meant: None } => write!(f, "line {line}: unknown key {key}"),
            NoteKind::Unknown { meant: Some(meant) } => {
                write!(f, "line {line}: unknown key {key}; is {meant} meant?")
            }
            NoteKind::NoEffect { reason } => write!(f, "line {line}: {key} has no effect: {reason}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file says something that cannot be.
    #[error("{}, line {line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong: the key, the value, and what is allowed.
        message: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        let mut file = file::File::default();
        file.resolve_defaults();
        Self { file }
    }
}

impl Config {
    /// The configuration in the file `path`, or in [`DEFAULT_PATH`], where it may be missing.
    ///
    /// # Errors
    /// If the file cannot be read, `path` names one that does not exist, or it holds something that cannot be.
    pub fn load(path: Option<&Path>) -> Result<Loaded, ConfigError> {
        match path {
            Some(path) => Self::load_file(path),
            None => match Self::load_file(Path::new(DEFAULT_PATH)) {
                Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    Ok(Loaded { config: Self::default(), path: None, notes: Vec::new() })
                }
                loaded => loaded,
            },
        }
    }

    fn load_file(path: &Path) -> Result<Loaded, ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE {
            return Err(unreadable(std::io::Error::other("it is longer than 1 MiB")));
        }
        let (config, notes) = Self::parse(&text).map_err(|mistake| ConfigError::Invalid {
            path: path.to_owned(),
            line: mistake.line,
            message: mistake.message,
        })?;
        Ok(Loaded { config, path: Some(path.to_owned()), notes })
    }

    fn parse(text: &str) -> Result<(Self, Vec<Note>), check::Mistake> {
        check::read(text).map(|(file, notes)| (Self { file }, notes))
    }

    /// A file with every key at its default value, each explained in a line.
    #[must_use]
    pub fn default_toml() -> String {
        render::default_toml()
    }

    /// The values in effect, as a file.
    ///
    /// # Errors
    /// If a value cannot be written as TOML, which none of those that can be read does.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        render::to_toml(&self.file)
    }
}

impl Loaded {
    /// Logs where the configuration came from, and the notes: unknown keys as warnings.
    pub fn log(&self) {
        match &self.path {
            Some(path) => tracing::info!(path = %path.display(), "configuration loaded"),
            None => tracing::info!("there is no configuration file; defaults apply"),
        }
        for note in &self.notes {
            let Note { key, line, kind } = note;
            match kind {
                NoteKind::Unknown { meant } => {
                    tracing::warn!(key, line, meant, "unknown key in the configuration");
                }
                NoteKind::NoEffect { reason } => {
                    tracing::info!(key, line, reason, "a key of the configuration has no effect");
                }
            }
        }
    }
}
