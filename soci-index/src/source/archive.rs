//! Finding the files of an OCI layout inside a tar file, without unpacking it.
//!
//! Only headers are read; blobs are read later, in place. The archive comes from anywhere, so names count only when they
//! are exactly those of a layout, and sizes are checked against the file.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use registry::Digest;

use super::error::SourceError;

const BLOCK: u64 = 512;

/// More entries than any image has; an archive of empty entries must not take memory without end.
const MAX_ENTRIES: usize = 100_000;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Its first byte.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
}

/// Where an archive has what.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) index: Extent,
    pub(crate) blobs: HashMap<Digest, Extent>,
}

/// Reads the headers of `file`.
pub(crate) fn scan(path: &Path, file: &File) -> Result<Contents, SourceError> {
    let io = |source| SourceError::Io { path: path.to_owned(), source };
    let bad = |reason: String| SourceError::Layout { path: path.to_owned(), reason };
    let end = file.metadata().map_err(io)?.len();
    refuse_compressed(path, file)?;

    let mut index = None;
    let mut layout = false;
    let mut blobs = HashMap::new();
    let mut at = 0;
    let mut pax_size = None;
    let mut header = [0; BLOCK as usize];
    for _ in 0..MAX_ENTRIES {
        // An archive may end without the two empty blocks.
        if at + BLOCK > end {
            let index = index.ok_or_else(|| bad("not an OCI archive: it has no index.json".into()))?;
            if !layout {
                return Err(bad("not an OCI archive: it has no oci-layout file".into()));
            }
            return Ok(Contents { index, blobs });
        }
        file.read_exact_at(&mut header, at).map_err(io)?;
        if header.iter().all(|&byte| byte == 0) {
            // Nothing follows the end marker.
            at = end;
            continue;
        }
        let valid = checksum_is_right(&header).then(|| number(&header[124..136])).flatten();
        let Some(header_size) = valid else {
            return Err(bad(format!("not a tar archive: invalid header at byte {at}")));
        };
        let typeflag = header[156];
        // A PAX record gives the size of the entry after it, beyond what the header's field can hold.
        let len = match typeflag {
            b'x' | b'g' | b'L' | b'K' => header_size,
            _ => pax_size.take().unwrap_or(header_size),
        };
        let offset = at + BLOCK;
        let next = offset
            .checked_add(len)
            .and_then(|end_of_data| end_of_data.checked_next_multiple_of(BLOCK))
            .filter(|_| offset + len <= end)
            .ok_or_else(|| bad(format!("truncated: the entry at byte {at} needs {len} bytes")))?;
        match typeflag {
            b'x' => pax_size = pax_size_record(file, Extent { offset, len }).map_err(io)?,
            b'0' | 0 => {
                let extent = Extent { offset, len };
                match layout_name(&header).as_deref() {
                    Some("index.json") => index = Some(extent),
                    Some("oci-layout") => layout = true,
                    Some(name) => {
                        if let Some(hex) = name.strip_prefix("blobs/sha256/")
                            && let Ok(digest) = format!("sha256:{hex}").parse()
                        {
                            blobs.insert(digest, extent);
                        }
                    }
                    None => {}
                }
            }
            _ => {}
        }
        at = next;
    }
    Err(bad(format!("more than {MAX_ENTRIES} entries")))
}

fn refuse_compressed(path: &Path, file: &File) -> Result<(), SourceError> {
    let mut magic = [0; 6];
    let read =
        file.read_at(&mut magic, 0).map_err(|source| SourceError::Io { path: path.to_owned(), source })?;
    let (name, tool) = match &magic[..read] {
        [0x1f, 0x8b, ..] => ("gzip", "gunzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", "unzstd"),
        [b'B', b'Z', b'h', ..] => ("bzip2", "bunzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => ("xz", "unxz"),
        _ => return Ok(()),
    };
    Err(SourceError::Layout {
        path: path.to_owned(),
        reason: format!(
            "the archive is compressed with {name}, so its blobs cannot be read in place; run {tool} on it first"
        ),
    })
}

/// The entry's name without a leading `./`; `None` for what cannot be a layout's file.
fn layout_name(header: &[u8; BLOCK as usize]) -> Option<String> {
    let field = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok().map(str::to_owned)
    };
    let mut name = field(&header[..100])?;
    // POSIX archives split long names; GNU's use these bytes for something else.
    if &header[257..263] == b"ustar\0" && header[345] != 0 {
        name = format!("{}/{name}", field(&header[345..500])?);
    }
    Some(name.strip_prefix("./").map(str::to_owned).unwrap_or(name))
}

fn checksum_is_right(header: &[u8; BLOCK as usize]) -> bool {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, &b)| u64::from(if (148..156).contains(&at) { b' ' } else { b }))
        .sum();
    number(&header[148..156]) == Some(sum)
}

/// A number field: octal digits, or GNU's base 256 when the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let first = u64::from(field[0] & 0x7f);
        return field[1..]
            .iter()
            .try_fold(first, |value, &byte| value.checked_mul(256)?.checked_add(byte.into()));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// The `size` record of a PAX header. Larger headers than 64 KiB belong to no layout.
fn pax_size_record(file: &File, extent: Extent) -> std::io::Result<Option<u64>> {
    let mut records = vec![0; extent.len.min(1 << 16) as usize];
    file.read_exact_at(&mut records, extent.offset)?;
    Ok(records
        .split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(' ')?.1.strip_prefix("size="))
        .find_map(|size| size.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn entry(name: &str, typeflag: u8, data: &[u8], size: Option<&[u8]>) -> Vec<u8> {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let octal = format!("{:011o}\0", data.len()).into_bytes();
        header[124..136].copy_from_slice(size.unwrap_or(&octal));
        header[156] = typeflag;
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header.extend_from_slice(data);
        header.resize(header.len().next_multiple_of(512), 0);
        header
    }

    fn scan_bytes(bytes: &[u8]) -> Result<Contents, SourceError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        scan(Path::new("test.tar"), &file)
    }

    #[test]
    fn blobs_are_found_in_place() {
        let digest = Digest::of(b"blob");
        let mut tar = entry("./oci-layout", b'0', b"{}", None);
        tar.extend(entry("blobs/", b'5', b"", None));
        // The PAX size overrides the header's field.
        tar.extend(entry("PaxHeaders/1", b'x', b"10 size=4\n", None));
        let blob = entry(&format!("blobs/sha256/{}", digest.hex()), b'0', b"blob", None);
        tar.extend(&blob);
        tar.extend(entry("blobs/sha256/../../../etc/passwd", b'0', b"no", None));
        tar.extend(entry("index.json", 0, b"{\"manifests\":[]}", None));
        for ending in [0, 512, 1024, 10240] {
            let mut tar = tar.clone();
            tar.resize(tar.len() + ending, 0);
            let contents = scan_bytes(&tar).unwrap();
            assert_eq!(contents.blobs.len(), 1);
            let extent = contents.blobs[&digest];
            assert_eq!(&tar[extent.offset as usize..][..extent.len as usize], b"blob");
            assert_eq!(contents.index.len, 16);
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        for (bytes, message) in [
            (b"\x1f\x8b\x08rest".to_vec(), "compressed with gzip"),
            (b"\x28\xb5\x2f\xfdrest".to_vec(), "compressed with zstd"),
            (vec![b'x'; 2048], "not a tar archive"),
            (Vec::new(), "no index.json"),
            (entry("index.json", b'0', b"{}", None), "no oci-layout"),
            (entry("index.json", b'0', b"{}", Some(b"77777777777\0")), "truncated"),
            (
                entry("index.json", b'0', b"{}", Some(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
                "not a tar",
            ),
            (entry("x", b'0', b"{}", Some(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")), "truncated"),
        ] {
            let error = scan_bytes(&bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{error} does not mention {message}");
        }
    }
}
