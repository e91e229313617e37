//! Checking a table of contents against the layer it claims to describe.

use std::hash::BuildHasher;

use super::entry::EntryKind;
use super::error::Error;
use super::time::Timestamp;
use crate::entry::{Entry, EntryRef};
use crate::tar::TarWalker;

/// What a tar header and a zTOC entry must agree on.
#[derive(Hash)]
struct Identity<'a> {
    name: &'a [u8],
    kind: EntryKind,
    size: u64,
    link_name: &'a [u8],
    mode: i64,
    owner: (u32, u32),
    mtime: Timestamp,
    device: Option<(i64, i64)>,
    xattrs: Vec<(&'a [u8], &'a [u8])>,
}

fn device(kind: EntryKind, major: i64, minor: i64) -> Option<(i64, i64)> {
    matches!(kind, EntryKind::Char | EntryKind::Block).then_some((major, minor))
}

fn sorted<'a>(xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(&'a [u8], &'a [u8])> {
    let mut xattrs: Vec<_> = xattrs.collect();
    xattrs.sort_unstable();
    xattrs
}

impl<'a> Identity<'a> {
    fn of_header(entry: &'a Entry) -> Self {
        Self {
            name: &entry.name,
            kind: entry.kind,
            size: entry.size,
            link_name: &entry.link_name,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            // Times that RFC 3339 cannot write are stored as an empty text, which reads as zero.
            mtime: if entry.mtime.is_writable() { entry.mtime } else { Timestamp::ZERO },
            device: device(entry.kind, entry.devmajor, entry.devminor),
            xattrs: sorted(entry.xattrs()),
        }
    }

    fn of_entry(entry: &EntryRef<'a>) -> Self {
        Self {
            name: entry.name,
            kind: entry.kind,
            size: entry.size,
            link_name: entry.link_name,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime(),
            device: device(entry.kind, entry.devmajor, entry.devminor),
            xattrs: sorted(entry.xattrs()),
        }
    }
}

fn parse(header: &[u8]) -> Result<TarWalker, Error> {
    let mut walker = TarWalker::new();
    walker.push(header).map_err(|_| Error::HeaderMismatch("the header cannot be read"))?;
    match walker.entries() {
        [found] if found.offset == header.len() as u64 => Ok(walker),
        [_] => Err(Error::HeaderMismatch("the header has another length")),
        _ => Err(Error::HeaderMismatch("there is not exactly one header")),
    }
}

/// Checks a tar header, with the PAX and GNU headers before it, against the zTOC's entry: name, type, size,
/// owner, mode, time, link target, device and extended attributes. A zTOC that lies about any of them is
/// caught as soon as the header's span is read.
///
/// # Errors
/// [`Error::HeaderMismatch`] names the first field that differs.
pub fn verify_header(entry: &EntryRef<'_>, header: &[u8]) -> Result<(), Error> {
    let walker = parse(header)?;
    let Some(found) = walker.entries().first().map(Identity::of_header) else {
        return Err(Error::HeaderMismatch("there is no header"));
    };
    let claimed = Identity::of_entry(entry);
    for (equal, field) in [
        (found.name == claimed.name, "name"),
        (found.kind == claimed.kind, "type"),
        (found.size == claimed.size, "size"),
        (found.link_name == claimed.link_name, "link target"),
        (found.mode == claimed.mode, "mode"),
        (found.owner == claimed.owner, "owner"),
        (found.mtime == claimed.mtime, "time"),
        (found.device == claimed.device, "device number"),
        (found.xattrs == claimed.xattrs, "extended attributes"),
    ] {
        if !equal {
            return Err(Error::HeaderMismatch(field));
        }
    }
    Ok(())
}

/// A keyed hash of what [`verify_header`] compares, so that headers can be checked later without keeping the
/// zTOC in memory. With a random key, as [`std::hash::RandomState`] has, nobody can craft a header that
/// collides.
#[must_use]
pub fn fingerprint(entry: &EntryRef<'_>, key: &impl BuildHasher) -> u64 {
    key.hash_one(Identity::of_entry(entry))
}

/// The same hash for a tar header, which must be a whole one.
///
/// # Errors
/// [`Error::HeaderMismatch`] if `header` is not exactly one header.
pub fn header_fingerprint(header: &[u8], key: &impl BuildHasher) -> Result<u64, Error> {
    let walker = parse(header)?;
    let found = walker.entries().first().ok_or(Error::HeaderMismatch("there is no header"))?;
    Ok(key.hash_one(Identity::of_header(found)))
}
