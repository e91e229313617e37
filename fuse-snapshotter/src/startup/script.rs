//! Scripts: who interprets them, and what they end in.

/// Programs that shells have built in: nobody runs these.
const BUILTINS: [&[u8]; 12] = [
    b"[", b"echo", b"false", b"kill", b"printf", b"pwd", b"test", b"true", b"time", b"which", b"sync", b"su",
];

/// Words of a script that are looked at, at most.
const MAX_WORDS: usize = 200;

/// A script.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script<'s> {
    /// The interpreter, and what it is to run for `env`.
    pub(super) interpreter: Vec<&'s [u8]>,
    /// The words of the lines in which the script becomes another program, which may be programs and files.
    pub(super) words: Vec<&'s [u8]>,
}

/// Whether shells know a command of this name themselves.
pub(super) fn is_builtin(word: &[u8]) -> bool {
    BUILTINS.contains(&word)
}

/// The script that begins so, if it is one.
pub(super) fn parse(head: &[u8]) -> Option<Script<'_>> {
    let mut lines = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n');
    let mut interpreter: Vec<_> = words(lines.next()?).collect();
    let program = *interpreter.first()?;
    if !program.ends_with(b"/env") {
        // What follows is an option, or nothing.
        interpreter.truncate(1);
    }
    let execs = lines.filter(|line| words(line).any(|word| word == b"exec"));
    let words = execs.flat_map(words).filter(|word| *word != b"exec" && !is_builtin(word)).take(MAX_WORDS);
    Some(Script { interpreter, words: words.collect() })
}

/// The words of a line. Assignments, options with values and lists of paths are taken apart.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let separates = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`;&|()<>=:,".contains(byte);
    line.split(separates).filter(|word| !word.is_empty() && !word.contains(&b'$'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text<'s>(words: &[&'s [u8]]) -> Vec<&'s str> {
        words.iter().map(|word| std::str::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn what_a_script_ends_in_is_found() {
        let script = parse(b"#!/bin/sh -e\necho starting server\nexec env A=1 setpriv --user=x \"/opt/a b\" -c conf=/etc/c -cp /a.jar:/b.jar \"$@\"\n");
        let script = script.unwrap();
        assert_eq!(text(&script.interpreter), ["/bin/sh"]);
        let wanted = [
            "env", "A", "1", "setpriv", "--user", "x", "/opt/a", "b", "-c", "conf", "/etc/c", "-cp",
            "/a.jar", "/b.jar",
        ];
        assert_eq!(text(&script.words), wanted);
        let script = parse(b"#! /usr/bin/env python3\nimport os\n").unwrap();
        assert_eq!(text(&script.interpreter), ["/usr/bin/env", "python3"]);
        assert_eq!(text(&script.words), [""; 0]);
        for other in [&b"\x7fELF"[..], b"", b"#!", b"#!\n", b"#! \n/bin/sh", b"echo"] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
