//! What is in files: given bytes, files of this machine, or pseudo-random bytes from a seed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The content of a file.
#[derive(Debug, Clone)]
pub enum Content {
    /// These bytes.
    Bytes(Bytes),
    /// Bytes made from a seed while they are written; they are never in memory as a whole.
    Made {
        /// What they look like.
        texture: Texture,
        /// The seed.
        seed: u64,
        /// How many.
        len: u64,
    },
    /// The bytes of a file of this machine.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its size, which must still be the same when it is written.
        len: u64,
    },
    /// A file with holes: pieces of data with their offsets, in ascending order, in a file of `len` bytes. All pieces but
    /// the last are multiples of 512 bytes long.
    Sparse {
        /// Offset and data.
        pieces: Vec<(u64, Bytes)>,
        /// Size of the file.
        len: u64,
    },
}

/// What made-up bytes look like, and so how well they compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Texture {
    /// Words and lines; gzip makes about a third of it.
    Text,
    /// Records like machine code and tables; gzip makes about half of it.
    Binary,
    /// Random; does not compress.
    Random,
    /// Zeros.
    Zero,
}

impl Content {
    /// The size of the file.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(data) => data.len() as u64,
            Self::Made { len, .. } | Self::File { len, .. } | Self::Sparse { len, .. } => *len,
        }
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the whole file, holes as zeros.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Bytes(data) => out.write_all(data),
            Self::Made { texture, seed, len } => make(*texture, *seed, *len, out),
            Self::File { path, len } => {
                let copied = io::copy(&mut File::open(path)?.take(*len), out)?;
                if copied == *len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            }
            Self::Sparse { pieces, len } => {
                let mut position = 0;
                for (offset, data) in pieces {
                    make(Texture::Zero, 0, offset - position, out)?;
                    out.write_all(data)?;
                    position = offset + data.len() as u64;
                }
                make(Texture::Zero, 0, len - position, out)
            }
        }
    }

    /// The digest of the whole file.
    ///
    /// # Panics
    /// If a file of this machine cannot be read.
    pub fn digest(&self) -> String {
        struct Hashing(Sha256);
        impl Write for Hashing {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.0.update(data);
                Ok(data.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut hashing = Hashing(Sha256::new());
        self.write_to(&mut hashing).expect("content");
        crate::digest::named(hashing.0)
    }

    /// The whole file in memory.
    ///
    /// # Panics
    /// If a file of this machine cannot be read.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut data = Vec::new();
        self.write_to(&mut data).expect("content");
        data
    }
}

impl From<Bytes> for Content {
    fn from(data: Bytes) -> Self {
        Self::Bytes(data)
    }
}

impl From<Vec<u8>> for Content {
    fn from(data: Vec<u8>) -> Self {
        Self::Bytes(data.into())
    }
}

impl From<&[u8]> for Content {
    fn from(data: &[u8]) -> Self {
        Self::Bytes(Bytes::copy_from_slice(data))
    }
}

impl<const N: usize> From<&[u8; N]> for Content {
    fn from(data: &[u8; N]) -> Self {
        Self::Bytes(Bytes::copy_from_slice(data))
    }
}

impl From<&str> for Content {
    fn from(data: &str) -> Self {
        data.as_bytes().into()
    }
}

impl From<String> for Content {
    fn from(data: String) -> Self {
        data.into_bytes().into()
    }
}

/// xorshift64*: small, fast, the same everywhere for ever, which no crate's default generator promises.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Seeds that are close together give unrelated streams.
    pub(crate) fn new(seed: u64) -> Self {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The generator has one state it never leaves.
        Self((z ^ (z >> 31)).max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

const WORDS: [&[u8]; 32] = [
    b"the ",
    b"layer ",
    b"of ",
    b"and ",
    b"registry ",
    b"return ",
    b"self.",
    b"import ",
    b"in ",
    b"span ",
    b"  ",
    b"offset ",
    b"value = ",
    b"for ",
    b"None\n",
    b"is ",
    b"container ",
    b"if ",
    b"def ",
    b"not ",
    b"== ",
    b"to ",
    b"\n    ",
    b"name, ",
    b"0x",
    b"image ",
    b"data[",
    b"] ",
    b"():\n",
    b"# ",
    b"a ",
    b"read ",
];

fn make(texture: Texture, seed: u64, len: u64, out: &mut dyn Write) -> io::Result<()> {
    const BUFFER: usize = 64 << 10;
    let mut rng = Rng::new(seed);
    let mut left = len;
    let mut buffer = Vec::new();
    while left > 0 {
        buffer.clear();
        // Only the last buffer is cut, so a longer file begins like a shorter one.
        let enough = left.min(BUFFER as u64) as usize;
        match texture {
            Texture::Zero => buffer.resize(enough, 0),
            Texture::Random => {
                while buffer.len() < enough {
                    buffer.extend_from_slice(&rng.next().to_le_bytes());
                }
            }
            Texture::Text => {
                while buffer.len() < enough {
                    let bits = rng.next();
                    for i in 0..8 {
                        // The minimum of two makes some words much more frequent than others, as in a language.
                        let (a, b) = (bits >> (8 * i) & 31, bits >> (8 * i + 3) & 31);
                        buffer.extend_from_slice(WORDS[a.min(b) as usize]);
                    }
                    if bits >> 61 == 0 {
                        buffer.extend_from_slice(format!("{:x}\n", bits & 0xffff_ffff).as_bytes());
                    }
                }
            }
            Texture::Binary => {
                while buffer.len() < enough {
                    let bits = rng.next();
                    let tag = [0x48, 0x8b, 0x45, 0xe8, 0x00, 0x0f, 0x89, 0xc7][(bits & 7) as usize];
                    let low = (bits >> 8).to_le_bytes();
                    buffer.extend_from_slice(&[tag, low[0] & 0x3f, 0, 0, 0x48, tag, low[1], low[2] & 3]);
                }
            }
        }
        let n = (buffer.len() as u64).min(left) as usize;
        out.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}
