//! The figures that the project promises, each a ratio to something in the same run, or a count.
//!
//! `cargo run --release -p benches --bin figures` after `cargo build --release --workspace`. Needs root for the mounts.
#![expect(clippy::print_stderr, reason = "the output of a benchmark is for people")]

mod index_build;
mod memory;
mod one_file;
mod small_files;
mod warm;

use std::process::ExitCode;

use benches::table;
use clap::Parser;

/// Measures what the project promises.
#[derive(Debug, Parser)]
struct Args {
    /// Which [default: all]
    #[arg(value_parser = ["index-build", "small-files", "one-file", "memory", "warm"])]
    figures: Vec<String>,
    /// Uncompressed size of the layer for index-build, in MiB
    #[arg(long, default_value = "1200")]
    layer_size: u64,
    /// Where the inputs are made; 5 GB are needed
    #[arg(long, default_value = "/var/tmp")]
    directory: std::path::PathBuf,
}

fn main() -> ExitCode {
    // Not by returning the error: `RUST_BACKTRACE=1`, which is set on many machines of developers, would bury it.
    match measure(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("Not all figures are within their bars: see MISSED above.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all figures are within their bars.
fn measure(args: &Args) -> anyhow::Result<bool> {
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
    if wanted("memory") {
        figures.extend(memory::measure(directory.path())?);
    }
    if wanted("warm") {
        figures.extend(warm::measure(directory.path())?);
    }
    Ok(table::print(&figures))
}
