//! Names of images.

use containerd_api::services::images::v1 as api;
use containerd_api::services::images::v1::images_client::ImagesClient;
use prost_types::FieldMask;
use registry::{Descriptor, Reference};

use super::connection::{Containerd, PATIENCE, call, found, message_of};
use super::error::ContainerdError;
use super::labels::Labels;

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
        let annotations = target.annotations.clone().into_iter().collect();
        let target = Descriptor { annotations, ..Descriptor::new(target.media_type.clone(), digest, size) };
        Ok(Self { name: image.name, target, labels: image.labels })
    }
}

/// The message for an image. It always has a target, whatever the update mask names: containerd follows
/// the pointer without looking, and the whole daemon ends if there is none.
fn record(name: &str, target: &Descriptor, labels: Labels) -> api::Image {
    api::Image {
        name: name.to_owned(),
        labels,
        target: Some(message_of(target)),
        created_at: None,
        updated_at: None,
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
        let image = record(name, target, Labels::new());
        let create = self.request(api::CreateImageRequest { image: Some(image.clone()) });
        let mut client = ImagesClient::new(self.channel());
        match call("create an image", Some(PATIENCE), client.create(create)).await {
            Err(error) if error.already_exists() => {}
            other => return other.map(|_| ()),
        }
        self.update_image(image, vec!["target".to_owned()]).await
    }

    /// Sets labels of `image`; an empty value removes one. Other labels stay, and so does the target, also one that the
    /// name was given in the meantime.
    ///
    /// # Errors
    /// When the image is not there, or containerd refuses or does not answer.
    pub async fn label_image(&self, image: &Image, labels: Labels) -> Result<(), ContainerdError> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        self.update_image(record(&image.name, &image.target, labels), paths).await
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
        let mut client =
            ImagesClient::new(self.channel()).max_decoding_message_size(super::connection::MAX_MESSAGE);
        let answer = call("list images", Some(PATIENCE), client.list(request)).await?;
        Ok(answer.images.into_iter().filter_map(|image| Image::try_from(image).ok()).collect())
    }
}
