//! A layer of another image with the same content, compressed in another way.
//!
//! Nothing of it is believed: the images only claim to have equal layers. Its uncompressed digest, over the chain ID of
//! the layers below, must give the chain ID of the snapshot that it is to stand in for, so that whoever made the claim
//! cannot slip other contents under a container of another image.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use registry::BlobReader;
use sha2::{Digest as _, Sha256};
use soci_index::oci::chain_id_over;
use tokio_util::sync::CancellationToken;

use super::pipeline;
use crate::content::Twin;

/// Bytes that are copied at once.
const CHUNK: usize = 256 << 10;

/// Bytes that may stand behind the end of an archive: it may be padded to a tape's record.
const PADDING: u64 = 1 << 20;

/// Which layers a snapshot has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Chain ID of the layer with all below it.
    pub(crate) own: String,
    /// Chain ID of those below, if there are any.
    pub(crate) below: Option<String>,
}

impl Chain {
    /// Whether a layer of this uncompressed digest is the topmost one.
    fn ends_with(&self, diff_id: &str) -> bool {
        match &self.below {
            None => diff_id == self.own,
            Some(below) => chain_id_over(below, diff_id) == self.own,
        }
    }
}

/// Another image's layer.
pub(super) struct OtherLayer {
    pub(super) name: String,
    pub(super) reader: Arc<dyn BlobReader>,
    pub(super) chain: Chain,
}

#[async_trait]
impl Twin for OtherLayer {
    fn name(&self) -> &str {
        &self.name
    }

    async fn copy(&self, directory: &Path, limit: u64) -> Result<File, String> {
        let text = |error: std::io::Error| error.to_string();
        let stop = CancellationToken::new();
        let body = self.reader.read_range(0..self.reader.size()).await.map_err(|error| error.to_string())?;
        let content = pipeline::inflate_stream(body, None, stop.clone());
        let _stop = stop.drop_guard();
        let path = directory.join("twin");
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path);
        let file = file.map_err(text)?;
        // The copy lives as long as it is open.
        std::fs::remove_file(&path).map_err(text)?;
        let copying = tokio::task::spawn_blocking(move || copy(content, file, limit.saturating_add(PADDING)));
        let (file, diff_id) = copying.await.map_err(|error| error.to_string())?.map_err(text)?;
        if !self.chain.ends_with(&diff_id) {
            return Err(format!("its content has digest {diff_id}, which is another layer's"));
        }
        Ok(file)
    }
}

/// Copies at most `limit` bytes of content; returns its digest.
fn copy(content: impl Read, mut file: File, limit: u64) -> std::io::Result<(File, String)> {
    let mut content = content.take(limit.saturating_add(1));
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let read = match content.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        length += read as u64;
        if length > limit {
            return Err(std::io::Error::other("it is longer than the layer"));
        }
        hasher.update(&chunk[..read]);
        file.write_all(&chunk[..read])?;
    }
    Ok((file, registry::Digest::from_sha256(&hasher.finalize().into()).to_string()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by it")]
mod tests {
    use super::*;

    #[test]
    fn only_the_content_that_a_chain_id_stands_for_is_taken() {
        let (below, diff_id) = ("sha256:below", "sha256:diff");
        let lowest = Chain { own: diff_id.to_owned(), below: None };
        assert!(lowest.ends_with(diff_id) && !lowest.ends_with("sha256:other"));
        let upper = Chain { own: chain_id_over(below, diff_id), below: Some(below.to_owned()) };
        assert!(upper.ends_with(diff_id) && !upper.ends_with("sha256:other") && !upper.ends_with(&upper.own));
    }

    #[test]
    fn a_copy_is_bounded() {
        let copied = |limit| copy(&[7_u8; 1000][..], tempfile::tempfile()?, limit);
        assert!(copied(999).is_err());
        let (file, digest) = copied(1000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1000);
        assert_eq!(digest, registry::Digest::of(&[7; 1000]).to_string());
    }
}
