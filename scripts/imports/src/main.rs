//! Refuses circles of imports between the files of a crate, and imports that run up between its rooms.
//!
//! `cargo run -p imports -- DIRECTORY...`: each directory is a crate. Its files are the nodes. A path that leads into
//! another file of the crate is an arrow to that file, whether it stands in a `use`, in a `pub use` or in an expression;
//! a bare `mod child;` is none. Tests (`#[cfg(test)]`) are left out.
//!
//! The rooms are the top-level modules of a crate that [`rooms`] lists from the lowest up: a room may use those below it.

mod circles;
mod crate_files;
mod paths;
mod rooms;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate_files::CrateFiles;

fn main() -> anyhow::Result<ExitCode> {
    let mut faults = 0;
    for directory in std::env::args_os().skip(1) {
        let directory = Path::new(&directory);
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        for files in crate_files::read(directory).with_context(|| directory.display().to_string())? {
            faults += examine(&name, &files);
        }
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// From each file to those that it imports from.
fn arrows(files: &CrateFiles) -> BTreeSet<(String, String)> {
    let mut arrows = BTreeSet::new();
    for file in files.all() {
        arrows.extend(paths::targets(files, file).into_iter().map(|target| (file.path.clone(), target)));
    }
    arrows
}

/// Reports the faults of a crate. Returns how many there are.
fn examine(name: &str, files: &CrateFiles) -> usize {
    let arrows = arrows(files);
    let circles = circles::find(&arrows);
    for circle in &circles {
        report(&format!("{name}: these files import each other in a circle: {}", circle.join(", ")));
        for (from, to) in arrows.iter().filter(|(from, to)| circle.contains(from) && circle.contains(to)) {
            report(&format!("    {from} -> {to}"));
        }
    }
    let upward = rooms::upward(name, &arrows);
    for (from, to) in &upward {
        report(&format!("{name}: an import runs up between rooms: {from} -> {to}"));
    }
    report(&format!("{name}: {} files, {} arrows", files.all().len(), arrows.len()));
    circles.len() + upward.len()
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn report(line: &str) {
    println!("{line}");
}
