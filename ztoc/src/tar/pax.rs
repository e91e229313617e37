//! PAX extended header records (`x` entries).

use crate::time::Timestamp;

/// Keys and values.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Parses the content of a PAX header, records of the form `<length> <key>=<value>\n`. They come sorted by key; of equal
/// keys the last one counts. The keys of sparse format 0.0, which repeat, come as `GNU.sparse.map`.
///
/// # Errors
/// If a record is malformed.
pub fn parse(mut content: &[u8]) -> Result<Records, &'static str> {
    let mut records: Records = Vec::new();
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
            records.push((key.to_vec(), value.to_vec()));
        }
    }
    if !sparse.is_empty() {
        records.push((b"GNU.sparse.map".to_vec(), sparse.join(&b',')));
    }
    // Stable, so that of equal keys the last stays last; then keep only that one.
    records.sort_by(|a, b| a.0.cmp(&b.0));
    records.reverse();
    records.dedup_by(|later, kept| later.0 == kept.0);
    records.reverse();
    Ok(records)
}

/// The first record's key and value, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn record(content: &[u8]) -> Result<Split<'_>, &'static str> {
    let malformed = "malformed PAX record";
    let space = content.iter().position(|b| *b == b' ').ok_or(malformed)?;
    let length = usize::try_from(number(&content[..space])?).map_err(|_| malformed)?;
    // The shortest record is "5 k=\n".
    if length < 5 || length > content.len() || length <= space + 1 {
        return Err(malformed);
    }
    let (record, rest) = content.split_at(length);
    let (b'\n', body) = record[space + 1..].split_last().ok_or(malformed)? else { return Err(malformed) };
    let equals = body.iter().position(|b| *b == b'=').ok_or(malformed)?;
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
///
/// # Errors
/// If it is not one, or beyond 63 bits.
pub fn number(text: &[u8]) -> Result<i64, &'static str> {
    // Rust's parser accepts what Go's does for base 10.
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or("a PAX number is malformed")
}

/// Decimal seconds with an optional fraction, of which nine digits count.
///
/// # Errors
/// If it is not that.
pub fn time(text: &[u8]) -> Result<Timestamp, &'static str> {
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
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
        // -1.25 is a quarter second before -1.
        let seconds = seconds.checked_sub(1).ok_or("a PAX time is out of range")?;
        return Ok(Timestamp { seconds, nanos: 1_000_000_000 - nanos });
    }
    Ok(Timestamp { seconds, nanos })
}

/// Whether the records make the entry a sparse file (formats 0.0, 0.1 and 1.0).
pub(super) fn is_sparse(records: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let get = |key: &[u8]| records.iter().find(|(k, _)| k == key).map_or(&b""[..], |(_, value)| value);
    match (get(b"GNU.sparse.major"), get(b"GNU.sparse.minor")) {
        (b"0", b"0" | b"1") | (b"1", b"0") => true,
        (b"", b"") => !get(b"GNU.sparse.map").is_empty(),
        _ => false,
    }
}
