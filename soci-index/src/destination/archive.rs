//! OCI image layouts in an uncompressed tar file.
//!
//! The same image gives the same file: its entries are sorted by name, belong to nobody and have no time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use registry::Descriptor;
use tokio::io::AsyncWriteExt;

use super::copy::ImageDestination;
use super::error::DestinationError;
use super::layout::Listing;
use super::layout::temporary;
use super::progress::{Copied, CopyEvent, CopyProgress};
use super::shipment::reported;
use super::shipment::{Part, Shipment};
use crate::files::OCI_LAYOUT;
use crate::oci::ImageIndex;

const BLOCK: u64 = 512;

/// A file that holds one image. What is there is replaced when the new one is complete.
#[derive(Debug)]
pub struct ArchiveDestination {
    path: PathBuf,
    listing: Listing,
}

impl ArchiveDestination {
    /// The archive at `path`. Nothing is touched yet.
    ///
    /// # Errors
    /// When there is a directory, or another thing that is no file.
    pub fn new(path: impl Into<PathBuf>, listing: Listing) -> Result<Self, DestinationError> {
        let path = path.into();
        if std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            let reason =
                "not a file, so it is left as it is; write oci:DIR for a layout in a directory".into();
            return Err(DestinationError::Layout { path, reason });
        }
        Ok(Self { path, listing })
    }
}

/// An entry of the archive.
enum Entry<'a> {
    Directory,
    Bytes(Bytes, u32),
    Blob(&'a Part),
}

/// Everything in the archive, in its order.
fn entries<'a>(shipment: &'a Shipment, listing: &Listing) -> Vec<(String, Entry<'a>)> {
    let root = &shipment.root;
    let index = ImageIndex { manifests: vec![listing.entry(&root.descriptor)], ..ImageIndex::default() };
    let name = |blob: &Descriptor| format!("blobs/{}/{}", blob.digest.algorithm(), blob.digest.hex());
    let documents = shipment.documents.iter().chain([root]);
    let mut entries: Vec<(String, Entry<'_>)> = documents
        .map(|document| (name(&document.descriptor), Entry::Bytes(document.bytes.clone(), 0o444)))
        .chain(shipment.parts.iter().map(|part| (name(&part.blob), Entry::Blob(part))))
        .chain([
            ("blobs/".to_owned(), Entry::Directory),
            ("blobs/sha256/".to_owned(), Entry::Directory),
            ("index.json".to_owned(), Entry::Bytes(index.encode().into(), 0o644)),
            ("oci-layout".to_owned(), Entry::Bytes(Bytes::from_static(OCI_LAYOUT), 0o444)),
        ])
        .collect();
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    // A manifest that an artifact names as its blob too.
    entries.dedup_by(|(left, _), (right, _)| left == right);
    entries
}

fn header(name: &str, size: u64, mode: u32, path: &Path) -> Result<tar::Header, DestinationError> {
    let mut header = tar::Header::new_gnu();
    let directory = name.ends_with('/');
    header.set_entry_type(if directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
    header.set_path(name).map_err(DestinationError::io(path))?;
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

impl ArchiveDestination {
    async fn entry(
        &self,
        file: &mut tokio::fs::File,
        name: &str,
        entry: &Entry<'_>,
        shipment: &Shipment,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError> {
        let io = || DestinationError::io(&self.path);
        let (size, mode) = match entry {
            Entry::Directory => (0, 0o755),
            Entry::Bytes(bytes, mode) => (bytes.len() as u64, *mode),
            Entry::Blob(part) => (part.blob.size, 0o444),
        };
        file.write_all(header(name, size, mode, &self.path)?.as_bytes()).await.map_err(io())?;
        match entry {
            Entry::Directory => {}
            Entry::Bytes(bytes, _) => file.write_all(bytes).await.map_err(io())?,
            Entry::Blob(part) => {
                progress.blob(&part.blob, CopyEvent::Started);
                let bytes = shipment.open(part).await?;
                let mut bytes = reported(bytes, &part.blob, progress);
                let mut written = 0;
                while let Some(piece) = bytes.try_next().await? {
                    written += piece.len() as u64;
                    file.write_all(&piece).await.map_err(io())?;
                }
                if written != size {
                    // What follows would be read as something else.
                    let problem = format!("{} has {written} bytes instead of {size}", part.blob.digest);
                    return Err(io()(std::io::Error::other(problem)));
                }
                progress.blob(&part.blob, CopyEvent::Done(Copied::Moved));
            }
        }
        let padding = (size.next_multiple_of(BLOCK) - size) as usize;
        file.write_all(&[0; BLOCK as usize][..padding]).await.map_err(io())
    }
}

#[async_trait]
impl ImageDestination for ArchiveDestination {
    fn name(&self) -> String {
        match &self.listing {
            Listing::Named(name) => format!("oci-archive:{}:{name}", self.path.display()),
            Listing::Unnamed | Listing::Only => format!("oci-archive:{}", self.path.display()),
        }
    }

    async fn write(
        &self,
        shipment: &Shipment,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError> {
        let (file, unfinished) = temporary(&self.path)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        for (name, entry) in entries(shipment, &self.listing) {
            self.entry(&mut file, &name, &entry, shipment, progress).await?;
        }
        file.write_all(&[0; 2 * BLOCK as usize]).await.map_err(DestinationError::io(&self.path))?;
        file.sync_all().await.map_err(DestinationError::io(&self.path))?;
        unfinished.persist(&self.path).map_err(|error| DestinationError::io(&self.path)(error.error))
    }
}
