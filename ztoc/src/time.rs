//! Modification times: seconds and nanoseconds, and their RFC 3339 text.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

/// An instant, in seconds and nanoseconds since the Unix epoch.
///
/// Tar archives can hold times that no calendar library covers, so this is a pair of plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded towards the past.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// What an unreadable time stands for: 0001-01-01T00:00:00Z, the zero time of the reference.
    pub const ZERO: Self = Self { seconds: -62_135_596_800, nanos: 0 };

    /// Reads RFC 3339 text with any zone offset; text that is not such a time gives [`Timestamp::ZERO`],
    /// as in the reference.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        std::str::from_utf8(text).ok().and_then(parse).unwrap_or(Self::ZERO)
    }

    /// RFC 3339 text in UTC with only as many fraction digits as needed; empty outside the years 0 to
    /// 9999, which RFC 3339 cannot write.
    #[must_use]
    pub fn format(self) -> String {
        let instant = SignedDuration::new(self.seconds, self.nanos.cast_signed());
        match EPOCH.checked_add(instant) {
            Ok(time) if self.is_writable() => format!("{time}Z"),
            _ => String::new(),
        }
    }

    /// Whether RFC 3339 can write it: the years 0 to 9999.
    pub(crate) fn is_writable(self) -> bool {
        (-62_167_219_200..253_402_300_800).contains(&self.seconds)
    }
}

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

fn parse(text: &str) -> Option<Timestamp> {
    if text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let (local, offset) = match text.strip_suffix('Z') {
        Some(local) => (local, 0),
        None => {
            let (local, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, parse_zone(zone)?)
        }
    };
    let time: DateTime = local.parse().ok()?;
    let since = time.duration_since(EPOCH);
    let (mut seconds, mut nanos) = (since.as_secs(), since.subsec_nanos());
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    Some(Timestamp { seconds: seconds - offset, nanos: nanos.cast_unsigned() })
}

/// `+hh:mm` or `-hh:mm`, in seconds east of UTC.
fn parse_zone(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes() {
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return None,
    };
    let number = |range| zone.get(range).and_then(|s: &str| s.parse::<u8>().ok()).map(i64::from);
    let (hours, minutes) = (number(1..3)?, number(4..6)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_like_the_reference() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, 0, "2023-11-14T22:13:20Z"),
            (1_700_000_000, 500_000_000, "2023-11-14T22:13:20.5Z"),
            (1_700_000_000, 120_000_001, "2023-11-14T22:13:20.120000001Z"),
            (1_700_000_000, 1_000, "2023-11-14T22:13:20.000001Z"),
            (-1, 999_000_000, "1969-12-31T23:59:59.999Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59Z"),
            (253_402_300_800, 0, ""),
            (-62_167_219_200, 0, "0000-01-01T00:00:00Z"),
            (-62_167_219_201, 0, ""),
            (i64::MAX, 0, ""),
        ] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(time.format(), text);
            if !text.is_empty() {
                assert_eq!(Timestamp::parse(text.as_bytes()), time, "{text}");
            }
        }
    }

    #[test]
    fn reads_zones_and_refuses_nonsense() {
        let noon = Timestamp::parse(b"2023-11-14T12:00:00Z");
        assert_eq!(Timestamp::parse(b"2023-11-14T07:00:00-05:00"), noon);
        assert_eq!(Timestamp::parse(b"2023-11-14T17:30:00+05:30"), noon);
        for text in [
            "",
            "x",
            "2023-11-14",
            "2023-11-14T12:00:00",
            "2023-13-14T12:00:00Z",
            "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}T",
            "2023-11-14T12:00:00+xx:00",
        ] {
            assert_eq!(Timestamp::parse(text.as_bytes()), Timestamp::ZERO, "{text}");
        }
    }
}
