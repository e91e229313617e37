//! Showing strings that came from outside.

/// `text` made safe for one line of a terminal: control characters escaped, at most 200 characters.
///
/// Names and messages in images, manifests and registries are chosen by strangers, who could otherwise write escape
/// sequences to the user's terminal.
pub fn excerpt(text: &str) -> String {
    const LIMIT: usize = 200;
    let mut out = String::with_capacity(text.len().min(LIMIT));
    for (at, character) in text.chars().enumerate() {
        if at == LIMIT {
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
