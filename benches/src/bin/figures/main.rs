//! The figures that the project promises, each a ratio to something in the same run, or a count.
//!
//! `cargo run --release -p benches --bin figures` after `cargo build --release --workspace`. Needs root for the mounts.
#![allow(clippy::print_stdout)]

mod index_build;
mod one_file;
mod small_files;

use anyhow::bail;
use benches::table;
use clap::Parser;

/// Measures what the project promises.
#[derive(Debug, Parser)]
struct Args {
    /// Which: index-build, small-files, one-file [default: all]
    figures: Vec<String>,
    /// Uncompressed size of the layer for index-build, in MiB
    #[arg(long, default_value = "1200")]
    layer_size: u64,
    /// Where the inputs are made; 2 GB are needed
    #[arg(long, default_value = "/var/tmp")]
    directory: std::path::PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let wanted = |name: &str| args.figures.is_empty() || args.figures.iter().any(|figure| figure == name);
    let directory = tempfile::Builder::new().prefix("soci-figures-").tempdir_in(&args.directory)?;
    let mut figures = Vec::new();
    if wanted("index-build") {
        figures.extend(index_build::measure(directory.path(), args.layer_size << 20)?);
    }
    if wanted("small-files") {
        figures.extend(small_files::measure(directory.path())?);
    }
    if wanted("one-file") {
        figures.extend(one_file::measure(directory.path())?);
    }
    if !table::print(&figures) {
        bail!("not all figures are within their bars");
    }
    Ok(())
}
