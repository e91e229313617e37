//! What a quoted part of a filter stands for: a string literal of Go.

/// Reads the literal `quoted`, whose first and last character are the same ASCII quote. `None` if it is not one.
///
/// Bytes, because `\xff` is one byte.
pub(super) fn unquote(quoted: &str) -> Option<Vec<u8>> {
    let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '/' | '|'))?;
    let mut rest = quoted.strip_prefix(quote)?.strip_suffix(quote)?.chars();
    let mut value = Vec::new();
    while let Some(next) = rest.next() {
        if next == quote || next == '\n' {
            return None;
        }
        if next != '\\' {
            push(&mut value, next);
            continue;
        }
        match rest.next()? {
            'a' => value.push(0x07),
            'b' => value.push(0x08),
            'f' => value.push(0x0c),
            'n' => value.push(b'\n'),
            'r' => value.push(b'\r'),
            't' => value.push(b'\t'),
            'v' => value.push(0x0b),
            '\\' => value.push(b'\\'),
            'x' => value.push(u8::try_from(number(&mut rest, 0, 2, 16)?).ok()?),
            'u' => push(&mut value, rune(number(&mut rest, 0, 4, 16)?)?),
            'U' => push(&mut value, rune(number(&mut rest, 0, 8, 16)?)?),
            digit @ '0'..='7' => value.push(u8::try_from(number(&mut rest, digit.to_digit(8)?, 2, 8)?).ok()?),
            next if next == quote => push(&mut value, next),
            _ => return None,
        }
    }
    Some(value)
}

fn push(value: &mut Vec<u8>, next: char) {
    value.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Reads `count` more digits of a number. With at most eight of them it fits.
fn number(rest: &mut std::str::Chars<'_>, first: u32, count: usize, radix: u32) -> Option<u32> {
    let mut number = first;
    for _ in 0..count {
        number = number.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?)?;
    }
    Some(number)
}

/// Half of a surrogate pair becomes the replacement character, as in Go.
fn rune(number: u32) -> Option<char> {
    match number {
        0xd800..=0xdfff => Some(char::REPLACEMENT_CHARACTER),
        number => char::from_u32(number),
    }
}
