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

/// Fetches at a time. The first names lead to the next ones, so a few of them keep the link busy.
const FETCHES: usize = 4;

/// What the dynamic linker, the shell and the container runtime read of every image, if it is there.
const ALWAYS: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/ld.so.cache", "/etc/nsswitch.conf"];

/// How much was expected.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// A file to look at.
struct Name {
    path: Vec<u8>,
    /// Whether it is executed, and not just read.
    runs: bool,
}

/// Fetches what a container of an image will read when it starts with its own command.
pub(crate) async fn expect(root: &Root, command: &Command) -> Expected {
    let mut walk = Walk::new(root);
    for (number, word) in command.words().enumerate() {
        walk.word(command, word, number == 0);
    }
    walk.to_see.extend(ALWAYS.map(|path| Name { path: path.into(), runs: false }));
    while let Some(name) = walk.to_see.pop_front() {
        if walk.expected.files >= MAX_FILES || walk.expected.bytes >= MAX_BYTES {
            break;
        }
        walk.see(command, &name).await;
    }
    // Dropping it would stop what is under way.
    while walk.fetches.join_next().await.is_some() {}
    walk.expected
}

struct Walk<'r> {
    root: &'r Root,
    to_see: VecDeque<Name>,
    seen: HashSet<File>,
    fetches: JoinSet<()>,
    at_a_time: Arc<Semaphore>,
    expected: Expected,
}

impl<'r> Walk<'r> {
    fn new(root: &'r Root) -> Self {
        Self {
            root,
            to_see: VecDeque::new(),
            seen: HashSet::new(),
            fetches: JoinSet::new(),
            at_a_time: Arc::new(Semaphore::new(FETCHES)),
            expected: Expected::default(),
        }
    }

    /// A word of a command: a program, a file, or neither.
    fn word(&mut self, command: &Command, word: &[u8], is_program: bool) {
        let runs = |root: &Root, path: &[u8]| root.find(path).is_some_and(|file| file.executable);
        if word.contains(&b'/') {
            let path = command.absolute(word);
            let runs = runs(self.root, &path);
            self.to_see.push_back(Name { path, runs });
        } else if let Some(path) = command.search(word).find(|path| runs(self.root, path))
            // Arguments that happen to be called as a program are programs often enough: `sh -c`, `exec "$@"`.
            && (is_program || !script::is_builtin(word))
        {
            self.to_see.push_back(Name { path, runs: true });
        }
    }

    /// Looks at a file, and expects what is read of it.
    async fn see(&mut self, command: &Command, name: &Name) {
        let Some(file) = self.root.find(&name.path) else { return };
        if !self.seen.insert(file.clone()) {
            return;
        }
        let content = self.root.content(&file);
        if !name.runs {
            if file.size <= WHOLE {
                self.fetch(&content, 0..file.size);
            }
            return;
        }
        if file.size <= WHOLE {
            self.fetch(&content, 0..file.size);
        }
        let head = content.read(0..file.size.min(elf::HEAD)).await;
        let Some(head) = head else { return };
        if let Some(script) = script::parse(&head) {
            for word in script.interpreter {
                self.word(command, word, true);
            }
            for word in script.words {
                self.word(command, word, false);
            }
        } else if let Some(program) = elf::Program::read(&head, file.size, &content).await {
            for range in program.ranges {
                self.fetch(&content, range);
            }
            let origin = name.path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| &name.path[..at]);
            if let Some(path) = program.interpreter {
                self.to_see.push_back(Name { path, runs: true });
            }
            for library in program.needed {
                let mut places = self.root.libraries(&library, &program.search, origin, command);
                if let Some(path) = places.find(|path| self.root.find(path).is_some()) {
                    self.to_see.push_back(Name { path, runs: true });
                }
            }
        }
    }

    /// Begins to fetch a part of a file.
    fn fetch(&mut self, content: &Content, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.expected.bytes += range.end - range.start;
        self.expected.files = self.seen.len();
        if let Content::Lazy { layer, entry, .. } = content {
            let (layer, entry, slots) = (Arc::clone(layer), *entry, Arc::clone(&self.at_a_time));
            self.fetches.spawn(async move {
                let _slot = slots.acquire().await;
                if let Err(error) = layer.expect(entry, range).await {
                    tracing::debug!(layer = %layer.digest(), %error, "what a start was expected to read cannot be fetched");
                }
            });
        }
    }
}
