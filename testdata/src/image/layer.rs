//! Layers.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::compress::{Compression, Compressor};
use super::entry::Entry;
use super::tar;

/// How a layer's tar ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// Two blocks of zeros.
    #[default]
    Marker,
    /// Two blocks of zeros, and more up to a multiple of this.
    Padded(u64),
    /// Just so.
    None,
}

/// Where the bytes of a blob are.
#[derive(Debug, Clone)]
pub enum BlobData {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File(PathBuf),
}

/// A finished layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The compressed bytes.
    pub data: BlobData,
    /// Their digest.
    pub digest: String,
    /// Their number.
    pub size: u64,
    /// The digest of the tar.
    pub diff_id: String,
    /// The size of the tar.
    pub uncompressed_size: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// Its entries, unless recording was switched off.
    pub entries: Arc<Vec<Entry>>,
}

impl Layer {
    /// The compressed bytes, read from the file if that is where they are.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn bytes(&self) -> Bytes {
        match &self.data {
            BlobData::Memory(data) => data.clone(),
            BlobData::File(path) => std::fs::read(path).expect("layer file").into(),
        }
    }
}

/// Counts and hashes what passes.
struct Tee<W> {
    out: W,
    hasher: Sha256,
    size: u64,
}

impl<W> Tee<W> {
    fn new(out: W) -> Self {
        Self { out, hasher: Sha256::new(), size: 0 }
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.out.write_all(data)?;
        self.hasher.update(data);
        self.size += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

enum Sink {
    Memory(Vec<u8>),
    File(BufWriter<File>, PathBuf),
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Memory(buffer) => buffer.write(data),
            Self::File(file, _) => file.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File(file, _) => file.flush(),
        }
    }
}

/// The compressor with its place to be taken out of while it changes members.
struct Packing(Option<Compressor<Tee<Sink>>>);

impl Write for Packing {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let compressor = self.0.take().expect("compressor");
        self.0 = Some(compressor.push(data)?);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a layer, entry by entry. Only the compressed bytes are kept, in memory or in a file.
pub struct LayerBuilder {
    tar: Tee<Packing>,
    compression: Compression,
    end: End,
    entries: Option<Vec<Entry>>,
}

impl std::fmt::Debug for LayerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerBuilder").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl LayerBuilder {
    /// A layer in memory.
    pub fn new(compression: Compression) -> Self {
        Self::with_sink(compression, Sink::Memory(Vec::new()))
    }

    /// A layer in a file.
    ///
    /// # Panics
    /// If the file cannot be created.
    pub fn to_file(path: impl AsRef<Path>, compression: Compression) -> Self {
        let path = path.as_ref().to_path_buf();
        let file = File::create(&path).expect("layer file");
        Self::with_sink(compression, Sink::File(BufWriter::with_capacity(1 << 20, file), path))
    }

    fn with_sink(compression: Compression, sink: Sink) -> Self {
        let packing = Packing(Some(Compressor::new(compression, Tee::new(sink))));
        Self { tar: Tee::new(packing), compression, end: End::Marker, entries: Some(Vec::new()) }
    }

    /// Forgets entries once they are written, which saves some 250 bytes for each; [`Layer::entries`] will be empty.
    #[must_use]
    pub fn without_record(mut self) -> Self {
        self.entries = None;
        self
    }

    /// Sets how the tar ends.
    #[must_use]
    pub fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// Writes an entry.
    ///
    /// # Panics
    /// If the entry does not fit its format, or cannot be written.
    pub fn add(&mut self, entry: Entry) -> &mut Self {
        self.tar.out.0.as_mut().expect("compressor").entry().expect("layer");
        tar::write_entry(&mut self.tar, &entry)
            .unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(&entry.path)));
        if let Some(entries) = &mut self.entries {
            entries.push(entry);
        }
        self
    }

    /// Writes bytes into the tar as they are.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn raw(&mut self, data: &[u8]) -> &mut Self {
        self.tar.write_all(data).expect("layer");
        self
    }

    /// Bytes of the tar so far: the offset of the next header.
    pub fn position(&self) -> u64 {
        self.tar.size
    }

    /// Ends the tar and the compression.
    ///
    /// # Panics
    /// If the rest cannot be written.
    pub fn finish(mut self) -> Layer {
        let zeros = match self.end {
            End::None => 0,
            End::Marker => 1024,
            End::Padded(unit) => (self.tar.size + 1024).next_multiple_of(unit) - self.tar.size,
        };
        self.tar.write_all(&vec![0; zeros as usize]).expect("layer");
        let Tee { out: packing, hasher, size: uncompressed_size } = self.tar;
        let mut packed = packing.0.expect("compressor").finish().expect("layer");
        packed.flush().expect("layer");
        let data = match packed.out {
            Sink::Memory(data) => BlobData::Memory(data.into()),
            Sink::File(_, path) => BlobData::File(path),
        };
        Layer {
            data,
            digest: crate::digest::named(packed.hasher),
            size: packed.size,
            diff_id: crate::digest::named(hasher),
            uncompressed_size,
            compression: self.compression,
            entries: Arc::new(self.entries.unwrap_or_default()),
        }
    }
}

/// A layer in memory, gzip at the usual level, with these entries.
impl FromIterator<Entry> for Layer {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut builder = LayerBuilder::new(Compression::GZIP);
        for entry in entries {
            builder.add(entry);
        }
        builder.finish()
    }
}
