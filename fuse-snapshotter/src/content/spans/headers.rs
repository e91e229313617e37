//! Checking the tar headers that pass by against the zTOC.
//!
//! A header that a span boundary cuts is put together from its parts when both spans have been read. Until then
//! the zTOC is believed: it is itself named by a digest. So it is with headers in spans that nobody reads: to fetch
//! them with the content would cost another span for many a first read.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::content::cache::BlockRanges;
use crate::content::spans::table::LayerTable;

/// Longest cut header that is kept, in bytes. Longer ones (with many PAX records) go unchecked.
const MAX_KEPT: u64 = 32 * 1024;

/// Most bytes of cut headers that are kept, of a layer. What goes beyond goes unchecked; a layer has two or three
/// blocks of header at a span boundary.
const MAX_ALL: usize = 4 << 20;

/// Name of the file with the refused entries, 4 bytes each: the bytes of their spans may be in the cache already
/// when the process starts, so that their headers do not pass by again.
const FILE: &str = "refused";

/// Headers that were found false, and parts of cut ones.
#[derive(Debug, Default)]
pub(crate) struct HeaderChecks {
    cut: HashMap<usize, Cut>,
    /// Bytes in `cut`.
    kept: usize,
    refused: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Cut {
    bytes: Vec<u8>,
    known: BlockRanges,
}

impl HeaderChecks {
    /// Whether the header of this entry contradicts the zTOC.
    pub(crate) fn is_refused(&self, entry: usize) -> bool {
        self.refused.contains(&entry)
    }

    /// Number of entries whose headers contradict the zTOC.
    pub(crate) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Adds what an earlier process refused.
    pub(crate) fn load(&mut self, directory: &Path) -> io::Result<()> {
        let mut raw = Vec::new();
        match File::open(directory.join(FILE)) {
            Ok(mut file) => file.read_to_end(&mut raw)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let entries = raw.chunks_exact(4).map(|e| u32::from_le_bytes([e[0], e[1], e[2], e[3]]) as usize);
        self.refused.extend(entries);
        Ok(())
    }

    /// Refuses entries, in this process also if the disk does not take their numbers.
    fn refuse(&mut self, entries: &[usize], directory: &Path) {
        let new: Vec<usize> = entries.iter().copied().filter(|entry| self.refused.insert(*entry)).collect();
        if new.is_empty() {
            return;
        }
        let raw: Vec<u8> = new.iter().flat_map(|entry| (*entry as u32).to_le_bytes()).collect();
        let file = OpenOptions::new().create(true).append(true).open(directory.join(FILE));
        if let Err(error) = file.and_then(|mut file| file.write_all(&raw)) {
            tracing::warn!(layer = %directory.display(), %error, "cannot remember which entries were refused");
        }
    }

    /// Adds a part of a header, from byte `at` of it; returns the header once it is complete.
    fn add(&mut self, entry: usize, at: u64, part: &[u8], length: u64) -> Option<Vec<u8>> {
        if length > MAX_KEPT {
            return None;
        }
        let (at, length) = (at as usize, length as usize);
        if !self.cut.contains_key(&entry) {
            if self.kept + length > MAX_ALL {
                return None;
            }
            self.kept += length;
        }
        let cut = self.cut.entry(entry).or_default();
        cut.bytes.resize(length, 0);
        cut.bytes[at..at + part.len()].copy_from_slice(part);
        cut.known.add(at as u16..(at + part.len()) as u16);
        if !cut.known.has(&(0..length as u16)) {
            return None;
        }
        self.kept -= length;
        self.cut.remove(&entry).map(|cut| cut.bytes)
    }
}

/// Headers seen in one span, to be taken into account once the span is verified.
#[derive(Debug, Default)]
pub(crate) struct SpanHeaders {
    /// The header that is passing by: its entry, where it began, and its bytes so far.
    current: Option<(usize, u64, Vec<u8>)>,
    cut: Vec<(usize, u64, Vec<u8>)>,
    refused: Vec<usize>,
}

impl SpanHeaders {
    /// Takes the next bytes of a header, from byte `at` of it.
    pub(crate) fn push(&mut self, table: &LayerTable, entry: usize, at: u64, bytes: &[u8]) {
        let length = table.header_length(entry);
        if at == 0 && bytes.len() as u64 == length {
            // By far most headers arrive in one piece.
            self.check(table, entry, bytes);
            return;
        }
        match &mut self.current {
            Some((current, _, seen)) if *current == entry => seen.extend_from_slice(bytes),
            _ => {
                self.set_aside();
                self.current = Some((entry, at, bytes.to_vec()));
            }
        }
        if let Some((_, start, seen)) = &self.current
            && start + seen.len() as u64 == length
            && let Some((entry, start, seen)) = self.current.take()
        {
            if start == 0 {
                self.check(table, entry, &seen);
            } else {
                self.cut.push((entry, start, seen));
            }
        }
    }

    fn check(&mut self, table: &LayerTable, entry: usize, header: &[u8]) {
        if !table.header_matches(entry, header) {
            self.refused.push(entry);
        }
    }

    fn set_aside(&mut self) {
        self.cut.extend(self.current.take());
    }

    /// The span is verified: refuses the entries whose headers contradict the zTOC, and returns them. `directory`
    /// is where they are remembered.
    pub(crate) fn finish(
        mut self,
        table: &LayerTable,
        checks: &mut HeaderChecks,
        directory: &Path,
    ) -> Vec<usize> {
        self.set_aside();
        let mut refused = self.refused;
        for (entry, at, part) in self.cut {
            if let Some(header) = checks.add(entry, at, &part, table.header_length(entry))
                && !table.header_matches(entry, &header)
            {
                refused.push(entry);
            }
        }
        checks.refuse(&refused, directory);
        refused
    }
}
