//! Files that are written as a whole or not at all, even if the machine loses power.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Makes `path` a file with these bytes. It survives a power failure once this returns. `temporary` is a free name
/// in the same directory.
pub(crate) fn write(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| std::fs::rename(temporary, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(temporary);
    })?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
