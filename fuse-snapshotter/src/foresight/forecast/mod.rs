//! What a container reads first, fetched before it asks.
//!
//! Between the end of a pull and the first instruction of the container's program containerd and runc work for a few
//! tenths of a second, and the link idles. What comes then is no secret: the image's configuration names the program,
//! the program its interpreter and its libraries, and the dynamic linker reads of each the same tables and the pages
//! that it relocates. [`Forecast::start`] follows these names as the kernel and the linker would and fetches those
//! bytes, at a priority below that of readers. Libraries that a program loads later are followed in the same way when
//! it begins to read them ([`Forecast::program`]). It is a forecast: whatever it cannot make sense of is left to the
//! program itself, and nothing depends on it.
//!
//! * [`Command`] is the program and its arguments, from the image's configuration,
//! * `names` finds the files that words are about,
//! * `queue` says in which order what is expected is fetched,
//! * `root` finds files in the image by their paths,
//! * `script` finds the programs that a script ends in,
//! * `runtimes` knows what is read by programs that do not name it,
//! * `elf` says what of a program or library is read at its start, and what it needs besides.

mod command;
mod elf;
mod file_name;
mod names;
mod queue;
mod root;
mod runtimes;
mod script;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

pub(crate) use command::Command;
pub(crate) use root::Root;

use crate::base::lock::lock;
use file_name::{Name, Reading};
use names::{Listed, Names};
use queue::Queue;
use root::{File, FileContent, Place};

/// Files that are looked at, at most.
const MAX_FILES: usize = 1000;

/// Bytes that are expected, at most: a forecast that is wrong should not cost a layer.
const MAX_BYTES: u64 = 256 << 20;

/// Bytes of code that are expected after that, at most.
const MAX_LATER: u64 = 1 << 30;

/// Files up to this size are expected as a whole, in bytes: they are in one span, or in two.
const WHOLE: u64 = 2 << 20;

/// Files that are looked at at a time: enough that those which lead on to others are among them.
const LOOKS: usize = 16;

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

/// What is expected of an image. Each file is looked at once.
#[derive(Debug)]
pub(crate) struct Forecast {
    root: Root,
    command: Command,
    looks: Semaphore,
    seen: Mutex<(HashSet<Place>, Expected)>,
    listed: Mutex<Listed>,
    /// What is read after all of that.
    later: Mutex<Later>,
    /// There is more of it.
    more: Notify,
}

/// Parts of files that are read in the course of a start, in the order in which they are fetched.
#[derive(Debug, Default)]
struct Later {
    queue: Queue<Arc<FileContent>>,
    /// How much there has been so far.
    bytes: u64,
}

/// A file that was found.
struct Found {
    file: File,
    reading: Reading,
}

impl Found {
    /// Whether all of it is expected.
    fn is_whole(&self) -> bool {
        self.file.size <= WHOLE.max((self.reading.head)(self.file.size))
    }

    fn is_archive(&self) -> bool {
        self.file.path.as_deref().is_some_and(runtimes::is_archive)
    }

    /// What of it is expected without a look at it.
    fn outright(&self) -> impl Iterator<Item = Range<u64>> {
        let size = self.file.size;
        let head = if self.is_whole() { size } else { (self.reading.head)(size) };
        let directory = size.saturating_sub(runtimes::DIRECTORY).max(head)..size;
        [Some(0..head), self.is_archive().then_some(directory)].into_iter().flatten()
    }
}

/// What came of looking at a file.
struct Look {
    content: Arc<FileContent>,
    ranges: Vec<Range<u64>>,
    /// What of it will be read after that.
    code: Vec<Range<u64>>,
    names: Vec<Name>,
}

impl Forecast {
    /// Nothing is expected yet.
    pub(crate) fn new(root: Root, command: Command) -> Arc<Self> {
        Arc::new(Self {
            root,
            command,
            looks: Semaphore::new(LOOKS),
            seen: Mutex::default(),
            listed: Mutex::default(),
            later: Mutex::default(),
            more: Notify::new(),
        })
    }

    /// Fetches what a container of the image will read when it starts with its own command.
    pub(crate) async fn start(self: &Arc<Self>) -> Expected {
        let named = self.names().of_command();
        let mut files: Vec<_> = named.into_iter().filter_map(|name| self.find(name)).collect();
        if files.first().is_some_and(|program| program.file.size < SCRIPT) {
            files.extend(self.find(Name::run(SHELL)));
        }
        files.extend(NEARLY_ALWAYS.iter().filter_map(|path| self.find(Name::run(*path))));
        files.extend(ALWAYS.iter().filter_map(|path| self.find(Name::read(*path))));
        self.follow(files).await;
        lock(&self.seen).1
    }

    fn names(&self) -> Names<'_> {
        Names { root: &self.root, command: &self.command, listed: &self.listed }
    }

    fn find(&self, name: Name) -> Option<Found> {
        Some(Found { file: self.root.find(&name.path)?, reading: name.reading })
    }

    /// Fetches what will be read of a program or library that somebody has begun to read, and of the libraries that it
    /// needs.
    pub(crate) async fn program(self: &Arc<Self>, number: u64) {
        if let Some(file) = self.root.numbered(number) {
            self.follow(vec![Found { file, reading: Reading::RUN }]).await;
        }
    }

    /// Fetches what is read in the course of a start, of all files that were looked at and will be. It does not end.
    pub(crate) async fn rest(&self) {
        let fetch = async || {
            while let Some((content, range)) = self.next_later() {
                if let FileContent::Lazy { layer, entry, .. } = &*content
                    && !layer.prefetch_idle(*entry, range).await
                {
                    lock(&self.later).queue.clear();
                }
            }
        };
        loop {
            // As many as there are turns for it.
            tokio::join!(fetch(), fetch());
            self.more.notified().await;
        }
    }

    fn next_later(&self) -> Option<(Arc<FileContent>, Range<u64>)> {
        lock(&self.later).queue.next(0, false)
    }

    /// Looks at files and at what they lead to, each on its own: one that leads nowhere holds up no other.
    async fn follow(self: &Arc<Self>, mut files: Vec<Found>) {
        let (mut looks, mut ends, mut fetches) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let mut queue = Queue::default();
        loop {
            for found in files.drain(..) {
                if !self.is_new(&found.file) {
                    continue;
                }
                let content = Arc::new(self.root.content(&found.file));
                for range in found.outright() {
                    queue.add(&content, range, found.is_archive());
                }
                if found.reading.runs && found.file.size > WHOLE {
                    // What is written to is at the end of a program, and the table of its libraries at the start of
                    // that.
                    let (forecast, content) = (Arc::clone(self), Arc::clone(&content));
                    let end = found.file.size - elf::END..found.file.size;
                    ends.spawn(async move { drop(forecast.read(&content, end).await) });
                }
                let forecast = Arc::clone(self);
                looks.spawn(async move { forecast.look(found, content).await });
            }
            while let Some((content, range)) = queue.next(fetches.len(), !looks.is_empty()) {
                if !self.can_expect(&range) {
                    queue.clear();
                    break;
                }
                fetches.spawn(async move { fetch(&content, range).await });
            }
            tokio::select! {
                Some(look) = looks.join_next() => {
                    let Ok(look) = look else { continue };
                    files.extend(look.names.into_iter().filter_map(|name| self.find(name)));
                    self.put_off(&look.content, look.code);
                    for range in look.ranges {
                        queue.add(&look.content, range, false);
                    }
                }
                Some(_) = fetches.join_next() => {}
                else => break,
            }
        }
        while ends.join_next().await.is_some() {}
    }

    fn put_off(&self, content: &Arc<FileContent>, ranges: Vec<Range<u64>>) {
        let later = &mut *lock(&self.later);
        for range in ranges {
            let length = range.end.saturating_sub(range.start);
            if later.bytes + length <= MAX_LATER {
                later.bytes += length;
                later.queue.add(content, range, false);
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

    /// Looks at a file: what of it will be read, and which files with it.
    async fn look(&self, found: Found, content: Arc<FileContent>) -> Look {
        let mut look = Look { content, ranges: Vec::new(), code: Vec::new(), names: Vec::new() };
        if let Some(path) = found.file.path.as_deref().filter(|_| found.is_archive()) {
            let others = runtimes::libraries(path);
            look.names.extend(others.into_iter().flat_map(|directory| self.names().archives(&directory)));
        }
        if found.reading.runs {
            self.look_inside(&found, &mut look).await;
        }
        look
    }

    /// Looks at what a file is that is executed.
    async fn look_inside(&self, found: &Found, look: &mut Look) {
        let (file, content) = (&found.file, Arc::clone(&look.content));
        let Some(head) = self.read(&content, 0..file.size.min(elf::HEAD)).await else { return };
        if let Some(script) = script::parse(&head, |name| self.names().variable(name)) {
            look.names.extend(self.names().of_script(&script));
        } else if let Some(program) =
            elf::Program::read(&head, file.size, |range| self.read(&content, range)).await
        {
            if !found.is_whole() {
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
    }

    async fn read(&self, content: &FileContent, range: Range<u64>) -> Option<Vec<u8>> {
        if !self.can_expect(&range) {
            return None;
        }
        let _slot = self.looks.acquire().await;
        content.read(range).await
    }
}

async fn fetch(content: &FileContent, range: Range<u64>) {
    if let FileContent::Lazy { layer, entry, .. } = content
        && let Err(error) = layer.expect(*entry, range).await
    {
        tracing::debug!(layer = %layer.digest(), %error, "what a start was expected to read cannot be fetched");
    }
}
