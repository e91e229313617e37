//! What the places have in common that keep blobs in directories: the artifact store, and layouts that are written to.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use registry::{Digest, DigestHasher};

/// The content of a layout's marker, `oci-layout`.
pub(crate) const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A file that is being written for longer than this belongs to no running process.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// The digest of the rest of a file.
pub(crate) fn digest_of(file: &mut File) -> io::Result<Digest> {
    let mut hasher = DigestHasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Deletes the files whose names begin so and that processes which died have left. Only space is at stake, so what cannot
/// be deleted stays.
pub(crate) fn remove_abandoned(directory: &Path, prefix: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        let age =
            entry.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
        if matches!(age, Ok(Ok(age)) if age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
