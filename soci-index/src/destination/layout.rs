//! OCI image layouts in a directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use registry::{Descriptor, Digest};
use tokio::io::AsyncWriteExt;

use super::copy::ImageDestination;
use super::error::DestinationError;
use super::progress::{Copied, CopyEvent, CopyProgress};
use super::shipment::{Part, Shipment};
use super::shipment::{concurrently, reported};
use crate::files::{self, OCI_LAYOUT};
use crate::oci::{ImageIndex, MAX_MANIFEST_SIZE};
use crate::source::{CONTAINERD_NAME, REF_NAME};

/// How the names of files begin that are being written.
const UNFINISHED: &str = ".soci-";

/// How an image is listed in `index.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// Under this name, in place of what had it.
    Named(String),
    /// Without a name, in place of what has none.
    Unnamed,
    /// As the only image of the layout.
    Only,
}

impl Listing {
    /// The entry of `index.json` for an image.
    pub(super) fn entry(&self, root: &Descriptor) -> Descriptor {
        let mut entry = root.clone();
        if let Self::Named(name) = self {
            entry.annotations.insert(REF_NAME.to_owned(), name.clone());
        }
        entry
    }

    /// Puts the entry into an index.
    fn list(&self, index: &mut ImageIndex, root: &Descriptor) {
        let entry = self.entry(root);
        let replaced = |other: &Descriptor| {
            // By either name, as images are found by either.
            let mut names =
                [REF_NAME, CONTAINERD_NAME].into_iter().filter_map(|key| other.annotations.get(key));
            match self {
                Self::Named(name) => names.any(|other| other == name),
                Self::Unnamed => names.next().is_none(),
                Self::Only => true,
            }
        };
        let at = index.manifests.iter().position(replaced).unwrap_or(index.manifests.len());
        index.manifests.retain(|other| !replaced(other));
        index.manifests.insert(at.min(index.manifests.len()), entry);
    }
}

/// A layout in a directory, which is made if it is not there.
#[derive(Debug)]
pub struct LayoutDestination {
    path: PathBuf,
    listing: Listing,
    concurrent: usize,
}

impl LayoutDestination {
    /// The layout at `path`, written to with so many blobs at a time. Nothing is touched yet.
    ///
    /// # Errors
    /// When there is something that is no layout.
    pub fn new(
        path: impl Into<PathBuf>,
        listing: Listing,
        concurrent: usize,
    ) -> Result<Self, DestinationError> {
        let path = path.into();
        let is_empty = || fs::read_dir(&path).map(|mut entries| entries.next().is_none());
        let fits = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(DestinationError::io(path)(error)),
            Ok(metadata) if metadata.is_dir() => {
                path.join("oci-layout").is_file() || is_empty().map_err(DestinationError::io(&path))?
            }
            Ok(_) => false,
        };
        if !fits {
            let reason = "neither an OCI layout nor an empty directory, so it is left as it is".to_owned();
            return Err(DestinationError::Layout { path, reason });
        }
        Ok(Self { path, listing, concurrent: concurrent.max(1) })
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    fn prepare(&self) -> Result<(), DestinationError> {
        // The marker first: without it the next run would take what this one leaves for something of the user's.
        fs::create_dir_all(&self.path).map_err(DestinationError::io(&self.path))?;
        let marker = self.path.join("oci-layout");
        if !marker.exists() {
            publish(&marker, OCI_LAYOUT)?;
        }
        let blobs = self.path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(DestinationError::io(&blobs))?;
        files::remove_abandoned(&blobs, UNFINISHED);
        Ok(())
    }

    async fn blob(
        &self,
        shipment: &Shipment,
        part: &Part,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError> {
        let (blob, path) = (&part.blob, self.blob_path(&part.blob.digest));
        if holds(&path, blob).await {
            progress.blob(blob, CopyEvent::Done(Copied::There));
            return Ok(());
        }
        progress.blob(blob, CopyEvent::Started);
        let bytes = shipment.open(part).await?;
        let (file, temporary) = temporary(&path)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let mut bytes = reported(bytes, blob, progress);
        while let Some(piece) = bytes.try_next().await? {
            file.write_all(&piece).await.map_err(DestinationError::io(&path))?;
        }
        file.sync_all().await.map_err(DestinationError::io(&path))?;
        temporary.persist(&path).map_err(|error| DestinationError::io(&path)(error.error))?;
        progress.blob(blob, CopyEvent::Done(Copied::Moved));
        Ok(())
    }

    /// Lists the image. Two that write to one layout wait for each other.
    fn list(&self, root: &Descriptor) -> Result<(), DestinationError> {
        let directory = File::open(&self.path).map_err(DestinationError::io(&self.path))?;
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| DestinationError::io(&self.path)(error.into()))?;
        let path = self.path.join("index.json");
        let mut index = read_index(&path)?;
        self.listing.list(&mut index, root);
        publish(&path, &index.encode())
    }
}

fn read_index(path: &Path) -> Result<ImageIndex, DestinationError> {
    let bad = |reason: String| DestinationError::Layout { path: path.to_owned(), reason };
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ImageIndex::default()),
        other => other.map_err(DestinationError::io(path))?.len(),
    };
    if size > MAX_MANIFEST_SIZE {
        return Err(bad(format!("it has {size} bytes, more than the {MAX_MANIFEST_SIZE} allowed")));
    }
    let json = fs::read(path).map_err(DestinationError::io(path))?;
    ImageIndex::parse(&json).map_err(|error| bad(error.to_string()))
}

/// Whether the file is there with the right bytes.
async fn holds(path: &Path, blob: &Descriptor) -> bool {
    let (path, blob) = (path.to_owned(), blob.clone());
    let check = move || -> io::Result<bool> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() != blob.size {
            return Ok(false);
        }
        Ok(files::digest_of(&mut file)? == blob.digest)
    };
    matches!(tokio::task::spawn_blocking(check).await, Ok(Ok(true)))
}

/// A new file beside `path`, which goes away unless it is given that name.
pub(super) fn temporary(path: &Path) -> Result<tempfile::NamedTempFile, DestinationError> {
    use std::os::unix::fs::PermissionsExt;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(UNFINISHED)
        // What the umask leaves of it, as for any file that a user makes.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(parent)
        .map_err(DestinationError::io(path))
}

/// Writes a file that is there completely, after a crash too, or not at all.
fn publish(path: &Path, bytes: &[u8]) -> Result<(), DestinationError> {
    let mut file = temporary(path)?;
    let written = file.write_all(bytes).and_then(|()| file.as_file().sync_all());
    written.map_err(DestinationError::io(path))?;
    file.persist(path).map_err(|error| DestinationError::io(path)(error.error))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(DestinationError::io(directory))
}

#[async_trait]
impl ImageDestination for LayoutDestination {
    fn name(&self) -> String {
        match &self.listing {
            Listing::Named(name) => format!("oci:{}:{name}", self.path.display()),
            Listing::Unnamed | Listing::Only => format!("oci:{}", self.path.display()),
        }
    }

    async fn write(
        &self,
        shipment: &Shipment,
        progress: &Arc<dyn CopyProgress>,
    ) -> Result<(), DestinationError> {
        self.prepare()?;
        let blobs = shipment.parts.iter().map(|part| self.blob(shipment, part, progress)).collect();
        concurrently(self.concurrent, blobs).await?;
        for document in shipment.documents.iter().chain([&shipment.root]) {
            let path = self.blob_path(&document.descriptor.digest);
            if !holds(&path, &document.descriptor).await {
                publish(&path, &document.bytes)?;
            }
        }
        let blobs = self.path.join("blobs/sha256");
        let synced = File::open(&blobs).and_then(|directory| directory.sync_all());
        synced.map_err(DestinationError::io(&blobs))?;
        self.list(&shipment.root.descriptor)
    }
}
