//! The corners of the tar formats, as Go's `archive/tar` reads them.
#![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

use super::*;
use crate::time::Timestamp;

/// A header with the given fields; `magic` chooses the format.
fn header(name: &[u8], typeflag: u8, size: &[u8], magic: &[u8], more: &[(usize, &[u8])]) -> Vec<u8> {
    let mut block = vec![0u8; BLOCK];
    let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
    put(0, name);
    put(100, b"0000644\0");
    put(124, size);
    put(136, b"00000000012\0");
    put(156, &[typeflag]);
    put(257, magic);
    for (at, field) in more {
        put(*at, field);
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

const USTAR: &[u8] = b"ustar\x0000";
const GNU: &[u8] = b"ustar  \0";

fn special(typeflag: u8, content: &[u8]) -> Vec<u8> {
    let size = format!("{:011o}\0", content.len());
    let mut blocks = header(b"special", typeflag, size.as_bytes(), USTAR, &[]);
    blocks.extend_from_slice(content);
    blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    blocks
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut content = String::new();
    for (key, value) in records {
        let body = format!(" {key}={value}\n");
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        content += &format!("{length}{body}");
    }
    special(b'x', content.as_bytes())
}

fn walk(archive: &[u8]) -> Result<(Vec<Entry>, u64), BuildError> {
    let mut walker = TarWalker::new();
    walker.push(archive)?;
    walker.finish()
}

fn one(archive: &[u8]) -> Entry {
    let (mut entries, _) = walk(archive).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

#[test]
fn ustar_and_star_prefixes_come_before_the_name() {
    let ustar = header(b"name", b'0', b"", USTAR, &[(345, b"dir/sub")]);
    assert_eq!(one(&ustar).name, b"dir/sub/name");
    // In a star header the bytes behind 131 bytes of prefix are times.
    let star = header(b"name", b'0', b"", USTAR, &[(345, b"dir"), (476, b"00000000001\0"), (508, b"tar\0")]);
    assert_eq!(one(&star).name, b"dir/name");
    let gnu = header(b"name", b'0', b"", GNU, &[(345, b"00000000001\0")]);
    assert_eq!(one(&gnu).name, b"name");
    let buggy = header(b"name", b'0', b"", GNU, &[(345, b"dir/of/old/go")]);
    assert_eq!(one(&buggy).name, b"dir/of/old/go/name");
}

#[test]
fn names_take_precedence_gnu_then_pax_then_header() {
    let plain = header(b"name", b'2', b"", USTAR, &[(157, b"target")]);
    let records = pax(&[("path", "pax name"), ("linkpath", "pax target")]);
    let entry = one(&[records.clone(), plain.clone()].concat());
    assert_eq!((entry.name.as_slice(), entry.link_name.as_slice()), (&b"pax name"[..], &b"pax target"[..]));
    let long = [special(b'L', b"gnu name\0"), special(b'K', b"gnu target\0junk"), records, plain].concat();
    let entry = one(&long);
    assert_eq!((entry.name.as_slice(), entry.link_name.as_slice()), (&b"gnu name"[..], &b"gnu target"[..]));
    assert_eq!(entry.offset, long.len() as u64);
}

#[test]
fn a_second_pax_header_replaces_the_first() {
    let archive =
        [pax(&[("path", "one"), ("uid", "7")]), pax(&[("gid", "8")]), header(b"n", b'0', b"", USTAR, &[])];
    let entry = one(&archive.concat());
    assert_eq!((entry.name.as_slice(), entry.uid, entry.gid), (&b"n"[..], 0, 8));
}

#[test]
fn pax_records_override_numbers_and_times() {
    let records =
        [("mtime", "-1.25"), ("uid", "4294967297"), ("size", "3"), ("empty", ""), ("dup", "1"), ("dup", "2")];
    let mut archive = [pax(&records), header(b"n", b'0', b"00000000777\0", USTAR, &[])].concat();
    let offset = archive.len() as u64;
    archive.extend(b"abc");
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    let entry = one(&archive);
    assert_eq!((entry.offset, entry.size, entry.uid), (offset, 3, 1));
    assert_eq!(entry.mtime, Timestamp { seconds: -2, nanos: 750_000_000 });
    let keys: Vec<_> = entry.pax.iter().map(|(k, v)| (k.as_slice(), v.as_slice())).collect();
    assert_eq!(keys[0], (&b"dup"[..], &b"2"[..]));
    assert_eq!(keys[1], (&b"empty"[..], &b""[..]));
}

#[test]
fn numbers_may_be_base_256_negative_or_padded() {
    let size = header(
        b"n",
        b'5',
        b"",
        GNU,
        &[(108, b"\x80\0\0\0\0\0\x30\x39"), (136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe")],
    );
    let entry = one(&size);
    assert_eq!((entry.uid, entry.mtime.seconds), (12345, -2));
    let padded = header(b"n", b'5', b"", USTAR, &[(108, b"  17 \0\0\0")]);
    assert_eq!(one(&padded).uid, 15);
    for bad in [&b"12x\0\0\0\0\0"[..], b"\x80\xff\xff\xff\xff\xff\xff\xff", b"8\0\0\0\0\0\0\0"] {
        let archive = header(b"n", b'5', b"", USTAR, &[(108, bad)]);
        let outcome = walk(&archive);
        // 2^56 - 1 fits into a number; the rest does not parse.
        assert_eq!(outcome.is_ok(), bad[0] == 0x80, "{}", bad.escape_ascii());
    }
}

#[test]
fn old_archives_mark_directories_by_a_slash() {
    assert_eq!(one(&header(b"dir/", 0, b"00000001000\0", b"", &[])).kind, EntryKind::Directory);
    assert_eq!(one(&header(b"file", 0, b"", b"", &[])).kind, EntryKind::Regular);
}

#[test]
fn entries_without_data_have_size_zero_and_skip_nothing() {
    let link = header(b"link", b'1', b"00000001000\0", USTAR, &[(157, b"file")]);
    let (entries, size) = walk(&[link, header(b"b", b'0', b"", USTAR, &[]), vec![0; 1024]].concat()).unwrap();
    assert_eq!((entries[0].size, entries[1].offset, size), (0, 1024, 2048));
}

#[test]
fn what_cannot_be_indexed_is_named() {
    for typeflag in [b'g', b'7', b'V', b'A'] {
        let error = walk(&header(b"n", typeflag, b"", USTAR, &[])).unwrap_err();
        assert!(matches!(error, BuildError::UnsupportedEntry { typeflag: t } if t == typeflag));
    }
    let plain = header(b"holes", b'0', b"", USTAR, &[]);
    for records in [
        vec![("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")],
        vec![("GNU.sparse.map", "0,1")],
        vec![("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "1")],
    ] {
        let error = walk(&[pax(&records), plain.clone()].concat()).unwrap_err();
        assert!(matches!(error, BuildError::Sparse { name } if name == "holes"), "{records:?}");
    }
    assert!(matches!(walk(&header(b"n", b'S', b"", GNU, &[])), Err(BuildError::Sparse { .. })));
    let unknown = pax(&[("GNU.sparse.major", "9")]);
    assert_eq!(one(&[unknown, plain].concat()).kind, EntryKind::Regular);
}

#[test]
fn ends_of_archives() {
    let file = [header(b"n", b'0', b"00000000003\0", USTAR, &[]), b"abc".to_vec()].concat();
    // Cut off within the padding: accepted, as by Go.
    assert_eq!(walk(&file).unwrap().1, 515);
    assert!(matches!(walk(&file[..514]), Err(BuildError::TruncatedArchive { size: 514 })));
    assert!(matches!(walk(&file[..100]), Err(BuildError::TruncatedArchive { size: 100 })));
    let padded = [file.clone(), vec![0; 509]].concat();
    assert_eq!(walk(&[padded.clone(), vec![0; 512]].concat()).unwrap().1, 1536);
    let ended = [padded.clone(), vec![0; 1024], b"whatever follows is ignored".to_vec()].concat();
    assert_eq!(walk(&ended).unwrap().1, 2048);
    assert!(walk(&[padded, vec![0; 512], file].concat()).is_err());
    assert_eq!(walk(&[]).unwrap().1, 0);
}

#[test]
fn malformed_pax_headers_are_refused() {
    let plain = header(b"n", b'0', b"", USTAR, &[]);
    for content in [
        &b"x"[..],
        b"5 a\n",
        b"99 a=b\n",
        b"6 a=b",
        b"6 =bc\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"11 path=a\0b\n",
        b"8 uid=x\n",
        b"12 mtime=1.x\n",
        b"99999999999999999999 a=b\n",
        b"6 a=b\n\0\0",
    ] {
        let archive = [special(b'x', content), plain.clone()].concat();
        assert!(matches!(walk(&archive), Err(BuildError::Header { .. })), "{}", content.escape_ascii());
    }
    let huge = header(b"n", b'x', b"77777777777\0", USTAR, &[]);
    assert!(matches!(walk(&huge), Err(BuildError::Header { .. })));
}
