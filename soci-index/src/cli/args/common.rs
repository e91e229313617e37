//! Arguments that several commands take.

use std::str::FromStr;

use crate::platform::Platform;
use crate::registry_args::RegistryArgs;
use crate::source::{SourceError, SourceSpec};
use clap::{Args, ValueEnum};

/// Which platforms are meant.
#[derive(Debug, Args)]
pub(crate) struct PlatformArgs {
    /// Every platform of the image
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all_platforms: bool,
    /// Platforms as os/arch[/variant], repeated or divided by commas [default: this machine's]
    #[arg(long, short, value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platform: Vec<Platform>,
}

/// How indexes are pushed.
#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// What to do if the registry has an index for the image already
    #[arg(long, value_enum, default_value = "warn")]
    pub(crate) existing_index: Existing,
    /// Blobs that are uploaded at the same time
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_concurrent_uploads: u16,
}

/// Values of `--existing-index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Existing {
    /// Say so and push.
    Warn,
    /// Say so and do not push.
    Skip,
    /// Push without asking.
    Allow,
}

/// An image as the user wrote it.
#[derive(Debug, Clone)]
pub(crate) struct ImageArg {
    /// What it means.
    pub(crate) spec: SourceSpec,
    /// The text, which may be a name in containerd.
    pub(crate) text: String,
}

impl ImageArg {
    /// Whether containerd is asked first: for a reference without a transport.
    pub(crate) fn may_be_in_containerd(&self) -> bool {
        matches!(self.spec, SourceSpec::Registry(_)) && !self.text.starts_with("docker:")
    }
}

impl FromStr for ImageArg {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        Ok(Self { spec: text.parse()?, text: text.to_owned() })
    }
}

/// Push SOCI indexes to the registry that has their image
///
/// The newest index of each platform goes to the repository of REF, from the artifact store or from
/// containerd, wherever it is. The registry has to have the image; the index is found by the digest of its manifest, so that an index that was built
/// from an OCI layout can be pushed to wherever the same image went.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  soci push registry.example.com/app:v1
  soci push --all-platforms --existing-index skip registry.example.com/app:v1
  soci push --user me --password-stdin registry.example.com/app:v1 < password")]
pub(crate) struct PushArgs {
    /// The image in its registry
    #[arg(value_name = "REF")]
    pub(crate) image: SourceSpec,
    #[command(flatten)]
    pub(crate) platforms: PlatformArgs,
    #[command(flatten)]
    pub(crate) upload: UploadArgs,
    /// Print only the digests of the indexes
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true, env = "CONTAINERD_SNAPSHOTTER", hide_env_values = true)]
    pub(crate) snapshotter: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
