//! The command of an image.

use soci_index::oci::ImageConfig;

/// Where programs are when the image does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Words of a command that are looked at, at most.
const MAX_WORDS: usize = 64;

/// What a container of an image runs unless it is told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Command {
    words: Vec<String>,
    environment: Vec<String>,
    directory: String,
}

impl Command {
    /// The command of a configuration; `None` if it names none.
    pub(crate) fn of(config: &ImageConfig) -> Option<Self> {
        let run = &config.config;
        let words: Vec<_> = run.entrypoint.iter().chain(&run.cmd).take(MAX_WORDS).cloned().collect();
        (!words.is_empty()).then(|| Self {
            words,
            environment: run.env.clone(),
            directory: run.working_dir.clone(),
        })
    }

    /// The program and its arguments.
    pub(crate) fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.words.iter().map(String::as_bytes)
    }

    /// A variable of the environment.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
    }

    /// A path as it is from the root.
    pub(super) fn absolute(&self, path: &[u8]) -> Vec<u8> {
        if path.starts_with(b"/") {
            return path.to_vec();
        }
        [b"/", self.directory.as_bytes(), b"/", path].concat()
    }

    /// Where a program of this name may be.
    pub(super) fn search(&self, name: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let path = self.variable("PATH").unwrap_or(USUAL_PATH);
        let plausible = !name.is_empty() && name.len() < 256;
        path.split(':')
            .filter(move |directory| plausible && directory.starts_with('/'))
            .map(move |directory| [directory.as_bytes(), b"/", name].concat())
    }
}
