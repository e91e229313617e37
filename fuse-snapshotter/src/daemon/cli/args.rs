//! The command line.
//!
//! Doc comments here are help texts, in which brackets are brackets and no links.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use registry::{Digest, Reference};
use soci_index::manual::{CompletionArgs, ManArgs};
use soci_index::platform::Platform;
use soci_index::registry_args::RegistryArgs;
use soci_index::source::SourceSpec;
use tracing::level_filters::LevelFilter;

use crate::daemon::node::ContainerdVersion;
use crate::mount::Front;

/// This program.
pub(super) const NAME: &str = "soci-snapshotter-grpc";

/// The daemon's socket unless the user says otherwise.
pub(super) const DEFAULT_ADDRESS: &str = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock";

/// The path of the daemon's socket, for commands that ask a running daemon.
pub(super) fn socket(address: &str) -> PathBuf {
    match address.strip_prefix("fd://") {
        Some(_) => PathBuf::from(DEFAULT_ADDRESS),
        None => PathBuf::from(address.strip_prefix("unix://").unwrap_or(address)),
    }
}

/// The command that the daemon runs for itself.
pub(super) const USER_NAMESPACE_COMMAND: &str = "hold-user-namespace";

/// Lazily loaded container images: files are fetched from the registry when they are read.
///
/// Without a command it is the daemon: containerd's snapshotter on a socket.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    after_long_help = "\
Examples:
  Write a configuration to start from, and look at what is in effect:
    soci-snapshotter-grpc config default > /etc/soci-snapshotter-grpc/config.toml
    soci-snapshotter-grpc config dump

  Mount an image, look around, and unmount it with Ctrl-C:
    soci-snapshotter-grpc mount registry.example.com/app:v1 /mnt
    chroot /mnt /bin/sh

  Configure containerd, and see whether the node is well and an image will be lazy:
    soci-snapshotter-grpc config containerd
    soci-snapshotter-grpc doctor registry.example.com/app:v1

Exit status: 0 success, 1 failure, 2 wrong usage."
)]
pub(super) struct Cli {
    /// The daemon's socket: a path, unix://PATH, or fd:// for the one that systemd passes
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        default_value = DEFAULT_ADDRESS,
        env = "SOCI_SNAPSHOTTER_ADDRESS",
        hide_env_values = true
    )]
    pub(super) address: String,
    /// Configuration of the daemon [default: /etc/soci-snapshotter-grpc/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "SOCI_SNAPSHOTTER_CONFIG", hide_env_values = true)]
    pub(super) config: Option<PathBuf>,
    /// What is logged to standard error: error, warn, info, debug or trace [default: info for the daemon, warn for
    /// commands]
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        value_parser = log_level,
        env = "SOCI_SNAPSHOTTER_LOG_LEVEL",
        hide_env_values = true
    )]
    pub(super) log_level: Option<LevelFilter>,
    /// Root directory, for the cache and unpacked layers [default: /var/lib/soci-snapshotter-grpc for root, otherwise
    /// soci-snapshotter-grpc in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, global = true, value_name = "DIR", env = "SOCI_SNAPSHOTTER_ROOT", hide_env_values = true)]
    pub(super) root: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// Names of levels as in the reference, which has `warning`, `fatal` and `panic` too.
fn log_level(name: &str) -> Result<LevelFilter, String> {
    match name.to_ascii_lowercase().as_str() {
        "error" | "fatal" | "panic" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("expected error, warn, info, debug or trace".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Mount(Box<MountArgs>),
    /// Show what a running daemon serves: for every image and layer how, why so, and what was fetched of it
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Doctor(DoctorArgs),
    /// Enter a new user namespace and wait; the daemon runs this for itself
    #[command(hide = true, name = USER_NAMESPACE_COMMAND)]
    HoldUserNamespace,
    /// Show the configuration of the daemon, or write one for containerd
    #[command(subcommand)]
    Config(ConfigCommand),
    Completion(CompletionArgs),
    Man(ManArgs),
}

/// Values of `--front`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum FrontArg {
    /// erofs where that is possible, else fuse
    Auto,
    /// An EROFS image that the kernel reads by itself; needs root and Linux 6.12
    Erofs,
    /// This program, through FUSE
    Fuse,
}

impl From<FrontArg> for Front {
    fn from(front: FrontArg) -> Self {
        match front {
            FrontArg::Auto => Self::Auto,
            FrontArg::Erofs => Self::Erofs,
            FrontArg::Fuse => Self::Fuse,
        }
    }
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a configuration with every key, its meaning and its default
    Default,
    /// Print the configuration in effect; what the file says in vain or cannot work is said on standard error
    Dump,
    Containerd(ContainerdConfigArgs),
}

/// Print a configuration of containerd that works with the snapshotter
///
/// Prints one complete configuration for the containerd that runs here, or for --version, that works for every client:
/// nerdctl, ctr, `soci pull` and Kubernetes (CRI). Which version it is for is said on standard error. --address and --root
/// are written into it, so give those that the daemon has.
///
/// From containerd 2.0 on the output can be a file of its own, which /etc/containerd/config.toml imports. For containerd
/// 1.x put its tables into /etc/containerd/config.toml. The comments in the output say how and why.
#[derive(Debug, Clone, Args)]
#[command(
    disable_version_flag = true,
    after_long_help = "\
Examples:
  soci-snapshotter-grpc config containerd
  soci-snapshotter-grpc config containerd --version 1.7
  soci-snapshotter-grpc --root /mnt/fast/soci config containerd > /etc/containerd/conf.d/soci.toml"
)]
pub(super) struct ContainerdConfigArgs {
    /// Version of containerd, such as 1.7 or 2.3.7 [default: that of the one that runs here, else of the program
    /// containerd]
    #[arg(long = "version", value_name = "VERSION")]
    pub(super) containerd_version: Option<ContainerdVersion>,
    /// Version of the configuration file: from containerd 2.3 on it may be 3 or 4 [default: the highest that this
    /// containerd reads]
    #[arg(long, value_name = "N")]
    pub(super) config_version: Option<i64>,
    #[command(flatten)]
    pub(super) containerd: ContainerdArgs,
}

/// Where containerd is.
#[derive(Debug, Clone, Args)]
pub(super) struct ContainerdArgs {
    /// containerd's socket [default: content_store.containerd_address of the configuration, which is
    /// /run/containerd/containerd.sock unless it says otherwise]
    #[arg(long, value_name = "SOCKET")]
    pub(super) containerd_address: Option<PathBuf>,
}

/// Look at this node, and say what will not be lazy, why, and what to do
///
/// Looks at the daemon and its configuration, the root directory, the kernel, containerd with its configuration, and at
/// the registries of the images named. The first line is the worst that was found. Nothing is changed. Run it as root:
/// other users may see neither containerd's socket nor the daemon's.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  soci-snapshotter-grpc doctor
  soci-snapshotter-grpc doctor registry.example.com/app:v1
  soci-snapshotter-grpc doctor --json | jq -r .worst.message

Exit status: 0 all is well, 1 something was found, 2 wrong usage.")]
pub(super) struct DoctorArgs {
    /// Images to look for in their registries: reachable, with the daemon's logins, in ranges, with an index?
    #[arg(value_name = "IMAGE")]
    pub(super) images: Vec<Reference>,
    #[command(flatten)]
    pub(super) containerd: ContainerdArgs,
    /// containerd's configuration [default: the file that the running containerd was started with, else
    /// /etc/containerd/config.toml]
    #[arg(long, value_name = "FILE")]
    pub(super) containerd_config: Option<PathBuf>,
    /// Version of containerd to assume instead of asking; one that does not run is no fault then
    #[arg(long, value_name = "VERSION")]
    pub(super) containerd_version: Option<ContainerdVersion>,
    /// The name under which containerd has the snapshotter
    #[arg(long, value_name = "NAME", default_value = "soci")]
    pub(super) snapshotter: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Mount an image as one read-only tree, read lazily
///
/// Mounts the image as one merged, read-only tree and serves it until it is interrupted (Ctrl-C, SIGTERM) or unmounted.
///
/// Layers that the image's SOCI index covers are read lazily: only what is read is fetched. The others are fetched and
/// unpacked before the mount (as root; for other users they are fetched and served from a local copy). What was fetched
/// of what is printed at the end.
///
/// IMAGE is
///   REF or docker://REF       an image in a registry
///   oci:DIR[:TAG]             an image in an OCI layout
///   oci-archive:FILE[:TAG]    an image in an OCI archive
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  soci-snapshotter-grpc mount registry.example.com/app:v1 /mnt
  soci-snapshotter-grpc mount --background localhost:5000/app /mnt
  soci-snapshotter-grpc mount --soci-index-digest sha256:… registry.example.com/app:v1 /mnt"
)]
pub(super) struct MountArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(super) image: SourceSpec,
    /// The directory to mount it at; it must exist
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,
    /// Use this SOCI index and no other
    #[arg(long, value_name = "DIGEST")]
    pub(super) soci_index_digest: Option<Digest>,
    /// Unpack every layer before the mount, to compare
    #[arg(long, conflicts_with_all = ["soci_index_digest", "background"])]
    pub(super) no_lazy: bool,
    /// Of an image for several platforms, the one to mount, as os/arch[/variant] [default: this machine's]
    #[arg(long, short)]
    pub(super) platform: Option<Platform>,
    /// Fetch the rest of the image while nobody reads
    #[arg(long)]
    pub(super) background: bool,
    /// Largest size of the cache, in MiB
    #[arg(long, value_name = "MIB", default_value = "10240")]
    pub(super) cache_size: u64,
    /// How long a read is tried when the registry does not answer, or fails, before it fails, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    pub(super) fetch_timeout: u64,
    /// Let other users look in, too (needs `user_allow_other` in /etc/fuse.conf unless you are root)
    #[arg(long)]
    pub(super) allow_other: bool,
    /// What tells the kernel the names and attributes of layers that are read lazily
    #[arg(
        long,
        value_name = "FRONT",
        default_value = "auto",
        env = "SOCI_SNAPSHOTTER_FRONT",
        hide_env_values = true
    )]
    pub(super) front: FrontArg,
    /// Print JSON: a line when the image is mounted, and a line with the report at the end
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) registry: RegistryArgs,
}
