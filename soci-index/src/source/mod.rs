//! Where images come from: a registry, an OCI layout directory, an OCI archive, containerd.
//!
//! [`SourceSpec`] is the text a user writes, in skopeo's form; [`ImageSource`] is what the rest of the crate reads
//! through. Whatever a source hands out has been checked against the descriptor it was asked for, so a hostile registry
//! or layout can make a read fail but not give wrong bytes.

mod archive;
mod containerd;
mod error;
mod file;
mod image_source;
mod layout;
mod local_first;
mod remote;
mod spec;
mod standalone;

pub(crate) use archive::Extent;
pub use containerd::ContainerdSource;
pub(crate) use file::FileSlice;
pub use layout::LayoutSource;
pub(crate) use layout::{CONTAINERD_NAME, REF_NAME};
pub use local_first::LocalFirst;
pub use remote::RegistrySource;
pub(crate) use spec::OTHER_TRANSPORTS;
pub use spec::{Selector, SourceSpec};
pub use standalone::StandaloneSource;

pub use error::SourceError;
pub use image_source::{Check, ImageSource};
