//! One 512-byte tar header: v7, ustar, star or GNU.

use super::pax;

/// Size of a header, and what contents are padded to, in bytes.
pub const BLOCK: usize = 512;
use crate::time::Timestamp;

/// What a header says. Its numbers may be of any size, and its strings need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the format")]
pub struct Header {
    pub typeflag: u8,
    pub name: Vec<u8>,
    pub link_name: Vec<u8>,
    pub size: i64,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub mtime: Timestamp,
    pub uname: Vec<u8>,
    pub gname: Vec<u8>,
    pub devmajor: i64,
    pub devminor: i64,
    /// Whether it is in GNU's own format, in which a sparse file's map follows the name.
    pub is_gnu: bool,
}

impl Header {
    /// Reads a header block.
    ///
    /// # Errors
    /// What is wrong with it: its checksum, or a number.
    pub fn parse(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        RawHeader(block).parse()
    }

    /// Lets PAX records override fields. Records with an empty value leave the field alone.
    pub(super) fn merge_pax(&mut self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), &'static str> {
        for (key, value) in records.iter().filter(|(_, value)| !value.is_empty()) {
            match key.as_slice() {
                b"path" => self.name = value.clone(),
                b"linkpath" => self.link_name = value.clone(),
                b"uname" => self.uname = value.clone(),
                b"gname" => self.gname = value.clone(),
                b"uid" => self.uid = pax::number(value)?,
                b"gid" => self.gid = pax::number(value)?,
                b"size" => self.size = pax::number(value)?,
                b"mtime" => self.mtime = pax::time(value)?,
                // Not used, but a malformed one makes the header invalid.
                b"atime" | b"ctime" => drop(pax::time(value)?),
                _ => {}
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block, with its fields by their place.
struct RawHeader<'a>(&'a [u8; BLOCK]);

impl<'a> RawHeader<'a> {
    fn field(&self, start: usize, length: usize) -> &'a [u8] {
        &self.0[start..start + length]
    }

    fn parse(&self) -> Result<Header, &'static str> {
        let format = self.format()?;
        let mut header = Header {
            typeflag: self.0[156],
            name: text(self.field(0, 100)).to_vec(),
            link_name: text(self.field(157, 100)).to_vec(),
            size: number(self.field(124, 12))?,
            mode: number(self.field(100, 8))?,
            uid: number(self.field(108, 8))?,
            gid: number(self.field(116, 8))?,
            mtime: Timestamp { seconds: number(self.field(136, 12))?, nanos: 0 },
            uname: Vec::new(),
            gname: Vec::new(),
            devmajor: 0,
            devminor: 0,
            is_gnu: format == Format::Gnu,
        };
        if format == Format::V7 {
            return Ok(header);
        }
        header.uname = text(self.field(265, 32)).to_vec();
        header.gname = text(self.field(297, 32)).to_vec();
        header.devmajor = number(self.field(329, 8))?;
        header.devminor = number(self.field(337, 8))?;
        let prefix = match format {
            Format::Ustar => text(self.field(345, 155)),
            Format::Star => {
                number(self.field(476, 12))?;
                number(self.field(488, 12))?;
                text(self.field(345, 131))
            }
            // GNU headers have times where ustar has the prefix. Old Go writers put a prefix there all the
            // same, so if those are not times and the text is ASCII it is taken for one.
            _ => {
                let time = |start| {
                    let field = self.field(start, 12);
                    if field[0] == 0 { Ok(0) } else { number(field) }
                };
                let prefix = text(self.field(345, 155));
                if (time(345).is_err() || time(357).is_err()) && prefix.is_ascii() { prefix } else { b"" }
            }
        };
        if !prefix.is_empty() {
            header.name = [prefix, b"/", &header.name].concat();
        }
        Ok(header)
    }

    fn format(&self) -> Result<Format, &'static str> {
        let expected = octal(self.field(148, 8)).map_err(|_| "the checksum is not a number")?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in self.0.iter().enumerate() {
            // The checksum is made as if its own field held spaces. Some old tars summed signed bytes.
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if expected != unsigned && expected != signed {
            return Err("the checksum is wrong");
        }
        Ok(match (self.field(257, 6), self.field(263, 2), self.field(508, 4)) {
            (b"ustar\0", _, b"tar\0") => Format::Star,
            (b"ustar\0", _, _) => Format::Ustar,
            (b"ustar ", b" \0", _) => Format::Gnu,
            _ => Format::V7,
        })
    }
}

/// The bytes before the first NUL.
#[must_use]
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// A number: octal text, or base 256 if the first bit is set.
///
/// # Errors
/// If it is neither, or beyond 63 bits.
pub fn number(field: &[u8]) -> Result<i64, &'static str> {
    let Some(first) = field.first().filter(|b| **b & 0x80 != 0) else { return octal(field) };
    // Negative numbers are two's complement: invert, read, invert back.
    let invert = if first & 0x40 != 0 { 0xff } else { 0 };
    let mut value = 0u64;
    for (at, byte) in field.iter().enumerate() {
        let byte = if at == 0 { (byte ^ invert) & 0x7f } else { byte ^ invert };
        if value >> 56 != 0 {
            return Err("a number is too large");
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).map_err(|_| "a number is too large")?;
    Ok(if invert == 0 { value } else { !value })
}

/// Octal digits between any padding of spaces and NULs; nothing but padding is 0.
fn octal(field: &[u8]) -> Result<i64, &'static str> {
    let is_padding = |b: &u8| *b == b' ' || *b == 0;
    let Some(start) = field.iter().position(|b| !is_padding(b)) else { return Ok(0) };
    let end = field.iter().rposition(|b| !is_padding(b)).map_or(start, |last| last + 1);
    let mut value = 0u64;
    for digit in text(&field[start..end]) {
        if !(b'0'..=b'7').contains(digit) || value >> 61 != 0 {
            return Err("a number is not octal");
        }
        value = value << 3 | u64::from(digit - b'0');
    }
    Ok(value.cast_signed())
}
