//! Showing strings that came from outside.

/// `text` made safe for one line of a terminal: control characters escaped, at most 200 characters.
///
/// Names and messages in images, manifests and registries are chosen by strangers, who could otherwise write escape
/// sequences to the user's terminal.
pub fn excerpt(text: &str) -> String {
    excerpt_to(text, 200)
}

/// As [`excerpt`], with at most `limit` characters.
pub(crate) fn excerpt_to(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for (at, character) in text.chars().enumerate() {
        if at == limit {
            out.push('…');
            break;
        }
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(excerpt("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(excerpt("é…"), "é…");
        assert_eq!(excerpt(&"x".repeat(500)).chars().count(), 201);
    }
}
