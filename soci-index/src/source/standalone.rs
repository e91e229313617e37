//! A layout that is one image as a whole, as `soci convert --standalone` takes it.
//!
//! Tools write multi-platform images into layouts in two ways: as one entry of `index.json` that leads to an image index,
//! or with `index.json` itself as the list of platforms. Either may list platforms that are not in the layout. Which
//! document counts as the image is the reference's rule, so that the converted image is the same.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use registry::{BlobReader, ByteStream, Descriptor};

use super::error::SourceError;
use super::image_source::{Check, ImageSource};
use super::layout::LayoutSource;
use super::spec::Selector;
use crate::oci::{self, IMAGE_INDEX, ImageIndex};

/// The image that a layout is.
#[derive(Debug)]
pub struct StandaloneSource {
    layout: LayoutSource,
    root: Descriptor,
    /// The list of what is in the layout, where the layout has no such document.
    list: Option<Bytes>,
}

impl StandaloneSource {
    /// The layout in the directory or uncompressed tar file `path`.
    ///
    /// # Errors
    /// When there is no layout, or no image in it.
    pub async fn open(path: &Path) -> Result<Self, SourceError> {
        let layout = if path.is_dir() {
            LayoutSource::directory(path, Selector::Only)?
        } else {
            LayoutSource::archive(path, Selector::Only)?
        };
        let top = layout.index()?;
        let only = (top.manifests.len() == 1).then(|| top.manifests.first().cloned()).flatten();
        if let Some(only) = only.as_ref().filter(|only| !oci::is_index(only)) {
            return Ok(Self { root: only.clone(), list: None, layout });
        }
        let list = match &only {
            None => top,
            Some(only) => {
                let json = layout.manifest(only).await?;
                ImageIndex::parse(&json).map_err(|error| SourceError::document(only, error))?
            }
        };
        let all = list.manifests.len();
        let present: Vec<Descriptor> =
            list.manifests.iter().filter(|entry| layout.has(&entry.digest)).cloned().collect();
        let (root, list) = match (&present[..], only) {
            ([], _) => {
                let reason = "none of the images that index.json leads to is in the layout".to_owned();
                return Err(SourceError::Layout { path: path.to_owned(), reason });
            }
            ([image], _) if oci::is_manifest(image) => (image.clone(), None),
            (present, Some(only)) if present.len() == all => (only, None),
            _ => {
                let json = Bytes::from(ImageIndex { manifests: present, ..list }.encode());
                (Descriptor::of(IMAGE_INDEX, &json), Some(json))
            }
        };
        Ok(Self { layout, root, list })
    }
}

#[async_trait]
impl ImageSource for StandaloneSource {
    fn name(&self) -> String {
        self.layout.name()
    }

    async fn root(&self) -> Result<Descriptor, SourceError> {
        Ok(self.root.clone())
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
        match &self.list {
            Some(list) if descriptor.digest == self.root.digest => Ok(list.clone()),
            _ => self.layout.manifest(descriptor).await,
        }
    }

    async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, SourceError> {
        self.layout.small_blob(descriptor, limit).await
    }

    async fn open_blob(&self, descriptor: &Descriptor, check: Check) -> Result<ByteStream, SourceError> {
        self.layout.open_blob(descriptor, check).await
    }

    async fn blob_reader(&self, descriptor: &Descriptor) -> Result<Arc<dyn BlobReader>, SourceError> {
        self.layout.blob_reader(descriptor).await
    }
}
