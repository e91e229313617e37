//! The flags of `soci verify`.

use crate::build::DEFAULT_MEMORY;
use crate::registry_args::RegistryArgs;
use clap::Args;
use registry::Digest;

use super::common::{ImageArg, PlatformArgs};

/// Check the SOCI index of an image against the image, to the byte
///
/// The index is the one that a snapshotter would use (named by the image, or among its referrers), else the one in the
/// artifact store. Each layer is streamed once and its zTOC built again: it is right if that gives the same bytes. A zTOC with
/// other bytes, which another tool made, is compared entry by entry and span by span instead.
///
/// Layers without a zTOC are listed and are no fault. Exit status 1 if something is wrong, or there is no index.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  soci verify registry.example.com/app:v1
  soci verify --all-platforms --json oci:./app:v1
  soci verify --index sha256:… registry.example.com/app:v1")]
pub(crate) struct VerifyArgs {
    /// The image: REF, containerd:NAME, docker://REF, oci:DIR[:TAG] or oci-archive:FILE[:TAG]
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageArg,
    #[command(flatten)]
    pub(crate) platforms: PlatformArgs,
    /// Check this index, of a single platform
    #[arg(long, value_name = "DIGEST", conflicts_with = "all_platforms")]
    pub(crate) index: Option<Digest>,
    /// Memory that the layers in work may take together; one that needs more than all of it is checked alone
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MEMORY)]
    pub(crate) max_memory: u64,
    /// Print nothing but what is wrong
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
