//! A tar archive as it streams by: entries and their data.
//!
//! What is accepted, and how ustar, star, GNU and PAX headers are merged, follows Go's `archive/tar`, as the
//! zTOC builder does.

use std::io::BufRead;

use ztoc::tar::{self, BLOCK, Header};

use super::attributes::Attributes;
use super::error::UnpackError;
use super::options::Limits;
use super::pax::Records;
use super::sparse::{self, PaxFormat, Region};
use super::stream::Stream;

/// Largest PAX header or GNU long name, in bytes; `archive/tar` has the same limit.
const MAX_SPECIAL_SIZE: u64 = 1 << 20;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
    /// A typeflag that means nothing to us.
    Unknown(u8),
}

/// An entry, with everything that describes it merged.
#[derive(Debug)]
pub(super) struct Entry {
    /// As in the archive.
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) link_name: Vec<u8>,
    pub(super) attributes: Attributes,
    pub(super) device: (i64, i64),
    /// Size of the file; 0 for what is not a regular file.
    pub(super) size: u64,
    /// The parts of the file that the archive has; `None` for all of it.
    pub(super) regions: Option<Vec<Region>>,
}

pub(super) struct Archive<R> {
    stream: Stream<R>,
    limits: Limits,
    /// Data of the current entry that has not been read.
    left: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    pub(super) fn new(stream: Stream<R>, limits: &Limits) -> Self {
        Self { stream, limits: limits.clone(), left: 0, padding: 0 }
    }

    /// The rest of the stream. What follows the end mark belongs to the layer's digest all the same.
    pub(super) fn into_stream(self) -> Stream<R> {
        self.stream
    }

    /// Data of the current entry, at least one byte and at most `most`.
    pub(super) fn data(&mut self, most: u64) -> Result<&[u8], UnpackError> {
        let offset = self.stream.position();
        let chunk = self.stream.chunk(most.min(self.left))?;
        if chunk.is_empty() {
            return Err(UnpackError::Archive { offset, reason: "the archive ends within a file" });
        }
        Ok(chunk)
    }

    /// Takes data that [`Archive::data`] has shown.
    pub(super) fn consume(&mut self, length: usize) {
        self.stream.consume(length);
        self.left -= length as u64;
    }

    /// The next entry; passes over what is left of the current one.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        self.skip_data()?;
        let (mut records, mut long_name, mut long_link) = (None, Vec::new(), Vec::new());
        loop {
            // Padding that is cut off is no error: some writers end there.
            self.stream.skip(self.padding)?;
            self.padding = 0;
            let Some(block) = self.header_block()? else { return Ok(None) };
            let header = Header::parse(&block).map_err(|reason| self.error(reason))?;
            match header.typeflag {
                b'x' => {
                    let content = self.special(&header)?;
                    records = Some(Records::parse(&content).map_err(|reason| self.error(reason))?);
                }
                b'L' => long_name = tar::text(&self.special(&header)?).to_vec(),
                b'K' => long_link = tar::text(&self.special(&header)?).to_vec(),
                b'g' => {
                    // Go returns these as entries of their own, so that nothing before them describes the
                    // entry after them.
                    self.special(&header)?;
                    (records, long_name, long_link) = (None, Vec::new(), Vec::new());
                }
                _ => {
                    let mut header = header;
                    let records = records.unwrap_or_default();
                    let path = records.get("path").map(<[u8]>::to_vec);
                    let link_path = records.get("linkpath").map(<[u8]>::to_vec);
                    // A GNU long name goes before a PAX path, and that before the header's.
                    if let Some(name) = Some(long_name).filter(|name| !name.is_empty()).or(path) {
                        header.name = name;
                    }
                    if let Some(name) = Some(long_link).filter(|name| !name.is_empty()).or(link_path) {
                        header.link_name = name;
                    }
                    return self.entry(&block, header, &records).map(Some);
                }
            }
        }
    }

    /// The next header; `None` at the end of the archive: two blocks of zeros, or the end of the stream.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let mut block = [0; BLOCK];
        for after_zeros in [false, true] {
            match self.stream.read(&mut block)? {
                0 => return Ok(None),
                BLOCK => {}
                _ => return Err(self.error("the archive ends within a header")),
            }
            if block.iter().any(|byte| *byte != 0) {
                if after_zeros {
                    return Err(self.error("a block of zeros, then one that is not"));
                }
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// The content of a header that describes the next entry.
    fn special(&mut self, header: &Header) -> Result<Vec<u8>, UnpackError> {
        let size = u64::try_from(header.size).map_err(|_| self.error("negative size"))?;
        if size > MAX_SPECIAL_SIZE {
            return Err(self.error("a PAX header or long name is above 1 MiB"));
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
        if self.stream.read(&mut content)? < content.len() {
            return Err(self.error("the archive ends within a PAX header or long name"));
        }
        self.padding = padding(size);
        Ok(content)
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        header: Header,
        records: &Records,
    ) -> Result<Entry, UnpackError> {
        let position = self.stream.position();
        let error = |reason| UnpackError::Archive { offset: position, reason };
        let mut entry = Entry {
            kind: kind(&header),
            name: header.name,
            link_name: header.link_name,
            attributes: Attributes {
                mode: (header.mode & 0o7777) as u32,
                // As the zTOC has them, and as Go hands them to chown(2): the lower 32 bits, negative ones
                // included.
                uid: records.number("uid").map_err(error)?.unwrap_or(header.uid) as u32,
                gid: records.number("gid").map_err(error)?.unwrap_or(header.gid) as u32,
                mtime: Some(records.time("mtime").map_err(error)?.unwrap_or(header.mtime)),
                xattrs: records.xattrs().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            },
            device: (header.devmajor, header.devminor),
            size: 0,
            regions: None,
        };
        if !matches!(entry.kind, Kind::Regular | Kind::Unknown(_)) {
            // The size field of an entry without data says nothing.
            return Ok(entry);
        }
        let stored = records.number("size").map_err(error)?.unwrap_or(header.size);
        let stored = u64::try_from(stored).map_err(|_| error("negative size"))?;
        (self.left, self.padding) = (stored, padding(stored));
        entry.size = stored;
        if header.typeflag == b'S' {
            if !header.is_gnu {
                return Err(error("a sparse file of the old GNU format without a GNU header"));
            }
            let (regions, size) = sparse::from_gnu_header(&mut self.stream, block, &self.limits)?;
            self.set_sparse(&mut entry, regions, Some(size))?;
        } else if entry.kind == Kind::Regular
            && let Some(format) = sparse::pax_format(records)
        {
            if let Some(name) = records.get("GNU.sparse.name") {
                entry.name = name.to_vec();
            }
            let size = match records.number("GNU.sparse.size").map_err(error)? {
                Some(size) => Some(size),
                None => records.number("GNU.sparse.realsize").map_err(error)?,
            };
            let regions = match format {
                PaxFormat::InRecords => sparse::from_records(records, &self.limits).map_err(error)?,
                PaxFormat::InData => {
                    let (regions, left) = sparse::from_data(&mut self.stream, stored, &self.limits)?;
                    self.left = left;
                    regions
                }
            };
            self.set_sparse(&mut entry, regions, size)?;
        }
        if entry.size > self.limits.file_size {
            return Err(UnpackError::Limit { what: "largest file", limit: self.limits.file_size });
        }
        Ok(entry)
    }

    fn set_sparse(
        &self,
        entry: &mut Entry,
        regions: Vec<Region>,
        size: Option<i64>,
    ) -> Result<(), UnpackError> {
        if let Some(size) = size {
            entry.size = u64::try_from(size).map_err(|_| self.error("negative size"))?;
        }
        sparse::check(&regions, entry.size, self.left).map_err(|reason| self.error(reason))?;
        entry.regions = Some(regions);
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), UnpackError> {
        if self.stream.skip(self.left)? < self.left {
            return Err(self.error("the archive ends within a file"));
        }
        self.left = 0;
        Ok(())
    }

    fn error(&self, reason: &'static str) -> UnpackError {
        UnpackError::Archive { offset: self.stream.position(), reason }
    }
}

fn kind(header: &Header) -> Kind {
    match header.typeflag {
        // Archives older than POSIX mark directories by a trailing slash only.
        0 if header.name.ends_with(b"/") => Kind::Directory,
        // 7 is a file that was contiguous on some disk.
        0 | b'0' | b'7' | b'S' => Kind::Regular,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        typeflag => Kind::Unknown(typeflag),
    }
}

/// Bytes from `size` to the next multiple of a block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
