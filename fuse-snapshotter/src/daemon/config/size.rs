//! Sizes in bytes, as people write them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes. Written as a number, or as a text with a unit; units are powers of 1024 with and without the
/// `i`, as in the reference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

/// 1 PiB: more is a mistake, and TOML's numbers end at 2^63.
pub(super) const MAX: u64 = 1 << 50;

const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl ByteSize {
    /// `None` if the text is no size, or one above 1 PiB.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        let shift = if unit.is_empty() {
            0
        } else {
            UNITS
                .iter()
                .find(|(name, _)| {
                    name.eq_ignore_ascii_case(unit) || name.replace('i', "").eq_ignore_ascii_case(unit)
                })?
                .1
        };
        let bytes = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
        (bytes <= MAX).then_some(Self(bytes))
    }
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, shift) = UNITS
            .into_iter()
            .find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift))
            .unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let size = match Written::deserialize(deserializer)? {
            Written::Number(bytes) => (bytes <= MAX).then_some(Self(bytes)),
            Written::Text(text) => Self::parse(&text),
        };
        size.ok_or_else(|| serde::de::Error::custom("not a size such as 10GiB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        let bytes = |text| ByteSize::parse(text).map(|size| size.0);
        assert_eq!(bytes("10GiB"), Some(10 << 30));
        assert_eq!(bytes(" 10 gb "), Some(10 << 30));
        assert_eq!(bytes("512k"), None);
        assert_eq!(bytes("512kb"), Some(512 << 10));
        assert_eq!(bytes("7"), Some(7));
        assert_eq!(bytes("7B"), Some(7));
        assert_eq!(bytes("1024TiB"), Some(MAX));
        for bad in
            ["", "GiB", "-1", "1.5GiB", "1025TiB", "99999999999999999999", "18446744073709551615KiB", "1GiBs"]
        {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for bytes in [0, 1, 1023, 1024, 1025, 3 << 20, 10 << 30, (1 << 40) + 1, MAX] {
            assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
        }
        assert_eq!(ByteSize(10 << 30).to_string(), "10GiB");
        assert_eq!(ByteSize(1).to_string(), "1B");
    }
}
