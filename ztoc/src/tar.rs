//! Walking a tar archive as it streams by.
//!
//! The walk follows Go's `archive/tar`, the reader that the reference uses, in what it accepts and in how
//! it merges ustar, star, GNU and PAX headers, since names, sizes and offsets go into the zTOC verbatim.
//! General tar crates differ in exactly these corners (precedence of names, trimming, PAX records with
//! empty values, cut-off padding), and none yields the offsets. Contents are skipped, never kept.

mod header;
mod pax;

pub use header::{BLOCK, Header, number, text};
pub use pax::{number as pax_number, parse as parse_pax, time as pax_time};

use super::error::BuildError;
use crate::entry::{Entry, EntryKind};

/// Largest PAX header or GNU long name, in bytes; `archive/tar` has the same limit.
pub const MAX_SPECIAL_SIZE: u64 = 1 << 20;

/// Largest table of contents, in bytes of memory: twice what the largest known layers need, and within the
/// 2 GiB of a FlatBuffer. A bound, so that a hostile layer of nothing but headers cannot exhaust memory.
const MAX_TOC_SIZE: u64 = 1 << 30;

/// A push parser: give it the uncompressed archive in chunks of any size with [`TarWalker::push`].
#[derive(Debug)]
pub struct TarWalker {
    entries: Vec<Entry>,
    weight: u64,
    /// Uncompressed bytes consumed so far.
    position: u64,
    state: State,
    /// Zero bytes that fill up the last block of the current entry's data.
    padding: u64,
    block: [u8; BLOCK],
    filled: usize,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    long_name: Vec<u8>,
    long_link: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Skipping the content of an entry.
    Data { left: u64 },
    /// Collecting the content of a header that describes the next entry.
    Special { typeflag: u8, left: usize, content: Vec<u8> },
    /// Skipping the padding after data.
    Padding,
    /// Collecting a header block. `after_zeros`: the block before was all zeros.
    Header { after_zeros: bool },
    /// Past the end of the archive; all further bytes are ignored.
    Ended,
}

impl Default for TarWalker {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            weight: 0,
            position: 0,
            state: State::Header { after_zeros: false },
            padding: 0,
            block: [0; BLOCK],
            filled: 0,
            pax: Vec::new(),
            long_name: Vec::new(),
            long_link: Vec::new(),
        }
    }
}

impl TarWalker {
    /// A walker at the start of an archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The entries found so far, in archive order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes that the entries need in memory or in a zTOC, roughly.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Walks over the next bytes of the archive.
    ///
    /// # Errors
    /// A malformed header, an entry that a zTOC cannot hold, or a table of contents beyond all bounds.
    pub fn push(&mut self, mut data: &[u8]) -> Result<(), BuildError> {
        while !data.is_empty() {
            let taken = match &mut self.state {
                State::Ended => return Ok(()),
                State::Data { left } => {
                    let taken = clamp(*left, data.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Padding;
                    }
                    taken
                }
                State::Special { left, content, .. } => {
                    let taken = (*left).min(data.len());
                    content.extend_from_slice(&data[..taken]);
                    *left -= taken;
                    taken
                }
                State::Padding => {
                    let taken = clamp(self.padding, data.len());
                    self.padding -= taken as u64;
                    taken
                }
                State::Header { .. } => {
                    let taken = (BLOCK - self.filled).min(data.len());
                    self.block[self.filled..self.filled + taken].copy_from_slice(&data[..taken]);
                    self.filled += taken;
                    taken
                }
            };
            self.position += taken as u64;
            data = &data[taken..];
            self.advance()?;
        }
        Ok(())
    }

    /// Ends the walk; returns the entries and the archive's size as a zTOC counts it: the bytes up to and
    /// including the two zero blocks, or all of them where there is no such end mark.
    ///
    /// # Errors
    /// [`BuildError::TruncatedArchive`] if the archive ends within a header or within an entry's data.
    pub fn finish(self) -> Result<(Vec<Entry>, u64), BuildError> {
        let truncated = match &self.state {
            State::Ended | State::Padding => false,
            State::Data { left } => *left > 0,
            State::Special { .. } => true,
            State::Header { .. } => self.filled > 0,
        };
        if truncated {
            return Err(BuildError::TruncatedArchive { size: self.position });
        }
        Ok((self.entries, self.position))
    }

    /// Moves on from states that are complete.
    fn advance(&mut self) -> Result<(), BuildError> {
        if let State::Special { left: 0, typeflag, content } = &mut self.state {
            let (typeflag, content) = (*typeflag, std::mem::take(content));
            self.special(typeflag, &content)?;
            self.state = State::Padding;
        }
        if matches!(self.state, State::Data { left: 0 }) {
            self.state = State::Padding;
        }
        if matches!(self.state, State::Padding) && self.padding == 0 {
            self.state = State::Header { after_zeros: false };
        }
        if let State::Header { after_zeros } = self.state
            && self.filled == BLOCK
        {
            self.filled = 0;
            let zeros = self.block.iter().all(|b| *b == 0);
            self.state = match (after_zeros, zeros) {
                (true, true) => State::Ended,
                (true, false) => return Err(self.header_error("a zero block, then a block that is not")),
                (false, true) => State::Header { after_zeros: true },
                (false, false) => self.header()?,
            };
            // An entry without data or padding is followed by the next header at once.
            if let State::Data { left: 0 } = self.state {
                self.state =
                    if self.padding == 0 { State::Header { after_zeros: false } } else { State::Padding };
            } else if let State::Special { left: 0, .. } = self.state {
                return self.advance();
            }
        }
        Ok(())
    }

    fn header_error(&self, reason: &'static str) -> BuildError {
        BuildError::Header { offset: self.position - BLOCK as u64, reason }
    }

    /// Content of a PAX header or a GNU long name is complete.
    fn special(&mut self, typeflag: u8, content: &[u8]) -> Result<(), BuildError> {
        match typeflag {
            b'x' => {
                self.pax = pax::parse(content)
                    .map_err(|reason| BuildError::Header { offset: self.position, reason })?;
            }
            b'L' => self.long_name = header::text(content).to_vec(),
            _ => self.long_link = header::text(content).to_vec(),
        }
        Ok(())
    }

    /// A header block is complete: returns the state that its content begins with.
    fn header(&mut self) -> Result<State, BuildError> {
        let mut header = Header::parse(&self.block).map_err(|reason| self.header_error(reason))?;
        match header.typeflag {
            b'g' => return Err(BuildError::UnsupportedEntry { typeflag: b'g' }),
            b'x' | b'L' | b'K' => {
                let size = u64::try_from(header.size).map_err(|_| self.header_error("negative size"))?;
                if size > MAX_SPECIAL_SIZE {
                    return Err(self.header_error("a PAX header or long name is too long"));
                }
                self.padding = padding(size);
                let left = usize::try_from(size).unwrap_or(usize::MAX);
                return Ok(State::Special {
                    typeflag: header.typeflag,
                    left,
                    content: Vec::with_capacity(left),
                });
            }
            _ => {}
        }
        header.merge_pax(&self.pax).map_err(|reason| self.header_error(reason))?;
        let (long_name, long_link) =
            (std::mem::take(&mut self.long_name), std::mem::take(&mut self.long_link));
        if !long_name.is_empty() {
            header.name = long_name;
        }
        if !long_link.is_empty() {
            header.link_name = long_link;
        }
        let pax = std::mem::take(&mut self.pax);
        if header.typeflag == b'S' || pax::is_sparse(&pax) {
            return Err(BuildError::Sparse { name: String::from_utf8_lossy(&header.name).into_owned() });
        }
        let kind = kind(&header)?;
        let size = u64::try_from(header.size).map_err(|_| self.header_error("negative size"));
        // The size field of an entry without data says nothing, so it cannot be wrong either.
        let data = if kind == EntryKind::Regular { size? } else { 0 };
        let end = self.position.checked_add(data).filter(|end| i64::try_from(*end).is_ok());
        end.ok_or_else(|| self.header_error("the size is beyond all bounds"))?;
        self.padding = padding(data);
        self.record(Entry {
            name: header.name,
            kind,
            offset: self.position,
            size: data,
            link_name: header.link_name,
            mode: header.mode,
            // Go converts to the platform's int and the zTOC writer truncates that to 32 bits.
            uid: header.uid as u32,
            gid: header.gid as u32,
            uname: header.uname,
            gname: header.gname,
            mtime: header.mtime,
            devmajor: header.devmajor,
            devminor: header.devminor,
            pax,
        })?;
        Ok(State::Data { left: data })
    }

    fn record(&mut self, entry: Entry) -> Result<(), BuildError> {
        self.weight += entry.weight() as u64;
        if self.weight > MAX_TOC_SIZE {
            return Err(BuildError::TocTooLarge { limit: MAX_TOC_SIZE });
        }
        self.entries.push(entry);
        Ok(())
    }
}

fn kind(header: &Header) -> Result<EntryKind, BuildError> {
    Ok(match header.typeflag {
        // Archives older than POSIX mark directories by a trailing slash only.
        0 if header.name.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' => EntryKind::Regular,
        b'1' => EntryKind::Hardlink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::Char,
        b'4' => EntryKind::Block,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        typeflag => return Err(BuildError::UnsupportedEntry { typeflag }),
    })
}

fn clamp(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// Bytes from `size` to the next multiple of a block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

#[cfg(test)]
mod tests;
