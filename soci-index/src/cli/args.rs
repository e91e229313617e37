//! The command line. Names, short forms and defaults are the reference's (they are an interface: nerdctl and scripts
//! depend on them); what is added is additional.

mod build;
mod common;
mod convert;
mod prefetch;
mod verify;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::containerd;
use crate::manual::{CompletionArgs, ManArgs};
use crate::platform::Platform;
use crate::registry_args::RegistryArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use registry::Digest;

pub(crate) use build::{BuildArgs, read_recording};
pub(crate) use convert::{ConvertArgs, Format};
pub(crate) use prefetch::{PrefetchCommand, PrefetchInfoArgs, PrefetchListArgs, PrefetchRecordArgs};
pub(crate) use verify::VerifyArgs;

use crate::cli::table::parse_go_duration;
pub(crate) use common::{Existing, ImageArg, PlatformArgs, PushArgs, UploadArgs};

/// `--version` prints `soci version v1.0.0 <revision>`; nerdctl parses this form.
const VERSION: &str = concat!("version v", env!("CARGO_PKG_VERSION"), " ", env!("SOCI_REVISION"));

/// Build, push and inspect SOCI indexes.
///
/// A SOCI index lets a container start before its image is downloaded: it names a table of contents with decompressor
/// checkpoints (a zTOC) for each large layer, so that a snapshotter can fetch just the parts that are read.
///
/// `soci create` reads the image from where it is (containerd, a registry, an OCI layout, an OCI archive), needs neither
/// containerd nor root, and keeps no copy of the layers. `soci pull` is for hosts with containerd and a snapshotter.
#[derive(Debug, Parser)]
#[command(
    name = "soci",
    version = VERSION,
    disable_version_flag = true,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_long_help = "\
Examples:
  Index an image in a registry and push the index beside it:
    soci create --push registry.example.com/app:v1

  The same in two steps, for every platform of the image:
    soci create --all-platforms registry.example.com/app:v1
    soci push --all-platforms registry.example.com/app:v1

  Bind image and indexes into one image, which is lazy wherever it is copied:
    soci convert --all-platforms registry.example.com/app:v1 registry.example.com/app:v1-soci

  Index an image in an OCI layout, as skopeo writes it:
    soci create oci:./app:v1

  Pull an image into containerd, lazily where it has an index, and run it:
    soci pull registry.example.com/app:v1
    ctr run --snapshotter soci registry.example.com/app:v1 app

  Check an index against its image, to the byte:
    soci verify registry.example.com/app:v1

  See what there is:
    soci index list
    soci ztoc info sha256:…

Exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) globals: Globals,
}

/// Flags before the command; after it they work too.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// containerd's socket, a path or unix://PATH [default: /run/containerd/containerd.sock]
    #[arg(
        long,
        short,
        global = true,
        value_name = "SOCKET",
        env = "CONTAINERD_ADDRESS",
        hide_env_values = true
    )]
    pub(crate) address: Option<String>,
    /// containerd's namespace. Kubernetes uses k8s.io, Docker moby
    #[arg(
        long,
        short,
        global = true,
        env = "CONTAINERD_NAMESPACE",
        default_value = containerd::DEFAULT_NAMESPACE,
        hide_env_values = true
    )]
    pub(crate) namespace: String,
    /// Give up after this time, such as 90s or 1m30s; 0 for never
    #[arg(long, global = true, value_name = "DURATION", default_value = "0", value_parser = parse_go_duration)]
    pub(crate) timeout: Duration,
    /// Log what is done, to stderr
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Where artifacts are kept: `containerd` keeps those of an image that containerd has in its content store, and others
    /// under --root; `soci` keeps all under --root and leaves containerd alone [default: containerd]
    #[arg(long, global = true, value_name = "STORE", hide_possible_values = true)]
    pub(crate) content_store: Option<ContentStore>,
    /// Root directory of the artifact store and of what is known about artifacts [default: /var/lib/soci-snapshotter-grpc for root, otherwise
    /// soci-snapshotter-grpc in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Print the version
    #[arg(long, short = 'v', action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// Values of `--content-store`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContentStore {
    /// The artifact store under --root, and nothing else.
    Soci,
    /// containerd's content store, for images that containerd has.
    Containerd,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Create(CreateArgs),
    Convert(Box<ConvertArgs>),
    Push(PushArgs),
    Verify(VerifyArgs),
    Pull(PullArgs),
    /// List, show and remove SOCI indexes
    Index {
        #[command(subcommand)]
        command: IndexCommand,
    },
    /// List and show zTOCs, and read files through them
    Ztoc {
        #[command(subcommand)]
        command: ZtocCommand,
    },
    /// Make the list of indexes, zTOCs and prefetch artifacts agree with the content stores
    ///
    /// Forgets what is not in the artifact store (or containerd's) any more, and finds indexes that are there and not
    /// listed: after `ctr image pull` of an image with an index, or when the list was lost. Nothing is deleted.
    ///
    /// containerd is asked in one namespace (--namespace): what only another one has counts as gone, and is found again by
    /// running this there.
    #[command(name = "rebuild-db")]
    RebuildDb,
    /// List and show prefetch artifacts; make them of what was recorded, and publish them
    Prefetch {
        #[command(subcommand)]
        command: PrefetchCommand,
    },
    Completion(CompletionArgs),
    Man(ManArgs),
}

/// Build the SOCI index of an image
///
/// Each platform asked for gets an index, and each layer that is large enough a zTOC, in one pass over its bytes.
///
/// IMAGE is
///   REF                       an image in containerd if containerd runs here and has it, else in a registry
///   containerd:NAME           an image in containerd (see --address and --namespace)
///   docker://REF              an image in a registry
///   oci:DIR[:TAG]             an image in an OCI layout
///   oci-archive:FILE[:TAG]    an image in an OCI archive (an uncompressed tar)
///
/// The indexes of an image in containerd are kept in containerd as well, as long as the image is. A
/// layer that containerd never had, because it was pulled lazily, can only be indexed from the registry.
///
/// A layer that cannot be indexed (damaged, sparse files, an unsupported compression) is left out
/// with a warning; the others are still read lazily. A zTOC that the store has already is used
/// again.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  soci create registry.example.com/app:v1
  soci create --namespace k8s.io containerd:registry.example.com/app:v1
  soci create --push --all-platforms registry.example.com/app:v1
  soci create --min-layer-size 0 --span-size 1048576 oci:./app:v1
  soci create --prefetch-file /usr/bin/app,/etc/app.conf registry.example.com/app:v1
  skopeo copy docker-archive:app.tar oci:./app:v1 && soci create oci:./app:v1
  soci create oci-archive:app.tar --push-to registry.example.com/app"
)]
pub(crate) struct CreateArgs {
    /// The image: REF, containerd:NAME, docker://REF, oci:DIR[:TAG] or oci-archive:FILE[:TAG]
    #[arg(value_name = "IMAGE")]
    pub(crate) image: ImageArg,
    #[command(flatten)]
    pub(crate) platforms: PlatformArgs,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// Push the indexes to the image's repository when they are built
    #[arg(long, help_heading = "Push")]
    pub(crate) push: bool,
    /// Push the indexes to the repository of REF, which has the same image
    #[arg(long, value_name = "REF", help_heading = "Push")]
    pub(crate) push_to: Option<registry::Reference>,
    #[command(flatten, next_help_heading = "Push")]
    pub(crate) upload: UploadArgs,
    /// Print only the digests of the indexes
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Pull an image into containerd through a snapshotter, so that it can be run
///
/// Does what `nerdctl pull` does, for those who have only `ctr`, which does not tell a snapshotter what it needs to know:
/// the soci snapshotter gets the image's name and layers, mounts the layers that have an index lazily, and the others are
/// downloaded. With an ordinary snapshotter (--snapshotter overlayfs) it is an ordinary pull.
///
/// containerd shows the image when all of it is there. What an interrupted pull leaves is collected by containerd, or
/// used by the next pull.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  soci pull registry.example.com/app:v1
  ctr run --rm --tty --snapshotter soci registry.example.com/app:v1 app sh

  soci pull --namespace k8s.io registry.example.com/app:v1
  soci pull --snapshotter overlayfs --platform linux/arm64 redis:7")]
pub(crate) struct PullArgs {
    /// The image in its registry. containerd gets it under its full name (redis is docker.io/library/redis:latest)
    #[arg(value_name = "REF")]
    pub(crate) image: registry::Reference,
    /// containerd's snapshotter that is to hold the layers
    #[arg(
        long,
        value_name = "NAME",
        env = "CONTAINERD_SNAPSHOTTER",
        default_value = "soci",
        hide_env_values = true
    )]
    pub(crate) snapshotter: String,
    /// The SOCI index to use, instead of the one that the snapshotter finds
    #[arg(long, value_name = "DIGEST")]
    pub(crate) soci_index_digest: Option<Digest>,
    /// Platform as os/arch[/variant] [default: this machine's]
    #[arg(long, short, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
    /// Layers that are downloaded at the same time
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) max_concurrent_downloads: u16,
    /// Print only the image's name
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// List the indexes in the store, newest first
    #[command(visible_alias = "ls")]
    List(IndexListArgs),
    /// Print an index manifest
    Info(IndexInfoArgs),
    /// Remove indexes, and zTOCs that no other index uses
    #[command(visible_alias = "rm")]
    Remove(IndexRemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IndexListArgs {
    /// Only indexes of this image
    #[arg(long, value_name = "IMAGE")]
    pub(crate) r#ref: Option<String>,
    /// Only indexes for these platforms
    #[arg(long, short, value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platform: Vec<Platform>,
    /// Print only digests
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IndexInfoArgs {
    /// Digest of the index
    pub(crate) digest: Digest,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false)]
pub(crate) struct IndexRemoveArgs {
    /// Digests of the indexes
    #[arg(group = "which", value_name = "DIGEST")]
    pub(crate) digests: Vec<Digest>,
    /// All indexes of this image
    #[arg(long, value_name = "IMAGE", group = "which")]
    pub(crate) r#ref: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ZtocCommand {
    /// List the zTOCs in the store
    #[command(visible_alias = "ls")]
    List(ZtocListArgs),
    Build(ZtocBuildArgs),
    /// Print what a zTOC says, as JSON
    Info(ZtocInfoArgs),
    GetFile(Box<GetFileArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct ZtocListArgs {
    /// Only this zTOC
    #[arg(long, value_name = "DIGEST")]
    pub(crate) ztoc_digest: Option<Digest>,
    /// Only zTOCs of this image
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image_ref: Option<String>,
    /// Print only digests
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ZtocInfoArgs {
    /// Digest of a zTOC in the store (sha256:…), or a file with one
    #[arg(value_name = "DIGEST|FILE")]
    pub(crate) ztoc: ZtocArg,
}

/// A zTOC as the user names it.
#[derive(Debug, Clone)]
pub(crate) enum ZtocArg {
    /// One in the store.
    Stored(Digest),
    /// A file.
    File(PathBuf),
}

impl FromStr for ZtocArg {
    type Err = String;

    /// What begins like a digest is one, and an error if it is malformed: a file of such a name is `./sha256:…`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("sha256:") {
            return text.parse().map(Self::Stored).map_err(|error| format!("{error}"));
        }
        Ok(Self::File(text.into()))
    }
}

/// Build the zTOC of a layer that is a file, without an image
///
/// The layer is a tar archive, uncompressed or compressed with gzip or Zstandard, which its first bytes tell. Without --output the zTOC
/// goes to the artifact store. Prints the digest of the zTOC.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  soci ztoc build layer.tar.gz
  soci ztoc build --span-size 1048576 --output layer.ztoc layer.tar.gz
  tar -c usr | gzip | soci ztoc build -o usr.ztoc -")]
pub(crate) struct ZtocBuildArgs {
    /// The layer; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) layer: PathBuf,
    /// Uncompressed bytes between checkpoints
    #[arg(long, value_name = "BYTES", default_value = "4194304", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    pub(crate) span_size: u64,
    /// Write the zTOC to this file (mode 0644) instead of the store
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Read one file of a layer, fetching only the spans it lies in
///
/// The layer's bytes come from the image that the zTOC was built for, from --image, or from a
/// file with --layer; links within the layer are followed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  soci ztoc get-file sha256:… etc/os-release
  soci ztoc get-file -o python3 --image registry.example.com/app:v1 sha256:… usr/bin/python3.13
  soci ztoc get-file --layer layer.tar.gz layer.ztoc etc/os-release")]
pub(crate) struct GetFileArgs {
    /// Digest of a zTOC in the store (sha256:…), or a file with one
    #[arg(value_name = "DIGEST|FILE")]
    pub(crate) ztoc: ZtocArg,
    /// Name of the file in the layer
    pub(crate) file: String,
    /// Write to this file (mode 0644) instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Read the layer from this image [default: the image given to `soci create`]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<ImageArg>,
    /// Read the layer from this file
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    pub(crate) layer: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
