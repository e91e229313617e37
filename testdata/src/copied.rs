//! Copies of programs, to be started.

use std::path::Path;
use std::process::Command;

/// Copies a program. A program that is open for writing cannot be started, and what another test starts at that moment
/// inherits the descriptors of this process: so a process of its own writes the copy.
pub fn copy_program(from: &Path, to: &Path) {
    assert!(
        Command::new("cp").arg(from).arg(to).status().expect("cp").success(),
        "{} was not copied",
        from.display()
    );
}
