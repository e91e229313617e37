//! The records of a PAX extended header, looked up by key. What is a record, `ztoc` says: a layer must not look
//! different to the reader that indexes it and to the one that unpacks it.

use ztoc::Timestamp;
use ztoc::tar::{parse_pax, pax_number, pax_time};

/// The records of one header, sorted by key.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(super) fn parse(content: &[u8]) -> Result<Self, &'static str> {
        parse_pax(content).map(Self)
    }

    /// The value of a key. A record with an empty value is as good as none.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        let found =
            self.0.binary_search_by(|(candidate, _)| candidate.as_slice().cmp(key.as_bytes())).ok()?;
        Some(self.0[found].1.as_slice()).filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<i64>, &'static str> {
        self.get(key).map(pax_number).transpose()
    }

    pub(super) fn time(&self, key: &str) -> Result<Option<Timestamp>, &'static str> {
        self.get(key).map(pax_time).transpose()
    }

    /// Extended attributes by name; these may be empty.
    pub(super) fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        const PREFIX: &[u8] = b"SCHILY.xattr.";
        self.0.iter().filter_map(|(key, value)| key.strip_prefix(PREFIX).map(|name| (name, value.as_slice())))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let of = |text: &str| pax_time(text.as_bytes()).map(|time| (time.seconds, time.nanos));
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
