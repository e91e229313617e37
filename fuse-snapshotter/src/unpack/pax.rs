//! PAX extended headers: records of the form `<length> <key>=<value>\n`.
//!
//! The rules are those of Go's `archive/tar`, which is what containerd unpacks with and what zTOCs are made
//! with: a layer must not look different to the two.

use std::collections::BTreeMap;

use super::attributes::Time;

/// The records of one header; of equal keys the last one counts.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    pub(super) fn parse(mut content: &[u8]) -> Result<Self, &'static str> {
        let mut records = BTreeMap::new();
        // Sparse format 0.0 repeats keys; they are gathered as format 0.1 writes them.
        let mut sparse: Vec<&[u8]> = Vec::new();
        while !content.is_empty() {
            let (key, value, rest) = record(content)?;
            content = rest;
            if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
                let offset_expected = sparse.len().is_multiple_of(2);
                if offset_expected != (key == b"GNU.sparse.offset") || value.contains(&b',') {
                    return Err("malformed sparse map");
                }
                sparse.push(value);
            } else {
                records.insert(key.to_vec(), value.to_vec());
            }
        }
        if !sparse.is_empty() {
            records.insert(b"GNU.sparse.map".to_vec(), sparse.join(&b','));
        }
        Ok(Self(records))
    }

    /// The value of a key. A record with an empty value is as good as none.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<i64>, &'static str> {
        self.get(key).map(number).transpose()
    }

    pub(super) fn time(&self, key: &str) -> Result<Option<Time>, &'static str> {
        self.get(key).map(time).transpose()
    }

    /// Extended attributes by name; these may be empty.
    pub(super) fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        const PREFIX: &[u8] = b"SCHILY.xattr.";
        self.0
            .range(PREFIX.to_vec()..)
            .map_while(|(key, value)| key.strip_prefix(PREFIX).map(|name| (name, value.as_slice())))
    }
}

/// The first record's key and value, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn record(content: &[u8]) -> Result<Split<'_>, &'static str> {
    let malformed = "malformed PAX record";
    let space = content.iter().position(|byte| *byte == b' ').ok_or(malformed)?;
    let length = usize::try_from(number(&content[..space])?).map_err(|_| malformed)?;
    // The shortest record is "5 k=\n".
    if length < 5 || length > content.len() || length <= space + 1 {
        return Err(malformed);
    }
    let (record, rest) = content.split_at(length);
    let Some((b'\n', body)) = record[space + 1..].split_last() else { return Err(malformed) };
    let equals = body.iter().position(|byte| *byte == b'=').ok_or(malformed)?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    let text = match key {
        b"path" | b"linkpath" | b"uname" | b"gname" => value,
        _ => key,
    };
    if key.is_empty() || text.contains(&0) {
        return Err(malformed);
    }
    Ok((key, value, rest))
}

/// A decimal number with an optional sign.
pub(super) fn number(text: &[u8]) -> Result<i64, &'static str> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or("a PAX number is malformed")
}

/// Decimal seconds with an optional fraction, of which nine digits count.
fn time(text: &[u8]) -> Result<Time, &'static str> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &text[..0]),
    };
    let seconds = number(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("a PAX time is malformed");
    }
    let digits = fraction.iter().map(|digit| u32::from(digit - b'0')).chain(std::iter::repeat(0)).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + digit);
    if whole.first() == Some(&b'-') && nanos > 0 {
        // -1.25 is three quarters of a second after -2.
        let seconds = seconds.checked_sub(1).ok_or("a PAX time is out of range")?;
        return Ok(Time { seconds, nanos: 1_000_000_000 - nanos });
    }
    Ok(Time { seconds, nanos })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let of = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanos));
        assert_eq!(of("12"), Ok((12, 0)));
        assert_eq!(of("12."), Ok((12, 0)));
        assert_eq!(of("12.5"), Ok((12, 500_000_000)));
        assert_eq!(of("1.0000000019"), Ok((1, 1)));
        assert_eq!(of("-1.25"), Ok((-2, 750_000_000)));
        assert_eq!(of("-0.25"), Ok((-1, 750_000_000)));
        assert!(of("-9223372036854775808.5").is_err());
        assert!(of("1.-5").is_err());
        assert!(of("").is_err());
    }

    #[test]
    fn records() {
        let records = Records::parse(b"9 path=a\n11 path=bc\n21 SCHILY.xattr.u.x=\n8 uid=7\n").unwrap();
        assert_eq!(records.get("path"), Some(&b"bc"[..]));
        assert_eq!(records.number("uid"), Ok(Some(7)));
        assert_eq!(records.xattrs().collect::<Vec<_>>(), [(&b"u.x"[..], &b""[..])]);
        // An empty value takes an earlier one back.
        assert_eq!(Records::parse(b"9 path=a\n8 path=\n").unwrap().get("path"), None);
        for malformed in [
            &b"9 path=a"[..],
            b"99 path=a\n",
            b"x path=a\n",
            b"4 =\n",
            b"9 pathaa\n",
            b"10 path=\0a\n",
            b"-5 a=b\n",
        ] {
            assert!(Records::parse(malformed).is_err(), "{}", malformed.escape_ascii());
        }
    }
}
