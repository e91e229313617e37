//! Checking a table of contents against the layer it claims to describe.

use crate::entry::EntryRef;
use crate::tar::TarWalker;
use crate::{EntryKind, Error};

/// Checks a tar header, with the PAX and GNU headers before it, against the zTOC's entry: name, type, size,
/// owner, mode, time, link target, device and extended attributes. A zTOC that lies about any of them is
/// caught as soon as the header's span is read.
///
/// # Errors
/// [`Error::HeaderMismatch`] names the first field that differs.
pub fn verify_header(entry: &EntryRef<'_>, header: &[u8]) -> Result<(), Error> {
    let mut walker = TarWalker::new();
    walker.push(header).map_err(|_| Error::HeaderMismatch("the header cannot be read"))?;
    let [found] = walker.entries() else {
        return Err(Error::HeaderMismatch("there is not exactly one header"));
    };
    if found.offset != header.len() as u64 {
        return Err(Error::HeaderMismatch("the header has another length"));
    }
    let same = |equal: bool, field| if equal { Ok(()) } else { Err(Error::HeaderMismatch(field)) };
    same(found.name == entry.name, "name")?;
    same(found.kind == entry.kind, "type")?;
    same(found.size == entry.size, "size")?;
    same(found.link_name == entry.link_name, "link target")?;
    same(found.mode == entry.mode, "mode")?;
    same((found.uid, found.gid) == (entry.uid, entry.gid), "owner")?;
    // Times that RFC 3339 cannot write are stored as an empty text.
    same(found.mtime == entry.mtime() || found.mtime.format().as_bytes() == entry.mod_time, "time")?;
    if matches!(entry.kind, EntryKind::Char | EntryKind::Block) {
        same((found.devmajor, found.devminor) == (entry.devmajor, entry.devminor), "device number")?;
    }
    let (mut mine, mut theirs): (Vec<_>, Vec<_>) = (found.xattrs().collect(), entry.xattrs().collect());
    mine.sort_unstable();
    theirs.sort_unstable();
    same(mine == theirs, "extended attributes")
}
