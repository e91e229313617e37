//! What a container reads first, fetched before it asks.
//!
//! Between the end of a pull and the first instruction of the container's program containerd and runc work for a few tenths
//! of a second, and the link idles. What comes then is no secret: the image's configuration names the program, the program
//! its interpreter and its libraries, and the dynamic linker reads of each the same tables and the pages that it relocates.
//! [`Forecast::start`] follows these names as the kernel and the linker would and fetches those bytes, at a priority below that
//! of readers. Libraries that a program loads later are followed in the same way when it begins to read them
//! ([`Forecast::program`]). It is a forecast: whatever it cannot make sense of is left to the program itself, and nothing depends
//! on it.
//!
//! * [`Command`] is the program and its arguments, from the image's configuration,
//! * `root` finds files in the image by their paths,
//! * `script` finds the programs that a script ends in,
//! * `runtimes` knows what is read by programs that do not name it,
//! * `elf` says what of a program or library is read at its start, and what it needs besides.

mod command;
mod elf;
mod root;
mod runtimes;
mod script;

#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

pub(crate) use command::Command;
pub(crate) use root::{Part, Root};

use crate::cache::lock;
use root::{Content, File, Place};
use runtimes::Head;

/// Files that are looked at, at most.
const MAX_FILES: usize = 1000;

/// Bytes that are expected, at most: a forecast that is wrong should not cost a layer.
const MAX_BYTES: u64 = 256 << 20;

/// Bytes of code that are expected after that, at most.
const MAX_LATER: u64 = 1 << 30;

/// Bytes of code that are fetched at a time: a span, mostly.
const PIECE: u64 = 4 << 20;

/// Files up to this size are expected as a whole, in bytes: they are in one span, or in two.
const WHOLE: u64 = 2 << 20;

/// Files of directories that a command names are expected up to this size, in bytes.
const SMALL: u64 = 64 << 10;

/// Files of such a directory that are looked at, at most.
const MAX_LISTED: usize = 300;

/// Files that are looked at at a time: enough that those which lead on to others are among them.
const LOOKS: usize = 16;

/// Parts of files that are fetched at a time beside that.
const FETCHES: usize = 4;

/// What the container runtime, the dynamic linker and the C library read of every image, if it is there.
const ALWAYS: [&str; 5] =
    ["/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/localtime"];

/// What nearly every program needs. To learn that from the program costs two round trips.
const NEARLY_ALWAYS: [&str; 5] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/aarch64-linux-gnu/libc.so.6",
    "/lib64/libc.so.6",
];

/// A program shorter than this is a script of the shell often enough, in bytes.
const SCRIPT: u64 = 16 << 10;

/// What interprets it.
const SHELL: &str = "/bin/sh";

/// How much was expected so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// A file to look at.
#[derive(Debug)]
struct Name {
    path: Vec<u8>,
    /// Whether it is executed, and not just read.
    runs: bool,
    /// How much is read at its start although it is long.
    head: Head,
}

impl Name {
    fn read(path: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), runs: false, head: |_| 0 }
    }

    fn run(path: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), runs: true, head: |_| 0 }
    }
}

/// What is expected of an image. Each file is looked at once.
#[derive(Debug)]
pub(crate) struct Forecast {
    root: Root,
    command: Command,
    looks: Semaphore,
    fetches: Semaphore,
    seen: Mutex<(HashSet<Place>, Expected)>,
    /// What is read after all of that.
    later: Mutex<Later>,
    /// There is more of it.
    more: Notify,
}

/// Parts of files that are read in the course of a start, in the order in which they are fetched.
#[derive(Debug, Default)]
struct Later {
    parts: VecDeque<(Arc<Content>, Range<u64>)>,
    /// How much there has been so far.
    bytes: u64,
}

/// A file that was found.
struct Found {
    file: File,
    /// As of its name.
    runs: bool,
    head: Head,
}

/// What came of looking at a file.
struct Look {
    content: Arc<Content>,
    ranges: Vec<Range<u64>>,
    /// What of it will be read after that.
    code: Vec<Range<u64>>,
    names: Vec<Name>,
}

impl Forecast {
    /// Nothing is expected yet.
    pub(crate) fn new(root: Root, command: Command) -> Arc<Self> {
        let (looks, fetches) = (Semaphore::new(LOOKS), Semaphore::new(FETCHES));
        Arc::new(Self {
            root,
            command,
            looks,
            fetches,
            seen: Mutex::default(),
            later: Mutex::default(),
            more: Notify::new(),
        })
    }

    /// Fetches what a container of the image will read when it starts with its own command.
    pub(crate) async fn start(self: &Arc<Self>) -> Expected {
        let words = self.command.words().enumerate();
        let words = words.flat_map(|(number, word)| self.names(word, number == 0));
        let text = self.command.text().map(|text| self.commands(text)).unwrap_or_default();
        let mut files: Vec<_> = words.chain(text).filter_map(|name| self.find(name)).collect();
        if files.first().is_some_and(|program| program.file.size < SCRIPT) {
            files.extend(self.find(Name::run(SHELL)));
        }
        files.extend(NEARLY_ALWAYS.iter().filter_map(|path| self.find(Name::run(*path))));
        files.extend(ALWAYS.iter().filter_map(|path| self.find(Name::read(*path))));
        self.follow(files).await;
        lock(&self.seen).1
    }

    fn find(&self, name: Name) -> Option<Found> {
        Some(Found { file: self.root.find(&name.path)?, runs: name.runs, head: name.head })
    }

    /// Fetches what will be read of a program or library that somebody has begun to read, and of the libraries that it needs.
    pub(crate) async fn program(self: &Arc<Self>, number: u64) {
        if let Some(file) = self.root.numbered(number) {
            self.follow(vec![Found { file, runs: true, head: |_| 0 }]).await;
        }
    }

    /// Fetches what is read in the course of a start, of all files that were looked at and will be. It does not end.
    pub(crate) async fn rest(&self) {
        let fetch = async || {
            while let Some((content, range)) = self.next_part() {
                if let Content::Lazy { layer, entry, .. } = &*content
                    && !layer.expect_later(*entry, range).await
                {
                    lock(&self.later).parts.clear();
                }
            }
        };
        loop {
            // As many as there are turns for it.
            tokio::join!(fetch(), fetch());
            self.more.notified().await;
        }
    }

    /// The next piece of what is read later.
    fn next_part(&self) -> Option<(Arc<Content>, Range<u64>)> {
        let parts = &mut lock(&self.later).parts;
        let (content, range) = parts.front_mut()?;
        let end = range.end.min(range.start.saturating_add(PIECE));
        let part = (Arc::clone(content), range.start..end);
        range.start = end;
        if range.is_empty() {
            parts.pop_front();
        }
        Some(part)
    }

    /// Looks at files and at what they lead to, each on its own: one that leads nowhere holds up no other.
    async fn follow(self: &Arc<Self>, mut files: Vec<Found>) {
        let mut looks = JoinSet::new();
        let mut fetches = JoinSet::new();
        loop {
            for found in files.drain(..) {
                if self.is_new(&found.file) {
                    let forecast = Arc::clone(self);
                    looks.spawn(async move { forecast.look(found).await });
                }
            }
            let Some(look) = looks.join_next().await else { break };
            let Ok(look) = look else { continue };
            files.extend(look.names.into_iter().filter_map(|name| self.find(name)));
            self.put_off(&look.content, look.code);
            for range in look.ranges {
                if self.can_expect(&range) {
                    let (forecast, content) = (Arc::clone(self), Arc::clone(&look.content));
                    fetches.spawn(async move { forecast.fetch(&content, range).await });
                }
            }
        }
        while fetches.join_next().await.is_some() {}
    }

    fn put_off(&self, content: &Arc<Content>, ranges: Vec<Range<u64>>) {
        let later = &mut *lock(&self.later);
        for range in ranges {
            let length = range.end.saturating_sub(range.start);
            if later.bytes + length <= MAX_LATER {
                later.bytes += length;
                later.parts.push_back((Arc::clone(content), range));
                self.more.notify_one();
            }
        }
    }

    fn is_new(&self, file: &File) -> bool {
        let (seen, expected) = &mut *lock(&self.seen);
        let new = expected.files < MAX_FILES && seen.insert(file.place.clone());
        expected.files += usize::from(new);
        new
    }

    fn can_expect(&self, range: &Range<u64>) -> bool {
        let length = range.end.saturating_sub(range.start);
        let (_, expected) = &mut *lock(&self.seen);
        let can = length > 0 && expected.bytes + length <= MAX_BYTES;
        expected.bytes += if can { length } else { 0 };
        can
    }

    /// The files that a word of a command is about.
    fn names(&self, word: &[u8], is_program: bool) -> Vec<Name> {
        // All archives of a directory, for a Java machine.
        if let Some(directory) = word.strip_suffix(b"/*") {
            return self.archives(&self.command.absolute(directory));
        }
        let files = if word.contains(&b'/') { self.files(&self.command.absolute(word)) } else { Vec::new() };
        if files.is_empty() { vec![self.word(word, is_program)] } else { files }
    }

    /// The archives in a directory.
    fn archives(&self, directory: &[u8]) -> Vec<Name> {
        let all = self.root.list(directory).unwrap_or_default().into_iter();
        all.filter(|path| runtimes::is_archive(path)).map(Name::read).take(MAX_LISTED).collect()
    }

    /// The small files in a directory that a command names, and in those in it: its settings, and the state of what runs on it.
    /// Directories that all images have are about nothing.
    fn files(&self, directory: &[u8]) -> Vec<Name> {
        let is_own = directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count() > 1;
        let listed = if is_own { self.root.list(directory) } else { None };
        let inside = |path: Vec<u8>| match self.root.list(&path) {
            Some(inside) => inside,
            None => vec![path],
        };
        let all = listed.into_iter().flatten().flat_map(inside).take(MAX_LISTED);
        let small = |path: &Vec<u8>| self.root.find(path).is_some_and(|file| file.size <= SMALL);
        all.filter(small).map(Name::read).collect()
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

    /// A variable of the environment in which scripts run.
    fn variable(&self, name: &str) -> Option<String> {
        self.command.variable(name).map(str::to_owned)
    }

    /// The files that a shell's text is about.
    fn commands(&self, text: &[u8]) -> Vec<Name> {
        let words = script::commands(text, |name| self.variable(name), |_| true);
        words.iter().flat_map(|word| self.names(word, false)).collect()
    }

    /// Looks at a file: what of it will be read, and which files with it.
    async fn look(&self, Found { file, runs, head }: Found) -> Look {
        let content = Arc::new(self.root.content(&file));
        let mut look =
            Look { content: Arc::clone(&content), ranges: Vec::new(), code: Vec::new(), names: Vec::new() };
        let head = head(file.size);
        if file.size <= WHOLE.max(head) {
            look.ranges.push(0..file.size);
        } else if head > 0 {
            look.ranges.push(0..head);
        }
        if file.size > WHOLE && file.path.as_deref().is_some_and(runtimes::is_archive) {
            look.ranges.push(file.size - runtimes::DIRECTORY..file.size);
        }
        let archive = file.path.as_deref().filter(|path| runtimes::is_archive(path));
        let libraries = archive.and_then(runtimes::libraries);
        look.names.extend(libraries.into_iter().flat_map(|directory| self.archives(&directory)));
        if !runs {
            return look;
        }
        let head = self.read(&content, 0..file.size.min(elf::HEAD));
        // What is written to is at the end of a program, and the table of its libraries at the start of that.
        let end = file.size.saturating_sub(elf::END).max(elf::HEAD)..file.size;
        let end = async {
            if file.size > WHOLE {
                self.read(&content, end).await;
            }
        };
        let (Some(head), ()) = tokio::join!(head, end) else { return look };
        if let Some(script) = script::parse(&head, |name| self.variable(name)) {
            look.names.extend(script.interpreter.iter().flat_map(|word| self.names(word, true)));
            look.names.extend(script.words.iter().flat_map(|word| self.names(word, false)));
        } else if let Some(program) =
            elf::Program::read(&head, file.size, |range| self.read(&content, range)).await
        {
            if file.size > WHOLE {
                look.ranges = program.ranges;
                look.code = program.code;
            }
            look.names.extend(program.interpreter.map(Name::run));
            for library in program.needed {
                let directory = file.directory();
                let mut places = self.root.libraries(&library, &program.search, directory, &self.command);
                let path = places.find(|path| self.root.find(path).is_some());
                look.names.extend(path.map(Name::run));
            }
            look.names.extend(file.path.iter().flat_map(|path| runtimes::companions(path)));
        }
        look
    }

    async fn read(&self, content: &Content, range: Range<u64>) -> Option<Vec<u8>> {
        if !self.can_expect(&range) {
            return None;
        }
        let _slot = self.looks.acquire().await;
        content.read(range).await
    }

    async fn fetch(&self, content: &Content, range: Range<u64>) {
        let _slot = self.fetches.acquire().await;
        if let Content::Lazy { layer, entry, .. } = content
            && let Err(error) = layer.expect(*entry, range).await
        {
            tracing::debug!(layer = %layer.digest(), %error, "what a start was expected to read cannot be fetched");
        }
    }
}
