//! What runtimes read at every start beside what their programs name.
//!
//! The launcher of a Java machine finds everything by its own place and by names that are in its code. A machine that
//! starts maps its library, the archive of the classes that all need, and the index of the others with those that come
//! first. Archives are ZIP files, whose directory is at their end.

use super::file_name::{Name, Reading};

/// Most of an archive of classes that all need, in bytes; a usual one has 13 MB.
const SHARED_CLASSES: u64 = 32 << 20;

/// The index of all other classes, which is in front of them, in bytes; a usual one has 2 MB.
const INDEX: u64 = 2 << 20;

/// The share of all classes that `java.base` has, which comes first: one of so many parts. In OpenJDK 17 it is 26 MB of
/// 129 MB.
const BASE: u64 = 5;

/// The end of a ZIP file in which its directory, or the most of it, is, in bytes.
pub(super) const DIRECTORY: u64 = 256 << 10;

/// Longest library of a Java machine that is read nearly as a whole, before the machine can do anything, in bytes. A
/// usual one has 24 MB; one that is longer has the names and lines of its sources with it.
const MACHINE: u64 = 64 << 20;

/// What a Java machine reads, from the directory of its launcher.
const JAVA: [(&str, Reading); 5] = [
    ("lib/server/libjvm.so", Reading { head: |size| if size <= MACHINE { size } else { 0 }, ..Reading::RUN }),
    ("lib/libjava.so", Reading::RUN),
    ("lib/libzip.so", Reading::RUN),
    ("lib/server/classes.jsa", Reading { head: |_| SHARED_CLASSES, ..Reading::READ }),
    ("lib/modules", Reading { head: |size| INDEX.max(size / BASE), ..Reading::READ }),
];

/// What Node.js reads as Debian builds it, where other builds have it inside: what finds the exports of CommonJS
/// modules.
const NODE: [(&str, Reading); 2] = [
    ("share/nodejs/cjs-module-lexer/lexer.js", Reading::READ),
    ("share/nodejs/cjs-module-lexer/dist/lexer.js", Reading::READ),
];

/// What the program at a path, which has no links in it, reads.
pub(super) fn companions(program: &[u8]) -> Vec<Name> {
    let (home, files) = match (program.strip_suffix(b"/bin/java"), program.strip_suffix(b"/bin/node")) {
        (Some(home), _) => (home, &JAVA[..]),
        (_, Some(home)) => (home, &NODE[..]),
        _ => return Vec::new(),
    };
    let beside =
        |(path, reading): (&str, Reading)| Name { path: [home, b"/", path.as_bytes()].concat(), reading };
    files.iter().copied().map(beside).collect()
}

/// Where the other archives of an application are of which one is at a path. What is started first is often in `bin`,
/// with scripts, and all the rest in `lib`.
pub(super) fn libraries(archive: &[u8]) -> Option<Vec<u8>> {
    let end = archive.iter().rposition(|byte| *byte == b'/')?;
    Some([archive[..end].strip_suffix(b"/bin")?, b"/lib"].concat())
}

/// Whether what is at a path is an archive whose directory is at its end.
pub(super) fn is_archive(path: &[u8]) -> bool {
    [&b".jar"[..], b".war"].iter().any(|ending| path.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::companions;

    #[test]
    fn runtimes_are_known_by_their_places() {
        let paths = |program: &str| -> Vec<_> {
            let names = companions(program.as_bytes()).into_iter();
            names.map(|name| (String::from_utf8_lossy(&name.path).into_owned(), name.reading.runs)).collect()
        };
        let of_java = paths("/opt/jdk/bin/java");
        assert!(of_java.contains(&("/opt/jdk/lib/server/libjvm.so".to_owned(), true)));
        assert!(of_java.contains(&("/opt/jdk/lib/modules".to_owned(), false)));
        let lexer = "/usr/share/nodejs/cjs-module-lexer/lexer.js".to_owned();
        assert!(paths("/usr/bin/node").contains(&(lexer, false)));
        assert!(paths("/usr/bin/javac").is_empty() && paths("/usr/bin/nodejs-x").is_empty());
    }
}
