//! How a layer is compressed.

use std::fmt;

/// How a layer is compressed, as far as a zTOC can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// gzip, of one or many members.
    Gzip,
    /// A bare tar archive.
    Uncompressed,
    /// Zstandard, of many frames.
    Zstd,
}

impl Compression {
    /// How a layer is compressed that begins with these bytes, of which the first four count. What is neither gzip nor
    /// Zstandard (a data frame or a skippable one, which pzstd writes first) is taken for a tar archive, as containerd does.
    #[must_use]
    pub fn sniff(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Uncompressed,
        }
    }

    /// What a layer is that begins with these bytes and is said to be compressed like this, if they show that it is not.
    /// 512 bytes are enough. Builders lose the suffix of a media type, or add one.
    #[must_use]
    pub fn contradicted_by(self, first: &[u8]) -> Option<Self> {
        let is_tar = first.get(257..262) == Some(b"ustar");
        let actual = if is_tar { Self::Uncompressed } else { Self::sniff(first) };
        // Bytes without any mark may be an old tar archive, or rubbish.
        let shows = is_tar || actual != Self::Uncompressed;
        (shows && actual != self).then_some(actual)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gzip => "gzip",
            Self::Uncompressed => "uncompressed",
            Self::Zstd => "zstd",
        })
    }
}
