//! `Content-Range` (RFC 9110, 14.4).

use std::ops::Range;

/// `bytes <first>-<last>/<total or *>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// First byte to one past the last.
    pub(super) range: Range<u64>,
    /// Size of the whole; `None` for `*`.
    pub(super) total: Option<u64>,
}

/// Reads the header; `None` if it is not exactly of that form. Forms with unknown ranges (`bytes */100`) belong to
/// status 416 and are no answer to a read.
pub(super) fn parse(text: &str) -> Option<ContentRange> {
    let (unit, rest) = text.trim().split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total.trim() == "*" { None } else { Some(number(total)?) };
    let end = last.checked_add(1)?;
    let valid = first < end && total.is_none_or(|total| end <= total);
    valid.then_some(ContentRange { range: first..end, total })
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    // `parse` alone would take a plus sign.
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid() {
        for (text, range, total) in [
            ("bytes 0-1/10", 0..2, Some(10)),
            ("bytes 9-9/10", 9..10, Some(10)),
            ("Bytes  5-6/*", 5..7, None),
            (" bytes 0-0/1 ", 0..1, Some(1)),
            ("bytes 0-18446744073709551614/*", 0..u64::MAX, None),
        ] {
            assert_eq!(parse(text), Some(ContentRange { range, total }), "{text}");
        }
    }

    #[test]
    fn invalid() {
        for text in [
            "",
            "bytes",
            "bytes ",
            "bytes */10",
            "bytes 0-1",
            "bytes 0-1/",
            "bytes -1/10",
            "bytes 1-/10",
            "bytes 2-1/10",
            "bytes 0-10/10",
            "bytes +0-1/10",
            "bytes 0-1/+10",
            "bytes 0--1/10",
            "items 0-1/10",
            "bytes=0-1/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "bytes 0-1/10/10",
            "bytes 0-1/10, 2-3/10",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
