//! JSON with exactly the bytes of Go's `encoding/json`.
//!
//! The reference snapshotter decodes an index manifest, encodes it again with its own encoder and compares digests. One
//! byte of difference and the index is silently ignored, so a general JSON library's idea of "the same document" is not
//! enough: what has to be reproduced is Go's escaping (`<`, `>`, `&`, U+2028 and U+2029 become `\uXXXX`, bytes that are
//! not UTF-8 become `\ufffd`, `/` and DEL stay), compact output, fields in declaration order and map keys sorted
//! bytewise. Which fields exist, and when they are left out, is the business of [`crate::oci`].
//!
//! Strings are taken as bytes because names in a tar archive need not be UTF-8.

/// Writes one compact JSON document.
///
/// The writer puts the commas; the caller supplies fields in the order in which Go declares them.
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    /// Whether the next value at this level needs a comma before it.
    comma: bool,
}

impl Encoder {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes written so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Writes an object; `fields` writes its fields.
    pub fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.nest(b'{', b'}', fields);
    }

    /// Writes an array; `items` writes its items.
    pub fn array(&mut self, items: impl FnOnce(&mut Self)) {
        self.nest(b'[', b']', items);
    }

    /// Writes a field's name. Exactly one value has to follow.
    pub fn key(&mut self, name: impl AsRef<[u8]>) -> &mut Self {
        self.separate();
        write_string(&mut self.out, name.as_ref());
        self.out.push(b':');
        self.comma = false;
        self
    }

    /// Writes a string.
    pub fn string(&mut self, value: impl AsRef<[u8]>) {
        self.separate();
        write_string(&mut self.out, value.as_ref());
        self.comma = true;
    }

    /// Writes an integer.
    pub fn integer(&mut self, value: impl Into<i128>) {
        self.separate();
        self.out.extend_from_slice(value.into().to_string().as_bytes());
        self.comma = true;
    }

    /// Writes `null`.
    pub fn null(&mut self) {
        self.separate();
        self.out.extend_from_slice(b"null");
        self.comma = true;
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
    }

    fn nest(&mut self, open: u8, close: u8, body: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(open);
        self.comma = false;
        body(self);
        self.out.push(close);
        self.comma = true;
    }
}

/// Appends `value` as a quoted JSON string.
pub fn write_string(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    for chunk in value.utf8_chunks() {
        write_escaped(out, chunk.valid());
        // Go replaces every single byte it cannot decode, where `utf8_chunks` groups a truncated sequence.
        for _ in chunk.invalid() {
            out.extend_from_slice(br"\ufffd");
        }
    }
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let (skip, escape): (usize, &[u8]) = match byte {
            b'"' => (1, br#"\""#),
            b'\\' => (1, br"\\"),
            0x08 => (1, br"\b"),
            0x0c => (1, br"\f"),
            b'\n' => (1, br"\n"),
            b'\r' => (1, br"\r"),
            b'\t' => (1, br"\t"),
            b'<' => (1, br"\u003c"),
            b'>' => (1, br"\u003e"),
            b'&' => (1, br"\u0026"),
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa8") => (3, br"\u2028"),
            0xe2 if bytes[at..].starts_with(b"\xe2\x80\xa9") => (3, br"\u2029"),
            0x00..=0x1f => {
                out.extend_from_slice(&bytes[start..at]);
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                start = at + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..at]);
        out.extend_from_slice(escape);
        start = at + skip;
    }
    out.extend_from_slice(&bytes[start..]);
}

/// Lays a compact JSON document out over lines, two spaces a level, as Go's `json.Indent` does.
///
/// Works on the text: strings and numbers keep their bytes. Only meant for documents that are valid JSON; anything else
/// gives some text, never a panic.
pub fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut bytes = json.iter().copied().peekable();
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' | b'[' => {
                out.push(byte);
                while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
                if let Some(close) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'"' => {
                out.push(byte);
                while let Some(inner) = bytes.next() {
                    out.push(inner);
                    match inner {
                        b'\\' => out.extend(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(value: &[u8]) -> String {
        let mut out = Vec::new();
        write_string(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(quoted(b"a/b\x7f"), "\"a/b\x7f\"");
        assert_eq!(quoted(b"<&>"), r#""\u003c\u0026\u003e""#);
        assert_eq!(quoted(b"\"\\"), r#""\"\\""#);
        assert_eq!(quoted(b"\x08\x0c\n\r\t"), r#""\b\f\n\r\t""#);
        assert_eq!(quoted(b"\x00\x01\x1f\x0b"), r#""\u0000\u0001\u001f\u000b""#);
        assert_eq!(quoted("é\u{2028}x\u{2029}…".as_bytes()), "\"é\\u2028x\\u2029…\"");
        assert_eq!(quoted("\u{fffd}".as_bytes()), "\"\u{fffd}\"");
    }

    #[test]
    fn every_byte_that_is_not_utf8_is_replaced_by_itself() {
        assert_eq!(quoted(b"a\xffb"), r#""a\ufffdb""#);
        // A sequence cut short: Go's decoder moves on by one byte at a time.
        assert_eq!(quoted(b"\xe2\x80"), r#""\ufffd\ufffd""#);
        assert_eq!(quoted(b"\xf0\x9f\x98x"), r#""\ufffd\ufffd\ufffdx""#);
        // Surrogates are not UTF-8.
        assert_eq!(quoted(b"\xed\xa0\x80"), r#""\ufffd\ufffd\ufffd""#);
    }

    #[test]
    fn commas_stand_between_values_only() {
        let mut json = Encoder::new();
        json.object(|json| {
            json.key("a").integer(1);
            json.key("b").array(|json| {
                json.object(|_| {});
                json.string("x");
                json.null();
            });
            json.key("c").object(|json| json.key("d").string("e"));
        });
        assert_eq!(json.into_bytes(), br#"{"a":1,"b":[{},"x",null],"c":{"d":"e"}}"#);
    }

    #[test]
    fn indent_matches_go() {
        let json = br#"{"a":[],"b":{ },"c":[1,{"d":"x,{\"y"}]}"#;
        let expected = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": \"x,{\\\"y\"\n    }\n  ]\n}";
        assert_eq!(String::from_utf8(indent(json)).unwrap(), expected);
        // Not JSON: no panic.
        for junk in [&b"}}]]"[..], b"\"\\", b"{[", b"", b"\"abc"] {
            let _ = indent(junk);
        }
    }
}
