//! Flags of `soci prefetch`.

use std::path::PathBuf;

use crate::platform::Platform;
use crate::registry_args::RegistryArgs;
use clap::{Args, Subcommand};
use registry::Digest;

use super::common::{ImageArg, PushArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum PrefetchCommand {
    /// List the prefetch artifacts in the store
    #[command(visible_alias = "ls")]
    List(PrefetchListArgs),
    /// Show which spans a prefetch artifact names
    Info(PrefetchInfoArgs),
    Record(PrefetchRecordArgs),
    /// Push the newest index of an image that names prefetch artifacts, beside the image
    ///
    /// Does what `soci push` does, and fails if the store has no such index. A node that pulls the image then takes this
    /// index: of those that cover as many layers, the latest recording wins. awslabs/soci-snapshotter takes the first index
    /// that the registry lists, so for it the older ones have to be deleted there.
    #[command(after_long_help = "\
Examples:
  soci prefetch record registry.example.com/app:v1
  soci prefetch push registry.example.com/app:v1")]
    Push(PushArgs),
}

/// Make prefetch artifacts of what the snapshotter recorded when the image started here
///
/// The snapshotter records what the first container of an image reads, until it has read nothing new for some seconds. Of
/// that recording come a prefetch artifact for each layer, in the order of reading, and an index that names them beside
/// the zTOCs of the index that the image has. Both go to the artifact store; `soci prefetch push` publishes them.
///
/// The recording is a file, ROOT/recordings/DIGEST.json, in the root directory of the snapshotter (`soci-snapshotter-grpc
/// status` shows whether there is one).
///
/// An image that `soci convert` made names its index by digest, so it has to be converted again: with
/// `soci convert --prefetch-recording FILE`, which this command tells.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Run the image once, and publish what it reads:
    soci pull registry.example.com/app:v1
    ctr run --rm --snapshotter soci registry.example.com/app:v1 app
    soci prefetch record registry.example.com/app:v1
    soci prefetch push registry.example.com/app:v1")]
pub(crate) struct PrefetchRecordArgs {
    /// The image: REF or containerd:NAME
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageArg,
    /// Platform as os/arch[/variant] [default: this machine's]
    #[arg(long, short, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
    /// Root directory of the snapshotter that has run the image, if it is not --root
    #[arg(long, value_name = "DIR")]
    pub(crate) snapshotter_root: Option<PathBuf>,
    /// Print only the digest of the index
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PrefetchListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PrefetchInfoArgs {
    /// Digest of the prefetch artifact
    pub(crate) digest: Digest,
    /// Print the artifact's JSON as well
    #[arg(long)]
    pub(crate) json: bool,
}
