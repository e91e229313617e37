//! One 512-byte tar header: v7, ustar, star or GNU, read as Go's `archive/tar` reads it.

use super::attributes::Time;

pub(super) const BLOCK: usize = 512;

/// A header block's fields.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) typeflag: u8,
    pub(super) name: Vec<u8>,
    pub(super) link_name: Vec<u8>,
    pub(super) size: i64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: Time,
    pub(super) device: (i64, i64),
    pub(super) is_gnu: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        verify_checksum(block)?;
        let field = |start: usize, length: usize| &block[start..start + length];
        let format = match (field(257, 6), field(263, 2), field(508, 4)) {
            (b"ustar\0", _, b"tar\0") => Format::Star,
            (b"ustar\0", _, _) => Format::Ustar,
            (b"ustar ", b" \0", _) => Format::Gnu,
            _ => Format::V7,
        };
        let mut header = Self {
            typeflag: block[156],
            name: text(field(0, 100)).to_vec(),
            link_name: text(field(157, 100)).to_vec(),
            size: number(field(124, 12))?,
            mode: number(field(100, 8))?,
            uid: number(field(108, 8))?,
            gid: number(field(116, 8))?,
            mtime: Time { seconds: number(field(136, 12))?, nanos: 0 },
            device: (0, 0),
            is_gnu: format == Format::Gnu,
        };
        if format == Format::V7 {
            return Ok(header);
        }
        header.device = (number(field(329, 8))?, number(field(337, 8))?);
        let prefix = match format {
            Format::Ustar => text(field(345, 155)),
            Format::Star => text(field(345, 131)),
            // GNU headers have times where ustar has the prefix. Old Go writers put a prefix there all the
            // same, so if those are not times and the text is ASCII it is taken for one.
            _ => {
                let is_time = |start| block[start] == 0 || number(field(start, 12)).is_ok();
                let prefix = text(field(345, 155));
                if !(is_time(345) && is_time(357)) && prefix.is_ascii() { prefix } else { b"" }
            }
        };
        if !prefix.is_empty() {
            header.name = [prefix, b"/", &header.name].concat();
        }
        Ok(header)
    }
}

/// The sum is made as if its own field held spaces. Some old tars summed signed bytes.
fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let field = 148..156;
    let expected = octal(&block[field.clone()]).map_err(|_| "the checksum is not a number")?;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for byte in block.iter().enumerate().map(|(at, byte)| if field.contains(&at) { b' ' } else { *byte }) {
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if expected != unsigned && expected != signed {
        return Err("the header's checksum is wrong");
    }
    Ok(())
}

/// The bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal text, or base 256 if the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    let Some(first) = field.first().filter(|byte| **byte & 0x80 != 0) else { return octal(field) };
    // Negative numbers are two's complement: invert, read, invert back.
    let invert = if first & 0x40 != 0 { 0xff } else { 0 };
    let mut value = 0u64;
    for (at, byte) in field.iter().enumerate() {
        let byte = if at == 0 { (byte ^ invert) & 0x7f } else { byte ^ invert };
        if value >> 56 != 0 {
            return Err("a number in the header is too large");
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).map_err(|_| "a number in the header is too large")?;
    Ok(if invert == 0 { value } else { !value })
}

/// Octal digits between any padding of spaces and NULs; nothing but padding is 0.
fn octal(field: &[u8]) -> Result<i64, &'static str> {
    let is_padding = |byte: &u8| *byte == b' ' || *byte == 0;
    let Some(start) = field.iter().position(|byte| !is_padding(byte)) else { return Ok(0) };
    let end = field.iter().rposition(|byte| !is_padding(byte)).map_or(start, |last| last + 1);
    let mut value = 0u64;
    for digit in text(&field[start..end]) {
        if !(b'0'..=b'7').contains(digit) || value >> 61 != 0 {
            return Err("a number in the header is not octal");
        }
        value = value << 3 | u64::from(digit - b'0');
    }
    Ok(value.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Ok(258));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Ok(-2));
        assert!(number(&[0x80, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "above 63 bits");
        assert!(number(b"0000689\0").is_err());
        assert!(number(b"-644\0").is_err());
    }
}
