//! A file to look at, and how it is read.

/// How much is read at the start of a file of some size, in bytes.
type Head = fn(u64) -> u64;

/// A file to look at.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) path: Vec<u8>,
    pub(super) reading: Reading,
}

/// How a file is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Whether it is executed, and not just read.
    pub(super) runs: bool,
    /// How much is read at its start although it is long.
    pub(super) head: Head,
}

impl Reading {
    /// It is executed.
    pub(super) const RUN: Self = Self { runs: true, head: |_| 0 };
    /// It is just read.
    pub(super) const READ: Self = Self { runs: false, head: |_| 0 };
}

impl Name {
    pub(super) fn read(path: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), reading: Reading::READ }
    }

    pub(super) fn run(path: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), reading: Reading::RUN }
    }
}
