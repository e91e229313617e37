//! Tar headers, written byte by byte.

use std::io::{self, Write};

use super::content::Content;
use super::entry::{Entry, Format, Kind};
use super::sparse::{self, SparseFormat};

pub(super) const BLOCK: usize = 512;

/// The fields of one header block.
pub(super) struct Header<'a> {
    pub(super) name: &'a [u8],
    pub(super) typeflag: u8,
    pub(super) size: u64,
    pub(super) link: &'a [u8],
    pub(super) entry: &'a Entry,
}

impl Header<'_> {
    /// The header without its checksum.
    pub(super) fn block(&self) -> [u8; BLOCK] {
        let entry = self.entry;
        let gnu = entry.format == Format::Gnu;
        let mut block = [0; BLOCK];
        let (prefix, name) = match entry.format {
            Format::Ustar => split(self.name),
            _ => (&b""[..], &self.name[..self.name.len().min(100)]),
        };
        put(&mut block, 0, name);
        number(&mut block[100..108], i128::from(entry.mode), gnu);
        number(&mut block[108..116], i128::from(entry.uid), gnu);
        number(&mut block[116..124], i128::from(entry.gid), gnu);
        number(&mut block[124..136], i128::from(self.size), gnu);
        number(&mut block[136..148], i128::from(entry.mtime), gnu);
        block[156] = self.typeflag;
        put(&mut block, 157, &self.link[..self.link.len().min(100)]);
        if entry.format == Format::V7 {
            return block;
        }
        put(&mut block, 257, if gnu { b"ustar  \0" } else { b"ustar\x0000" });
        put(&mut block, 265, &entry.uname[..entry.uname.len().min(31)]);
        put(&mut block, 297, &entry.gname[..entry.gname.len().min(31)]);
        if let Kind::Char(major, minor) | Kind::Block(major, minor) = entry.kind {
            number(&mut block[329..337], i128::from(major), gnu);
            number(&mut block[337..345], i128::from(minor), gnu);
        }
        put(&mut block, 345, prefix);
        block
    }
}

/// Writes a header block with its checksum.
pub(super) fn write_header(out: &mut dyn Write, mut block: [u8; BLOCK]) -> io::Result<()> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&block)
}

/// Writes data and the zeros up to the next block.
pub(super) fn write_padded(out: &mut dyn Write, data: &[u8]) -> io::Result<()> {
    out.write_all(data)?;
    pad(out, data.len() as u64)
}

pub(super) fn pad(out: &mut dyn Write, len: u64) -> io::Result<()> {
    let rest = (len % BLOCK as u64) as usize;
    out.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])
}

/// Writes an entry with all its headers and its data.
pub(super) fn write_entry(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
    let mut name = entry.path.clone();
    let (typeflag, link): (u8, &[u8]) = match &entry.kind {
        Kind::File(_) => (if entry.format == Format::V7 { 0 } else { b'0' }, b""),
        Kind::HardLink(target) => (b'1', target),
        Kind::Symlink(target) => (b'2', target),
        Kind::Char(..) => (b'3', b""),
        Kind::Block(..) => (b'4', b""),
        Kind::Dir => (b'5', b""),
        Kind::Fifo => (b'6', b""),
        Kind::Global => (b'g', b""),
        Kind::Other(flag, _) => (*flag, b""),
    };
    if matches!(entry.kind, Kind::Dir) && !name.ends_with(b"/") {
        name.push(b'/');
    }
    if matches!(entry.kind, Kind::Global) {
        let records: Vec<u8> = entry.pax.iter().flat_map(|(k, v)| record(k, v)).collect();
        let size = records.len() as u64;
        write_header(out, Header { name: &name, typeflag, size, link, entry }.block())?;
        return write_padded(out, &records);
    }
    let content = entry.content();
    if let Some(Content::Sparse { pieces, len }) = content {
        return sparse::write(out, entry, &name, pieces, *len);
    }
    let size = content.map_or(entry.header_size, Content::len);
    write_prologue(out, entry, &name, link, size, &[])?;
    write_header(out, Header { name: &name, typeflag, size, link, entry }.block())?;
    if let Some(content) = content {
        content.write_to(out)?;
        pad(out, content.len())?;
    }
    Ok(())
}

/// Writes the headers that stand before an entry's own: GNU long names or PAX records.
pub(super) fn write_prologue(
    out: &mut dyn Write,
    entry: &Entry,
    name: &[u8],
    link: &[u8],
    size: u64,
    extra: &[(Vec<u8>, Vec<u8>)],
) -> io::Result<()> {
    match entry.format {
        Format::Gnu => {
            assert!(entry.xattrs.is_empty() && entry.pax.is_empty(), "GNU headers have no xattrs");
            for (text, typeflag) in [(link, b'K'), (name, b'L')] {
                // Exactly 100 bytes fit, without the NUL.
                if text.len() > 100 {
                    let holder = Entry { mtime: 0, ..Entry::new("", Kind::Fifo).mode(0).format(Format::Gnu) };
                    let size = text.len() as u64 + 1;
                    let header = Header { name: b"././@LongLink", typeflag, size, link: b"", entry: &holder };
                    write_header(out, header.block())?;
                    write_padded(out, &[text, b"\0"].concat())?;
                }
            }
            Ok(())
        }
        Format::Pax => {
            let records = pax_records(entry, name, link, size, extra);
            if records.is_empty() {
                return Ok(());
            }
            let holder = Entry { mtime: entry.mtime.max(0), ..Entry::new("", Kind::Fifo) };
            let base = name.strip_suffix(b"/").unwrap_or(name);
            let base = base.rsplit(|b| *b == b'/').next().unwrap_or_default();
            let base: Vec<u8> = base.iter().copied().filter(u8::is_ascii).take(80).collect();
            let x_name = [b"PaxHeaders.0/", &base[..]].concat();
            let size = records.len() as u64;
            let header = Header { name: &x_name, typeflag: b'x', size, link: b"", entry: &holder };
            write_header(out, header.block())?;
            write_padded(out, &records)
        }
        Format::Ustar | Format::V7 => {
            assert!(entry.xattrs.is_empty() && entry.pax.is_empty(), "ustar has no PAX records");
            assert!(entry.mtime_nanos == 0 && link.len() <= 100, "does not fit into a ustar header");
            assert!(entry.format == Format::Ustar || name.len() <= 100, "does not fit into a V7 header");
            Ok(())
        }
    }
}

/// The PAX records an entry needs, in the order path, linkpath, size, uid, gid, mtime, xattrs, then those given.
fn pax_records(entry: &Entry, name: &[u8], link: &[u8], size: u64, extra: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |key: &str, value: &[u8]| out.extend(record(key.as_bytes(), value));
    let long = |text: &[u8]| text.len() > 100 || (!text.is_ascii() && std::str::from_utf8(text).is_ok());
    if long(name) {
        add("path", name);
    }
    if long(link) {
        add("linkpath", link);
    }
    if size >= 1 << 33 {
        add("size", size.to_string().as_bytes());
    }
    if entry.uid >= 1 << 21 {
        add("uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid >= 1 << 21 {
        add("gid", entry.gid.to_string().as_bytes());
    }
    if entry.mtime_nanos != 0 || !(0..1 << 33).contains(&entry.mtime) {
        add("mtime", pax_time(entry.mtime, entry.mtime_nanos).as_bytes());
    }
    for (key, value) in &entry.xattrs {
        out.extend(record(&[b"SCHILY.xattr.", &key[..]].concat(), value));
    }
    for (key, value) in extra.iter().chain(&entry.pax) {
        out.extend(record(key, value));
    }
    out
}

/// A PAX time. The fraction counts forward even before 1970, the text is a decimal number.
fn pax_time(seconds: i64, nanos: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{fraction:09}").trim_end_matches('0'))
}

/// `LENGTH key=value\n`, where the length counts itself.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

pub(super) fn put(block: &mut [u8; BLOCK], at: usize, text: &[u8]) {
    block[at..at + text.len()].copy_from_slice(text);
}

/// Octal digits and a NUL if they fit; else base-256 for GNU, and what a PAX record overrides (0) otherwise.
pub(super) fn number(field: &mut [u8], value: i128, gnu: bool) {
    let digits = field.len() - 1;
    if (0..1i128 << (3 * digits)).contains(&value) {
        field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    } else if gnu {
        let bytes = value.to_be_bytes();
        field.copy_from_slice(&bytes[bytes.len() - field.len()..]);
        field[0] |= 0x80;
    } else {
        field[..digits].fill(b'0');
    }
}

/// Splits a long name at a slash into ustar's prefix and name.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    if name.len() <= 100 {
        return (b"", name);
    }
    let fits = |i: &usize| name[*i] == b'/' && *i <= 155 && (1..=100).contains(&(name.len() - i - 1));
    let at = (1..name.len()).find(fits).expect("a name that fits into a ustar header");
    (&name[..at], &name[at + 1..])
}

/// Whether an entry's sparse format belongs to PAX.
pub(super) fn is_pax(format: SparseFormat) -> bool {
    format != SparseFormat::Gnu
}
