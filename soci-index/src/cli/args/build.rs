//! Flags about how an index is built, the same for every command that builds some.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::build::{BuildOptions, DEFAULT_MEMORY};
use crate::recording::{MAX_RECORDING_SIZE, Recording};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

/// Largest list of files to prefetch, in bytes: half a million paths of usual length.
const MAX_LIST_SIZE: u64 = 64 << 20;

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
    /// Memory that the layers in work may take together; one that needs more than all of it is built alone
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MEMORY)]
    pub(crate) max_memory: u64,
    /// File to prefetch when the image is mounted, as a path in the image; repeated or divided by commas
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    pub(crate) prefetch_file: Vec<String>,
    /// File with the paths of more files to prefetch, as a JSON array of strings
    #[arg(long, value_name = "FILE")]
    pub(crate) prefetch_files_json: Option<PathBuf>,
    /// Recording of a start of the same layers, as the snapshotter keeps it (see `soci prefetch record`): what was read
    /// then is prefetched, in that order
    #[arg(long, value_name = "FILE")]
    pub(crate) prefetch_recording: Option<PathBuf>,
}

impl BuildArgs {
    /// What the library is to build with.
    ///
    /// # Errors
    /// When a file that a flag names cannot be read.
    pub(crate) fn options(&self) -> anyhow::Result<BuildOptions> {
        let mut prefetch_files = self.prefetch_file.clone();
        if let Some(path) = &self.prefetch_files_json {
            prefetch_files.extend(read_list(path)?);
        }
        let recording = self.prefetch_recording.as_deref().map(read_recording).transpose()?;
        Ok(BuildOptions {
            span_size: self.span_size,
            min_layer_size: self.min_layer_size,
            force: self.force,
            optimize_xattrs: self.optimizations.contains(&Optimization::Xattr),
            prefetch_files,
            recording: recording.map(Arc::new),
            memory: self.max_memory,
            ..BuildOptions::default()
        })
    }
}

/// Reads a recording of the snapshotter.
///
/// # Errors
/// When there is none, or it is none.
pub(crate) fn read_recording(path: &Path) -> anyhow::Result<Recording> {
    let shown = path.display();
    let mut json = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_RECORDING_SIZE + 1).read_to_end(&mut json));
    read.with_context(|| format!("cannot read the recording {shown}"))?;
    Recording::parse(&json).with_context(|| format!("{shown} is no recording of a start"))
}

/// Reads a JSON array of strings.
fn read_list(path: &Path) -> anyhow::Result<Vec<String>> {
    let shown = path.display();
    let mut json = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_LIST_SIZE + 1).read_to_end(&mut json));
    read.with_context(|| format!("cannot read the files to prefetch from {shown}"))?;
    if json.len() as u64 > MAX_LIST_SIZE {
        bail!("{shown} has more than {MAX_LIST_SIZE} bytes: too long for a list of files to prefetch");
    }
    serde_json::from_slice(&json).with_context(|| {
        format!("{shown} has to be a JSON array of strings, such as [\"/bin/app\",\"/etc/app.conf\"]")
    })
}
