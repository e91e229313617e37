//! What a container reads first, fetched before it asks.
//!
//! Between the end of a pull and the first instruction of the container's program containerd and runc work for a few tenths
//! of a second, and the link idles. What comes then is no secret: the image's configuration names the program, the program
//! its interpreter and its libraries, and the dynamic linker reads of each the same tables and the pages that it relocates.
//! [`expect`] follows these names as the kernel and the linker would and fetches those bytes, at a priority below that of
//! readers. It is a forecast: whatever it cannot make sense of is left to the program itself, and nothing depends on it.
//!
//! * [`command`] reads the program and its arguments from the image's configuration,
//! * `root` finds files in the image by their paths,
//! * `script` finds the programs that a script ends in,
//! * `elf` says what of a program or library is read at its start, and what it needs besides.

mod command;
mod elf;
mod root;
mod script;

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub(crate) use command::Command;
pub(crate) use root::{Part, Root};

use root::{Content, File};

/// Files that are looked at, at most. A program with more libraries than that is a desktop.
const MAX_FILES: usize = 300;

/// Bytes that are expected, at most: a forecast that is wrong should not cost a layer.
const MAX_BYTES: u64 = 256 << 20;

/// Files up to this size are expected as a whole, in bytes: they are in one span, or in two.
const WHOLE: u64 = 2 << 20;

/// Files that are looked at and fetched at a time: enough that those which lead on to others are among them.
const FETCHES: usize = 16;

/// What the dynamic linker, the shell and the container runtime read of every image, if it is there.
const ALWAYS: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/etc/nsswitch.conf"];

/// How much was expected.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// A file to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    path: Vec<u8>,
    /// Whether it is executed, and not just read.
    runs: bool,
}

/// Fetches what a container of an image will read when it starts with its own command.
pub(crate) async fn expect(root: Root, command: Command) -> Expected {
    let walk = Arc::new(Walk { root, command, slots: Semaphore::new(FETCHES) });
    let mut names: VecDeque<Name> =
        walk.command.words().enumerate().filter_map(|(number, word)| walk.word(word, number == 0)).collect();
    names.extend(ALWAYS.map(|path| Name { path: path.into(), runs: false }));
    let mut seen = HashSet::new();
    let mut expected = Expected::default();
    // Each file on its own: one that leads nowhere holds up no other.
    let mut looks = JoinSet::new();
    let mut fetches = JoinSet::new();
    loop {
        while let Some(name) = names.pop_front() {
            let Some(file) = walk.root.find(&name.path) else { continue };
            if expected.files < MAX_FILES && seen.insert(file.clone()) {
                expected.files += 1;
                let walk = Arc::clone(&walk);
                looks.spawn(async move { walk.look(name, file).await });
            }
        }
        let Some(look) = looks.join_next().await else { break };
        let Ok(look) = look else { continue };
        names.extend(look.names);
        for range in look.ranges {
            let length = range.end.saturating_sub(range.start);
            if length > 0 && expected.bytes + length <= MAX_BYTES {
                expected.bytes += length;
                let (walk, content) = (Arc::clone(&walk), Arc::clone(&look.content));
                fetches.spawn(async move { walk.fetch(&content, range).await });
            }
        }
    }
    while fetches.join_next().await.is_some() {}
    expected
}

/// What came of looking at a file.
struct Look {
    content: Arc<Content>,
    ranges: Vec<Range<u64>>,
    names: Vec<Name>,
}

struct Walk {
    root: Root,
    command: Command,
    slots: Semaphore,
}

impl Walk {
    /// The file that a word of a command is about, if it is about one.
    fn word(&self, word: &[u8], is_program: bool) -> Option<Name> {
        let runs = |path: &[u8]| self.root.find(path).is_some_and(|file| file.executable);
        if word.contains(&b'/') {
            let path = self.command.absolute(word);
            let runs = runs(&path);
            return Some(Name { path, runs });
        }
        // An argument that is called like a program is one often enough: `sh -c`, `exec "$@"`.
        let is_program = is_program || !script::is_builtin(word);
        let path = self.command.search(word).find(|path| is_program && runs(path))?;
        Some(Name { path, runs: true })
    }

    /// Looks at a file: what of it will be read, and which files with it.
    async fn look(&self, name: Name, file: File) -> Look {
        let content = Arc::new(self.root.content(&file));
        let mut look = Look { content: Arc::clone(&content), ranges: Vec::new(), names: Vec::new() };
        if file.size <= WHOLE {
            look.ranges.push(0..file.size);
        }
        if !name.runs {
            return look;
        }
        let Some(head) = self.read(&content, 0..file.size.min(elf::HEAD)).await else { return look };
        if let Some(script) = script::parse(&head) {
            look.names.extend(script.interpreter.iter().filter_map(|word| self.word(word, true)));
            look.names.extend(script.words.iter().filter_map(|word| self.word(word, false)));
        } else if let Some(program) =
            elf::Program::read(&head, file.size, |range| self.read(&content, range)).await
        {
            if file.size > WHOLE {
                look.ranges = program.ranges;
            }
            look.names.extend(program.interpreter.map(|path| Name { path, runs: true }));
            let origin =
                name.path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &name.path[..at]);
            for library in program.needed {
                let mut places = self.root.libraries(&library, &program.search, origin, &self.command);
                let path = places.find(|path| self.root.find(path).is_some());
                look.names.extend(path.map(|path| Name { path, runs: true }));
            }
        }
        look
    }

    async fn read(&self, content: &Content, range: Range<u64>) -> Option<Vec<u8>> {
        let _slot = self.slots.acquire().await;
        content.read(range).await
    }

    async fn fetch(&self, content: &Content, range: Range<u64>) {
        let _slot = self.slots.acquire().await;
        if let Content::Lazy { layer, entry, .. } = content
            && let Err(error) = layer.expect(*entry, range).await
        {
            tracing::debug!(layer = %layer.digest(), %error, "what a start was expected to read cannot be fetched");
        }
    }
}
