//! Names of images.

use std::collections::HashMap;

use containerd_api::services::images::v1 as api;
use containerd_api::services::images::v1::images_client::ImagesClient;
use prost_types::FieldMask;
use registry::{Descriptor, Reference};

use super::labels::Labels;
use super::{Containerd, ContainerdError, PATIENCE, call, found};

/// An image as containerd records it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name, mostly a full reference.
    pub name: String,
    /// The manifest or image index that the name stands for.
    pub target: Descriptor,
    /// Labels.
    pub labels: Labels,
}

impl TryFrom<api::Image> for Image {
    type Error = ContainerdError;

    fn try_from(image: api::Image) -> Result<Self, ContainerdError> {
        let invalid = || {
            let name = crate::text::excerpt(&image.name);
            ContainerdError::Invalid(format!("containerd's record of image {name} has no usable target"))
        };
        let target = image.target.as_ref().ok_or_else(invalid)?;
        let digest = target.digest.parse().map_err(|_| invalid())?;
        let size = u64::try_from(target.size).map_err(|_| invalid())?;
        let target = Descriptor::new(target.media_type.clone(), digest, size);
        Ok(Self { name: image.name, target, labels: image.labels })
    }
}

impl Containerd {
    /// The image with exactly this name.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn image(&self, name: &str) -> Result<Option<Image>, ContainerdError> {
        let request = self.request(api::GetImageRequest { name: name.to_owned() });
        let answer =
            call("get an image", Some(PATIENCE), ImagesClient::new(self.channel()).get(request)).await;
        let image = found(answer)?.and_then(|answer| answer.image);
        image.map(Image::try_from).transpose()
    }

    /// The image that a user means by `name`: the one with that name, or with its full form (`redis` is
    /// `docker.io/library/redis:latest`).
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn find_image(&self, name: &str) -> Result<Option<Image>, ContainerdError> {
        let full = name.parse::<Reference>().ok().map(|reference| reference.to_string());
        if let Some(image) = self.image(name).await? {
            return Ok(Some(image));
        }
        match full {
            Some(full) if full != name => self.image(&full).await,
            _ => Ok(None),
        }
    }

    /// Makes `name` stand for `target`. Labels that the name has stay.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn put_image(&self, name: &str, target: &Descriptor) -> Result<(), ContainerdError> {
        let image = api::Image {
            name: name.to_owned(),
            labels: HashMap::new(),
            target: Some(containerd_api::types::Descriptor {
                media_type: target.media_type.clone(),
                digest: target.digest.to_string(),
                size: i64::try_from(target.size).unwrap_or(i64::MAX),
                annotations: HashMap::new(),
            }),
            created_at: None,
            updated_at: None,
        };
        let create = self.request(api::CreateImageRequest { image: Some(image.clone()) });
        let mut client = ImagesClient::new(self.channel());
        match call("create an image", Some(PATIENCE), client.create(create)).await {
            Err(error) if error.already_exists() => {}
            other => return other.map(|_| ()),
        }
        self.update_image(image, vec!["target".to_owned()]).await
    }

    /// Sets labels of an image; an empty value removes one. Others stay.
    ///
    /// # Errors
    /// When the image is not there, or containerd refuses or does not answer.
    pub async fn label_image(&self, name: &str, labels: Labels) -> Result<(), ContainerdError> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let image = api::Image { name: name.to_owned(), labels, ..api::Image::default() };
        self.update_image(image, paths).await
    }

    async fn update_image(&self, image: api::Image, paths: Vec<String>) -> Result<(), ContainerdError> {
        let request = api::UpdateImageRequest { image: Some(image), update_mask: Some(FieldMask { paths }) };
        let mut client = ImagesClient::new(self.channel());
        call("update an image", Some(PATIENCE), client.update(self.request(request))).await?;
        Ok(())
    }

    /// All images of the namespace; those that cannot be understood are left out.
    ///
    /// # Errors
    /// When containerd refuses or does not answer.
    pub async fn images(&self) -> Result<Vec<Image>, ContainerdError> {
        let request = self.request(api::ListImagesRequest { filters: Vec::new() });
        let mut client = ImagesClient::new(self.channel()).max_decoding_message_size(super::MAX_MESSAGE);
        let answer = call("list images", Some(PATIENCE), client.list(request)).await?;
        Ok(answer.images.into_iter().filter_map(|image| Image::try_from(image).ok()).collect())
    }
}
