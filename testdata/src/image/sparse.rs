//! Files with holes, in the four ways that tars have for them.

use std::io::{self, Write};

use bytes::Bytes;

use super::entry::{Entry, Format};
use super::tar::{BLOCK, Header, is_pax, number, pad, put, write_header, write_padded, write_prologue};

/// How a file with holes is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SparseFormat {
    /// Old GNU: typeflag `S`, the map in the header and in blocks after it.
    Gnu,
    /// PAX 0.0: one pair of records for each piece.
    Pax00,
    /// PAX 0.1: all pieces in one record.
    Pax01,
    /// PAX 1.0: the map in front of the data.
    Pax10,
}

/// Writes a sparse entry.
pub(super) fn write(
    out: &mut dyn Write,
    entry: &Entry,
    name: &[u8],
    pieces: &[(u64, Bytes)],
    len: u64,
) -> io::Result<()> {
    let (_, whole) = pieces.split_last().unwrap_or((&(0, Bytes::new()), &[]));
    // GNU tar reads every piece in blocks, other readers do not: pieces that end inside a block mean two things.
    assert!(
        whole.iter().all(|(_, data)| data.len() % BLOCK == 0),
        "only the last piece may end inside a block"
    );
    let mut map: Vec<(u64, u64)> = pieces.iter().map(|(at, data)| (*at, data.len() as u64)).collect();
    // A piece of no bytes at the end says where the file ends, as GNU tar writes it.
    if map.last().is_none_or(|(at, n)| at + n < len) {
        map.push((len, 0));
    }
    let stored: u64 = map.iter().map(|(_, n)| n).sum();
    let format = if is_pax(entry.sparse) { Format::Pax } else { Format::Gnu };
    let entry = &Entry { format, ..entry.clone() };
    match entry.sparse {
        SparseFormat::Gnu => gnu(out, entry, name, &map, stored, len)?,
        SparseFormat::Pax00 => {
            let mut records =
                vec![pair("GNU.sparse.size", len), pair("GNU.sparse.numblocks", map.len() as u64)];
            for (at, n) in &map {
                records.extend([pair("GNU.sparse.offset", *at), pair("GNU.sparse.numbytes", *n)]);
            }
            plain(out, entry, name, stored, &records)?;
        }
        SparseFormat::Pax01 => {
            let list: Vec<String> = map.iter().map(|(at, n)| format!("{at},{n}")).collect();
            let records = [
                pair("GNU.sparse.size", len),
                pair("GNU.sparse.numblocks", map.len() as u64),
                (b"GNU.sparse.name".to_vec(), name.to_vec()),
                (b"GNU.sparse.map".to_vec(), list.join(",").into_bytes()),
            ];
            plain(out, entry, &sparse_name(name), stored, &records)?;
        }
        SparseFormat::Pax10 => {
            let mut text = format!("{}\n", map.len());
            map.iter().for_each(|(at, n)| text.push_str(&format!("{at}\n{n}\n")));
            let mut front = text.into_bytes();
            front.resize(front.len().next_multiple_of(BLOCK), 0);
            let records = [
                pair("GNU.sparse.major", 1),
                pair("GNU.sparse.minor", 0),
                (b"GNU.sparse.name".to_vec(), name.to_vec()),
                pair("GNU.sparse.realsize", len),
            ];
            plain(out, entry, &sparse_name(name), stored + front.len() as u64, &records)?;
            out.write_all(&front)?;
        }
    }
    for (_, data) in pieces {
        out.write_all(data)?;
    }
    pad(out, stored)
}

/// The headers of the PAX formats: records, then an ordinary header.
fn plain(
    out: &mut dyn Write,
    entry: &Entry,
    name: &[u8],
    size: u64,
    records: &[(Vec<u8>, Vec<u8>)],
) -> io::Result<()> {
    write_prologue(out, entry, name, b"", size, records)?;
    write_header(out, Header { name, typeflag: b'0', size, link: b"", entry }.block())
}

/// The headers of the old GNU format: 4 pieces in the header, 21 in each block after it.
fn gnu(
    out: &mut dyn Write,
    entry: &Entry,
    name: &[u8],
    map: &[(u64, u64)],
    stored: u64,
    len: u64,
) -> io::Result<()> {
    write_prologue(out, entry, name, b"", stored, &[])?;
    let mut block = Header { name, typeflag: b'S', size: stored, link: b"", entry }.block();
    let (first, rest) = map.split_at(map.len().min(4));
    pieces(&mut block[386..], first);
    put(&mut block, 482, &[u8::from(!rest.is_empty())]);
    number(&mut block[483..495], i128::from(len), true);
    write_header(out, block)?;
    let chunks = rest.chunks(21);
    let count = chunks.len();
    for (i, chunk) in chunks.enumerate() {
        let mut block = [0; BLOCK];
        pieces(&mut block, chunk);
        put(&mut block, 504, &[u8::from(i + 1 < count)]);
        write_padded(out, &block)?;
    }
    Ok(())
}

fn pieces(field: &mut [u8], map: &[(u64, u64)]) {
    for (i, (at, n)) in map.iter().enumerate() {
        number(&mut field[24 * i..24 * i + 12], i128::from(*at), true);
        number(&mut field[24 * i + 12..24 * i + 24], i128::from(*n), true);
    }
}

fn pair(key: &str, value: u64) -> (Vec<u8>, Vec<u8>) {
    (key.as_bytes().to_vec(), value.to_string().into_bytes())
}

/// The name that tools without sparse support see.
fn sparse_name(name: &[u8]) -> Vec<u8> {
    let at = name.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    [&name[..at], b"GNUSparseFile.0/", &name[at..]].concat()
}
