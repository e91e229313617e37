//! What runtimes read at every start beside what their programs name.
//!
//! The launcher of a Java machine finds everything by its own place and by names that are in its code. A machine that starts
//! maps its library, the archive of the classes that all need, and the index of the others. Archives of classes are ZIP files,
//! whose directory is at their end.

use super::Name;

/// Most of an archive of classes that all need, in bytes; a usual one has 13 MB.
const SHARED_CLASSES: u64 = 32 << 20;

/// The index of all classes, which is in front of them, in bytes; a usual one has 2 MB.
const INDEX: u64 = 2 << 20;

/// The end of a ZIP file in which its directory, or the most of it, is, in bytes.
pub(super) const DIRECTORY: u64 = 256 << 10;

/// What a Java machine reads, from the directory of its launcher, and bytes at its start that are read of it although it is no
/// program.
const JAVA: [(&str, u64); 5] = [
    ("lib/server/libjvm.so", 0),
    ("lib/libjava.so", 0),
    ("lib/libzip.so", 0),
    ("lib/modules", INDEX),
    ("lib/server/classes.jsa", SHARED_CLASSES),
];

/// What the program at a path, which has no links in it, reads.
pub(super) fn companions(program: &[u8]) -> Vec<Name> {
    let Some(home) = program.strip_suffix(b"/bin/java") else { return Vec::new() };
    let beside = |(path, head): (&str, u64)| {
        let path = [home, b"/", path.as_bytes()].concat();
        Name { path, runs: head == 0, head }
    };
    JAVA.into_iter().map(beside).collect()
}

/// Whether what is at a path is an archive whose directory is at its end.
pub(super) fn is_archive(path: &[u8]) -> bool {
    [&b".jar"[..], b".war"].iter().any(|ending| path.ends_with(ending))
}
