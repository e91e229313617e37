//! The command of an image.

use soci_index::oci::ImageConfig;

/// Where programs are when the image does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Words of a command that are looked at, at most.
const MAX_WORDS: usize = 64;

/// Directories of a search path that are looked into, at most.
pub(super) const MAX_DIRECTORIES: usize = 64;

/// Longest word, variable or directory that is looked at, in bytes.
const MAX_LENGTH: usize = 4096;

/// Variables that are looked at, at most.
const MAX_VARIABLES: usize = 200;

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
        let words = run.entrypoint.iter().chain(&run.cmd).take(MAX_WORDS);
        let words: Vec<_> = words.filter(|word| word.len() <= MAX_LENGTH).cloned().collect();
        let variables = run.env.iter().filter(|variable| variable.len() <= MAX_LENGTH);
        let directory = &run.working_dir;
        (!words.is_empty()).then(|| Self {
            words,
            environment: variables.take(MAX_VARIABLES).cloned().collect(),
            directory: if directory.len() <= MAX_LENGTH { directory.clone() } else { String::new() },
        })
    }

    /// The program and its arguments.
    pub(crate) fn words(&self) -> impl Iterator<Item = &[u8]> {
        self.words.iter().map(String::as_bytes)
    }

    /// What a shell is told to run, if the program is one: `sh -c` and some text.
    pub(super) fn text(&self) -> Option<&[u8]> {
        let (shell, arguments) = self.words.split_first()?;
        let is_shell = shell.rsplit('/').next().is_some_and(|name| name.ends_with("sh"));
        let is_option = |word: &&String| word.starts_with('-') && word.ends_with('c');
        // A script comes before its own options; what an option of the shell names has no directory.
        let (option, _) =
            arguments.iter().enumerate().find(|(_, word)| is_option(word) || word.contains('/'))?;
        let (option, rest) = arguments.get(option..)?.split_first()?;
        let text = rest.iter().find(|word| !word.starts_with(['-', '+']))?;
        (is_shell && is_option(&option)).then_some(text.as_bytes())
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
            .take(MAX_DIRECTORIES)
            .filter(move |directory| plausible && directory.starts_with('/'))
            .map(move |directory| [directory.as_bytes(), b"/", name].concat())
    }
}
