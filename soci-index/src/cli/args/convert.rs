//! The flags of `soci convert`.

use crate::registry_args::RegistryArgs;
use clap::{Args, ValueEnum};

use super::build::BuildArgs;
use super::common::PlatformArgs;

/// Convert an image to a SOCI-enabled image
///
/// Builds the index of each platform asked for and binds it into the image: DEST is an image index with the same layers,
/// whose manifests name their SOCI indexes. Such an image is lazy wherever it is copied, and needs nothing beside it in the
/// registry. Layers are not changed; within a registry they are not even moved.
///
/// SRC is
///   REF                       an image in containerd if containerd runs here and has it, else in a registry
///   containerd:NAME           an image in containerd (see --address and --namespace)
///   docker://REF              an image in a registry
///   oci:DIR[:TAG]             an image in an OCI layout
///   oci-archive:FILE[:TAG]    an image in an OCI archive (an uncompressed tar)
/// and DEST any of these. Without a transport it goes where SRC came from.
///
/// The same image and options give the same result, whatever the place. Converting again, or another platform of the
/// image, keeps what is there: only the indexes asked for are replaced.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  In a registry, without containerd, root or disk space:
    soci convert --all-platforms registry.example.com/app:v1 registry.example.com/app:v1-soci

  From one registry to another:
    soci convert docker://docker.io/library/redis:7 docker://registry.example.com/redis:7-soci

  In CI, from what a builder left to a registry:
    soci convert --all-platforms oci-archive:app.tar docker://registry.example.com/app:v1

  In containerd, and push with nerdctl:
    soci convert redis:7 registry.example.com/redis:7-soci
    nerdctl push registry.example.com/redis:7-soci

  Files in, files out, as the reference does it:
    soci convert --standalone --format oci-dir ./app ./app-soci"
)]
pub(crate) struct ConvertArgs {
    /// The image: REF, containerd:NAME, docker://REF, oci:DIR[:TAG], oci-archive:FILE[:TAG]; a path with --standalone
    #[arg(value_name = "SRC")]
    pub(crate) source: String,
    /// What the converted image is to be called: as SRC, with a tag; a path with --standalone
    #[arg(value_name = "DEST")]
    pub(crate) destination: String,
    #[command(flatten)]
    pub(crate) platforms: PlatformArgs,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// SRC and DEST are paths: a directory or uncompressed tar file with an OCI layout, all of which is one image
    #[arg(long)]
    pub(crate) standalone: bool,
    /// What --standalone writes
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "oci-archive", requires = "standalone")]
    pub(crate) format: Format,
    /// Blobs that are moved at the same time
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) max_concurrent_copies: u16,
    /// Print only the digest of the converted image
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// User name and password for SRC's registry, where it is another than DEST's, whose are given by --user
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Registry")]
    pub(crate) source_user: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Values of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// An uncompressed tar file.
    OciArchive,
    /// A directory.
    OciDir,
}
