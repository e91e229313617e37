//! Modification times: seconds and nanoseconds, and their RFC 3339 text.

use std::ops::Range;

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
        parse_whole_seconds(text)
            .or_else(|| std::str::from_utf8(text).ok().and_then(parse))
            .unwrap_or(Self::ZERO)
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

/// The form that nearly every entry has, `2023-11-14T22:13:20Z`. A mount reads the times of all files, and this is
/// ten times faster than the general parser.
fn parse_whole_seconds(text: &[u8]) -> Option<Timestamp> {
    let text: &[u8; 20] = text.try_into().ok()?;
    let number = |range: Range<usize>| {
        text[range]
            .iter()
            .try_fold(0i64, |n, digit| digit.is_ascii_digit().then(|| n * 10 + i64::from(digit - b'0')))
    };
    let [.., b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _, b'Z'] = text else { return None };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Whatever is unusual (leap seconds, the last days of months) goes to the general parser, which judges it.
    if !(1..=12).contains(&month) || !(1..=28).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-01-01 in the proleptic Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(Timestamp { seconds: days * 86_400 + hour * 3600 + minute * 60 + second, nanos: 0 })
}

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
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
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
    fn the_fast_parser_agrees_with_the_general_one() {
        let mut fast = 0;
        // Every 61,003 seconds over ten millennia: all months, all kinds of leap years.
        for seconds in (-62_167_219_200..253_402_300_800).step_by(61_003) {
            let text = Timestamp { seconds, nanos: 0 }.format();
            let general = parse(&text).unwrap();
            assert_eq!(general.seconds, seconds);
            if let Some(found) = parse_whole_seconds(text.as_bytes()) {
                assert_eq!(found, general, "{text}");
                fast += 1;
            }
        }
        assert!(fast > 4_000_000);
        for odd in
            ["2023-02-30T00:00:00Z", "2023-00-10T00:00:00Z", "2023-01-10T24:00:00Z", "2023-01-10 00:00:00Z"]
        {
            assert_eq!(parse_whole_seconds(odd.as_bytes()), None, "{odd}");
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
