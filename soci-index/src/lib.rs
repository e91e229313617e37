//! SOCI indexes: building, storing, pushing and finding them.
//!
//! A SOCI index makes a container image readable before it is downloaded. It is a small manifest beside the image that
//! names a [zTOC](ztoc) for each of its larger layers. This crate
//!
//! * reads images from a registry, an OCI layout, an OCI archive or [`containerd`] ([`source`]) and picks platforms ([`image`]);
//! * builds a zTOC per layer in one streaming pass and an index per platform ([`build`]), in the reference's exact
//!   bytes ([`manifest`], [`canonical_json`]);
//! * keeps what it built in a local [`store`], and pushes it beside the image ([`push`]);
//! * binds images and indexes into one, and writes them wherever images can be ([`convert`], [`destination`]);
//! * finds the index of an image in its registry ([`discover`]), which is what a snapshotter starts with;
//! * pulls images into containerd through a snapshotter ([`pull`]);
//! * makes completions and man pages of command lines ([`manual`]).
//!
//! ```no_run
//! use std::sync::Arc;
//! use soci_index::build::{self, BuildOptions, Silent};
//! use soci_index::image::PlatformChoice;
//! use soci_index::source::{LayoutSource, Selector};
//! use soci_index::store::{self, Store};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let image = Arc::new(LayoutSource::directory("app", Selector::Name("v1".into()))?);
//! let store = Store::open(store::default_root())?;
//! let options = BuildOptions::default();
//! for index in build::create(image, &store, &options, &PlatformChoice::All, Arc::new(Silent)).await? {
//!     assert_eq!(store.index(&index.index.digest).await?, index.manifest);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The program `soci` is [`cli`], which alone prints: builds and pushes report through traits.

#![cfg_attr(
    test,
    expect(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test that meets something unexpected stops there"
    )
)]

pub mod build;
pub mod canonical_json;
pub mod cli;
pub mod containerd;
pub mod convert;
pub mod destination;
pub mod discover;
pub mod document;
pub mod extract;
mod files;
pub mod image;
pub mod manifest;
pub mod manual;
pub mod oci;
pub mod platform;
pub mod prefetch;
pub mod pull;
pub mod push;
pub mod recording;
pub mod registry_args;
pub mod source;
pub mod store;
pub mod text;
pub mod verify;
