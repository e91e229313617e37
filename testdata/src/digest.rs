//! Digests in the form `sha256:<64 hex digits>`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// The digest of `data`.
pub fn sha256(data: &[u8]) -> String {
    named(Sha256::new_with_prefix(data))
}

/// The digest and the size of a file, read in pieces so that a file of any size will do.
pub fn sha256_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((named(hasher), size));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

/// Whether `text` is a well-formed sha256 digest.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|h| h.len() == 64 && h.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Ends a running hash.
pub(crate) fn named(hasher: Sha256) -> String {
    format!("sha256:{}", hex::encode(hasher.finalize()))
}
