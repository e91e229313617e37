//! Refuses circles of imports between the files of a crate, and imports that run up between its rooms.
//!
//! `cargo run -p imports -- DIRECTORY...`: each directory is a crate. Its files are the nodes. A path that leads into
//! another file of the crate is an arrow to that file, whether it stands in a `use`, in a `pub use` or in an expression;
//! a bare `mod child;` is none. Tests (`#[cfg(test)]`) are left out.
//!
//! The rooms are the top-level modules that the crate names in [`rooms::ROOMS`], from the lowest up: a room may use those
//! before it.

mod circles;
mod crate_files;
mod paths;
mod rooms;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

fn main() -> anyhow::Result<ExitCode> {
    let mut faults = 0;
    for directory in std::env::args_os().skip(1) {
        let directory = Path::new(&directory);
        let files = crate_files::read(directory).with_context(|| directory.display().to_string())?;
        let mut arrows = BTreeSet::new();
        for file in files.all() {
            for target in paths::targets(&files, file)? {
                arrows.insert((file.path.clone(), target));
            }
        }
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        for circle in circles::find(&arrows) {
            report(&format!("{name}: these files import each other in a circle: {}", circle.join(", ")));
            for (from, to) in &arrows {
                if circle.contains(from) && circle.contains(to) {
                    report(&format!("    {from} -> {to}"));
                }
            }
            faults += 1;
        }
        for (from, to) in rooms::upward(&name, &arrows) {
            report(&format!("{name}: an import runs up between rooms: {from} -> {to}"));
            faults += 1;
        }
        report(&format!("{name}: {} files, {} arrows", files.all().len(), arrows.len()));
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn report(line: &str) {
    println!("{line}");
}
