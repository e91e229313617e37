//! Scripts: who interprets them, and what they end in.

use std::collections::HashMap;

/// Programs that shells have built in: nobody runs these.
const BUILTINS: [&[u8]; 12] = [
    b"[", b"echo", b"false", b"kill", b"printf", b"pwd", b"test", b"true", b"time", b"which", b"sync", b"su",
];

/// Words of a script that are looked at, at most.
const MAX_WORDS: usize = 200;

/// Variables of a script that are remembered, at most.
const MAX_VARIABLES: usize = 64;

/// Longest line with its variables filled in, in bytes.
const MAX_LINE: usize = 16 << 10;

/// Bytes of text with its variables filled in that are looked at, at most.
const MAX_TEXT: usize = 256 << 10;

/// Words that name an interpreter, at most: `env -S`, some settings, and the program.
const MAX_INTERPRETER: usize = 8;

/// Longest value that stands beside a variable for when it has none, in bytes.
const MAX_OTHER: usize = 1024;

/// A script.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// The interpreter, and what it is to run for `env`.
    pub(super) interpreter: Vec<Vec<u8>>,
    /// The words of the lines in which the script becomes another program, which may be programs and files.
    pub(super) words: Vec<Vec<u8>>,
}

/// Whether shells know a command of this name themselves.
pub(super) fn is_builtin(word: &[u8]) -> bool {
    BUILTINS.contains(&word)
}

/// The script that begins so, if it is one. `environment` knows the variables that it begins with.
pub(super) fn parse(head: &[u8], environment: impl Fn(&str) -> Option<String>) -> Option<Script> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut interpreter: Vec<_> = words(line).take(MAX_INTERPRETER).map(<[u8]>::to_vec).collect();
    let program = interpreter.first()?;
    if !program.ends_with(b"/env") {
        // What follows is an option, or nothing.
        interpreter.truncate(1);
    }
    let mut words = commands(head, environment, |line| words(line).any(|word| word == b"exec"));
    words.retain(|word| word != b"exec");
    Some(Script { interpreter, words })
}

/// The words of those commands in a shell's text that count, with the values of variables where these are plain.
pub(super) fn commands(
    text: &[u8],
    environment: impl Fn(&str) -> Option<String>,
    counts: impl Fn(&[u8]) -> bool,
) -> Vec<Vec<u8>> {
    let mut variables: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut found = Vec::new();
    let ends = |byte: &u8| matches!(byte, b'\n' | b';');
    let mut lines = text.split(ends).filter(|line| !line.trim_ascii_start().starts_with(b"#"));
    let mut left = MAX_TEXT;
    while let Some(first) = lines.next() {
        let mut line = first.to_vec();
        // It goes on in the next one.
        while line.ends_with(b"\\") {
            line.pop();
            line.extend_from_slice(lines.next().unwrap_or_default());
        }
        let line = fill_in(&line, |name| {
            let own = variables.get(name).cloned();
            own.or_else(|| Some(environment(std::str::from_utf8(name).ok()?)?.into_bytes()))
        });
        let Some(rest) = left.checked_sub(line.len()) else { break };
        left = rest;
        if found.len() == MAX_WORDS {
            break;
        }
        for (name, value) in assignments(&line) {
            if variables.len() < MAX_VARIABLES || variables.contains_key(name) {
                variables.insert(name.to_vec(), value.to_vec());
            }
        }
        if counts(&line) {
            let words = words(&line).filter(|word| !is_builtin(word)).map(<[u8]>::to_vec);
            found.extend(words.take(MAX_WORDS.saturating_sub(found.len())));
        }
    }
    found
}

/// The words of a line. Assignments, options with values and lists of paths are taken apart.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let separates = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`;&|()<>=:,".contains(byte);
    line.split(separates).filter(|word| !word.is_empty() && !word.contains(&b'$'))
}

/// The variables that a line sets.
fn assignments(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|byte| byte.is_ascii_whitespace() || *byte == b';').filter_map(|word| {
        let at = word.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&word[..at], &word[at + 1..]);
        let is_name = !name.is_empty() && name.len() == name_length(name) && !value.contains(&b'$');
        let quotes = |byte: &u8| matches!(byte, b'"' | b'\'');
        let value = value.strip_prefix(b"\"").or(value.strip_prefix(b"'")).unwrap_or(value);
        let value = value.strip_suffix(b"\"").or(value.strip_suffix(b"'")).unwrap_or(value);
        (is_name && !value.iter().any(quotes)).then_some((name, value))
    })
}

/// A line with the values of its variables; those that are not known stay as they are.
fn fill_in(line: &[u8], value: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut filled = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        filled.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let inside = rest.strip_prefix(b"{");
        let (name, after) = inside.unwrap_or(rest).split_at(name_length(inside.unwrap_or(rest)));
        // In braces, another value may follow, for when there is none.
        let (other, after) = match inside {
            Some(_) => match after.iter().take(MAX_OTHER).position(|byte| *byte == b'}') {
                Some(end) => (after[..end].strip_prefix(b":").unwrap_or(&after[..end]), &after[end + 1..]),
                None => (&b"?"[..], after),
            },
            None => (&b""[..], after),
        };
        let known = if other.is_empty() || other.starts_with(b"-") { value(name) } else { None };
        match known.or_else(|| other.strip_prefix(b"-").map(<[u8]>::to_vec)) {
            Some(value) if filled.len() + value.len() <= MAX_LINE => {
                filled.extend_from_slice(&value);
                rest = after;
            }
            _ => filled.push(b'$'),
        }
    }
    filled.extend_from_slice(rest);
    filled
}

/// Length of the name of a variable at the start of some text.
fn name_length(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    fn text(words: &[Vec<u8>]) -> Vec<&str> {
        words.iter().map(|word| std::str::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn what_a_script_ends_in_is_found() {
        let script = b"#!/bin/sh -e\necho starting server\n# exec /not/this\n\
            exec env A=1 setpriv --user=x \"/opt/a b\" -c conf=/etc/c -cp /a.jar:/b.jar \"$@\"\n";
        let script = parse(script, |_| None).unwrap();
        assert_eq!(text(&script.interpreter), ["/bin/sh"]);
        let wanted = [
            "env", "A", "1", "setpriv", "--user", "x", "/opt/a", "b", "-c", "conf", "/etc/c", "-cp",
            "/a.jar", "/b.jar",
        ];
        assert_eq!(text(&script.words), wanted);
        let script = parse(b"#! /usr/bin/env python3\nimport os\n", |_| None).unwrap();
        assert_eq!(text(&script.interpreter), ["/usr/bin/env", "python3"]);
        assert!(script.words.is_empty());
        for other in [&b"\x7fELF"[..], b"", b"#!", b"#!\n", b"#! \n/bin/sh", b"echo"] {
            assert_eq!(parse(other, |_| None), None, "{other:?}");
        }
    }

    #[test]
    fn variables_are_filled_in_where_they_are_plain() {
        let environment = |name: &str| (name == "JAVA_HOME").then(|| "/opt/java".to_owned());
        let script = b"#!/bin/sh\nexport HOME_OF=\"/srv/app\" B='/x'; C=$HOME_OF/c D=${NONE}\nBAD-=/y\n\
            exec $JAVA_HOME/bin/java -cp ${C}/a.jar:$B/b.jar \\\n  ${E:-/e} $D $1 $BAD-\n";
        let script = parse(script, environment).unwrap();
        let wanted = ["/opt/java/bin/java", "-cp", "/srv/app/c/a.jar", "/x/b.jar", "/e"];
        assert_eq!(text(&script.words), wanted);
        // Each value twice the one before.
        let grows = (0..40).map(|n| format!("A{}=$A{n}$A{n}\n", n + 1)).collect::<String>();
        let grown = commands(format!("A0=/12345678\n{grows}echo $A40").as_bytes(), |_| None, |_| true);
        assert!(grown.iter().all(|word| word.len() <= MAX_LINE));
        assert!(text(&commands(b"a; b", |_| None, |_| true)).eq(&["a", "b"]));
    }
}
