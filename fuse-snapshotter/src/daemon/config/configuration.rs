//! The configuration in effect, and the file that it comes from.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::check;
use super::file::File;
use super::notes::{Note, NoteKind};
use super::render;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/soci-snapshotter-grpc/config.toml";

/// Longest file that is read, in bytes: what is longer is some other file.
const MAX_FILE: u64 = 1 << 20;

/// The configuration in effect. [`Default`] is what applies without a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub(super) file: File,
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
        let mut file = File::default();
        file.resolve_all_defaults();
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

    pub(super) fn parse(text: &str) -> Result<(Self, Vec<Note>), check::Mistake> {
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
