//! What is to be said about a file that can be used: keys that are not known, or that have no effect.

use std::fmt;

/// Something that a file says in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The key with its tables, as it is written.
    pub key: String,
    /// The line it is in, from 1.
    pub line: usize,
    /// What is to be said about it.
    pub kind: NoteKind,
}

/// Why a file says something in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteKind {
    /// No such key.
    Unknown {
        /// A key with nearly that name.
        meant: Option<String>,
    },
    /// The key exists but does nothing in this program, and does not have its default value.
    NoEffect {
        /// Why it does nothing.
        reason: &'static str,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, line, kind } = self;
        match kind {
            NoteKind::Unknown { meant: None } => write!(f, "line {line}: unknown key {key}"),
            NoteKind::Unknown { meant: Some(meant) } => {
                write!(f, "line {line}: unknown key {key}; is {meant} meant?")
            }
            NoteKind::NoEffect { reason } => write!(f, "line {line}: {key} has no effect: {reason}"),
        }
    }
}
