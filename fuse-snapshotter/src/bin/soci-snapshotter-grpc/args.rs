//! The command line.
//!
//! Doc comments here are help texts, in which brackets are brackets.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fuse_snapshotter::mount::Front;
use registry::Digest;
use soci_index::manual::{CompletionArgs, ManArgs};
use soci_index::platform::Platform;
use soci_index::registry_args::RegistryArgs;
use soci_index::source::SourceSpec;
use tracing::level_filters::LevelFilter;

/// This program.
pub(crate) const NAME: &str = "soci-snapshotter-grpc";

/// The daemon's socket unless the user says otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock";

/// The command that the daemon runs for itself.
pub(crate) const USER_NAMESPACE_COMMAND: &str = "hold-user-namespace";

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

Exit status: 0 success, 1 failure, 2 wrong usage."
)]
pub(crate) struct Cli {
    /// The daemon's socket: a path, unix://PATH, or fd:// for the one that systemd passes
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        default_value = DEFAULT_ADDRESS,
        env = "SOCI_SNAPSHOTTER_ADDRESS",
        hide_env_values = true
    )]
    pub(crate) address: String,
    /// Configuration of the daemon [default: /etc/soci-snapshotter-grpc/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "SOCI_SNAPSHOTTER_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
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
    pub(crate) log_level: Option<LevelFilter>,
    /// Root directory, for the cache and unpacked layers [default: /var/lib/soci-snapshotter-grpc for root, otherwise
    /// soci-snapshotter-grpc in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, global = true, value_name = "DIR", env = "SOCI_SNAPSHOTTER_ROOT", hide_env_values = true)]
    pub(crate) root: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
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
pub(crate) enum Command {
    Mount(Box<MountArgs>),
    /// Show what a running daemon serves: for every image and layer how, why so, and what was fetched of it
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Enter a new user namespace and wait; the daemon runs this for itself
    #[command(hide = true, name = USER_NAMESPACE_COMMAND)]
    HoldUserNamespace,
    /// Show the configuration of the daemon
    #[command(subcommand)]
    Config(ConfigCommand),
    Completion(CompletionArgs),
    Man(ManArgs),
}

/// Values of `--front`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FrontArg {
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

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a configuration with every key, its meaning and its default
    Default,
    /// Print the configuration in effect; what the file says in vain or cannot work is said on standard error
    Dump,
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
pub(crate) struct MountArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: SourceSpec,
    /// The directory to mount it at; it must exist
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Use this SOCI index and no other
    #[arg(long, value_name = "DIGEST")]
    pub(crate) soci_index_digest: Option<Digest>,
    /// Unpack every layer before the mount, to compare
    #[arg(long, conflicts_with_all = ["soci_index_digest", "background"])]
    pub(crate) no_lazy: bool,
    /// Of an image for several platforms, the one to mount, as os/arch[/variant] [default: this machine's]
    #[arg(long, short)]
    pub(crate) platform: Option<Platform>,
    /// Fetch the rest of the image while nobody reads
    #[arg(long)]
    pub(crate) background: bool,
    /// Largest size of the cache, in MiB
    #[arg(long, value_name = "MIB", default_value = "10240")]
    pub(crate) cache_size: u64,
    /// How long a read is tried when the registry does not answer, or fails, before it fails, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "300")]
    pub(crate) fetch_timeout: u64,
    /// Let other users look in, too (needs `user_allow_other` in /etc/fuse.conf unless you are root)
    #[arg(long)]
    pub(crate) allow_other: bool,
    /// What tells the kernel the names and attributes of layers that are read lazily
    #[arg(
        long,
        value_name = "FRONT",
        default_value = "auto",
        env = "SOCI_SNAPSHOTTER_FRONT",
        hide_env_values = true
    )]
    pub(crate) front: FrontArg,
    /// Print JSON: a line when the image is mounted, and a line with the report at the end
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}
