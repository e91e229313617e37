//! Which files the words of a command, or of a script, are about.

use std::collections::HashSet;
use std::sync::Mutex;

use super::command::Command;
use super::file_name::Name;
use super::root::Root;
use super::runtimes;
use super::script::{self, Script};
use crate::base::lock::lock;

/// Files of directories that a command names are expected up to this size, in bytes.
const SMALL: u64 = 64 << 10;

/// Files in one directory, and those in it, at most: a larger one is no application's own.
const MAX_LISTED: usize = 300;

/// Files in directories that are looked at, at most, in all.
const MAX_IN_ALL: usize = 600;

/// Directories that are listed because of a word, at most.
const MAX_DIRECTORIES: usize = 64;

/// Which files of a directory are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Listing {
    Archives,
    SmallFiles,
}

/// What was listed so far.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Their paths, without links, and what was looked for.
    directories: HashSet<(Vec<u8>, Listing)>,
    files: usize,
}

/// Finds what words are about: in an image, for the command that it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'f> {
    pub(super) root: &'f Root,
    pub(super) command: &'f Command,
    pub(super) listed: &'f Mutex<Listed>,
}

impl Names<'_> {
    /// The files that the image's command is about.
    pub(super) fn of_command(&self) -> Vec<Name> {
        let words =
            self.command.words().enumerate().flat_map(|(number, word)| self.of_word(word, number == 0));
        words.chain(self.command.text().into_iter().flat_map(|text| self.of_text(text))).collect()
    }

    /// The files that a script is about.
    pub(super) fn of_script(&self, script: &Script) -> Vec<Name> {
        let interpreter = script.interpreter.iter().flat_map(|word| self.of_word(word, true));
        interpreter.chain(script.words.iter().flat_map(|word| self.of_word(word, false))).collect()
    }

    /// The value of a variable of the environment in which scripts run.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.command.variable(name).map(str::to_owned)
    }

    /// The files that a word of a command is about.
    fn of_word(&self, word: &[u8], is_program: bool) -> Vec<Name> {
        // All archives of a directory, for a Java machine.
        if let Some(directory) = word.strip_suffix(b"*").filter(|directory| directory.ends_with(b"/")) {
            return self.archives(&self.command.absolute(directory));
        }
        let files = if word.contains(&b'/') { self.files(&self.command.absolute(word)) } else { Vec::new() };
        if files.is_empty() { vec![self.word(word, is_program)] } else { files }
    }

    /// The archives in a directory.
    pub(super) fn archives(&self, directory: &[u8]) -> Vec<Name> {
        let all = self.list(directory, Listing::Archives).unwrap_or_default().into_iter();
        self.some(all.filter(|path| runtimes::is_archive(path)).take(MAX_LISTED).collect())
    }

    /// The small files in a directory that a command names, and in those in it: its settings, and the state of what
    /// runs on it.
    fn files(&self, directory: &[u8]) -> Vec<Name> {
        let inside = |path: Vec<u8>| match self.root.list(&path) {
            Some(inside) => inside,
            None => vec![path],
        };
        let listed = self.list(directory, Listing::SmallFiles).unwrap_or_default();
        let all: Vec<_> = listed.into_iter().flat_map(inside).take(MAX_LISTED + 1).collect();
        if all.len() > MAX_LISTED {
            return Vec::new();
        }
        let small = |path: &Vec<u8>| self.root.find(path).is_some_and(|file| file.size <= SMALL);
        self.some(all.into_iter().filter(small).collect())
    }

    /// What is in a directory that was not listed like this before.
    fn list(&self, directory: &[u8], listing: Listing) -> Option<Vec<Vec<u8>>> {
        let directory = self.root.directory(directory)?;
        if listing == Listing::SmallFiles && !is_own(&directory) {
            return None;
        }
        let first = {
            let directories = &mut lock(self.listed).directories;
            directories.len() < MAX_DIRECTORIES && directories.insert((directory.clone(), listing))
        };
        if first { self.root.list(&directory) } else { None }
    }

    /// As many of some files as there may be.
    fn some(&self, mut files: Vec<Vec<u8>>) -> Vec<Name> {
        let so_far = &mut lock(self.listed).files;
        files.truncate(MAX_IN_ALL - *so_far);
        *so_far += files.len();
        files.into_iter().map(Name::read).collect()
    }

    /// The file that a word of a command is about.
    fn word(&self, word: &[u8], is_program: bool) -> Name {
        let runs = |path: &[u8]| self.root.find(path).is_some_and(|file| file.executable);
        if word.contains(&b'/') {
            let path = self.command.absolute(word);
            return if runs(&path) { Name::run(path) } else { Name::read(path) };
        }
        // An argument that is called like a program is one often enough: `sh -c`, `exec "$@"`.
        let is_program = is_program || !script::is_builtin(word);
        let program = self.command.search(word).find(|path| is_program && runs(path));
        // Or like a file in the directory in which it runs: `node server.js`.
        program.map_or_else(|| Name::read(self.command.absolute(word)), Name::run)
    }

    /// The files that a shell's text is about.
    fn of_text(&self, text: &[u8]) -> Vec<Name> {
        let words = script::commands(text, |name| self.variable(name), |_| true);
        words.iter().flat_map(|word| self.of_word(word, false)).collect()
    }
}

/// Whether a directory belongs to an application: `/etc/app`, `/srv/app/data`, `/var/lib/app`, and not what all images
/// have.
fn is_own(directory: &[u8]) -> bool {
    let mut names = directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let shared = names.next().is_some_and(|first| [&b"usr"[..], b"var"].contains(&first));
    names.count() > usize::from(shared)
}

#[cfg(test)]
mod tests {
    use super::is_own;

    #[test]
    fn what_all_images_have_is_no_applications_own() {
        for own in ["/etc/app", "/srv/app/data", "/usr/share/app", "/var/lib/app", "/opt/app"] {
            assert!(is_own(own.as_bytes()), "{own}");
        }
        for shared in ["", "/", "/etc", "/srv", "/usr", "/usr/bin", "/var/lib", "/usr//share/"] {
            assert!(!is_own(shared.as_bytes()), "{shared}");
        }
    }
}
