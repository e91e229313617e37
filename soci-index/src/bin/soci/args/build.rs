//! Flags about how an index is built, the same for every command that builds some.

use clap::{Args, ValueEnum};
use soci_index::build::BuildOptions;

/// Values of `--optimizations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Optimization {
    /// Mark layers without extended attributes.
    Xattr,
}

/// How indexes are built.
#[derive(Debug, Args)]
#[command(next_help_heading = "Build")]
pub(crate) struct BuildArgs {
    /// Uncompressed bytes between checkpoints. Smaller spans mean smaller reads and larger zTOCs (32 KiB a span)
    #[arg(long, value_name = "BYTES", default_value = "4194304", value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    pub(crate) span_size: u64,
    /// Smallest compressed layer that gets a zTOC
    #[arg(long, value_name = "BYTES", default_value = "10485760", value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    pub(crate) min_layer_size: u64,
    /// Optimizations to apply
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) optimizations: Vec<Optimization>,
    /// Build zTOCs again that the store has already
    #[arg(long, short)]
    pub(crate) force: bool,
}

impl BuildArgs {
    /// What the library is to build with.
    ///
    /// # Errors
    /// When a file that a flag names cannot be read.
    pub(crate) fn options(&self) -> anyhow::Result<BuildOptions> {
        Ok(BuildOptions {
            span_size: self.span_size,
            min_layer_size: self.min_layer_size,
            force: self.force,
            optimize_xattrs: self.optimizations.contains(&Optimization::Xattr),
            ..BuildOptions::default()
        })
    }
}
