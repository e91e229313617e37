//! Mounting an image as one merged, lazily read tree.
//!
//! `image` finds the SOCI index, and `layer_maker` prepares each layer: lazily if it has a zTOC, else by unpacking it
//! beside the mount. `overlay_stack` turns runs of consecutive lazy layers into one tree each, mounted by EROFS or by
//! FUSE, and, where there are unpacked layers too, stacks all of them with overlayfs. `report` says at the end what was
//! fetched of what.
//!
//! A failure of laziness is not a failure of the mount: a layer whose zTOC is missing, broken or false is unpacked, and
//! the report says why.

mod error;
mod image;
mod layer;
mod layer_maker;
mod mounted_image;
mod options;
mod overlay_stack;
mod report;
mod workspace;

pub use error::{MountImageError, WhyNotUnpacked};
pub use mounted_image::MountedImage;
pub use options::Options;
pub use report::{LayerReport, Report};

pub use crate::fronts::Front;
