//! Maps of sparse files: GNU's old format, and its PAX formats 0.0, 0.1 and 1.0.

use std::io::BufRead;

use ztoc::tar::{self, BLOCK};

use super::error::UnpackError;
use super::options::Limits;
use super::pax::Records;
use super::stream::Stream;

/// A run of bytes that the archive has; between them are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// How PAX records say that a file is sparse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PaxFormat {
    /// 0.0 and 0.1: the map is in the records.
    InRecords,
    /// 1.0: the map is in front of the data.
    InData,
}

/// `None` if the file is not sparse, or in a format from the future, in which it is unpacked as it is stored.
pub(super) fn pax_format(records: &Records) -> Option<PaxFormat> {
    match (records.get("GNU.sparse.major"), records.get("GNU.sparse.minor")) {
        (Some(b"0"), Some(b"0" | b"1")) => Some(PaxFormat::InRecords),
        (Some(b"1"), Some(b"0")) => Some(PaxFormat::InData),
        (None, None) => records.get("GNU.sparse.map").map(|_| PaxFormat::InRecords),
        _ => None,
    }
}

/// The map of formats 0.0 and 0.1: numbers between commas.
pub(super) fn from_records(records: &Records, limits: &Limits) -> Result<Vec<Region>, &'static str> {
    let Some(text) = records.get("GNU.sparse.map") else { return Ok(Vec::new()) };
    let numbers = text.split(|byte| *byte == b',').map(decimal).collect::<Result<Vec<_>, _>>()?;
    if !numbers.len().is_multiple_of(2) {
        return Err("malformed sparse map");
    }
    if numbers.len() / 2 > limits.sparse_regions {
        return Err("the sparse map has too many regions");
    }
    Ok(numbers.chunks_exact(2).map(|pair| Region { offset: pair[0], length: pair[1] }).collect())
}

/// Reads the map of format 1.0, which is in whole blocks in front of the data: lines with the number of
/// regions, then offset and length of each. `left` is the size of map and data; returns what is left of it.
pub(super) fn from_data<R: BufRead>(
    stream: &mut Stream<R>,
    mut left: u64,
    limits: &Limits,
) -> Result<(Vec<Region>, u64), UnpackError> {
    let error = |stream: &Stream<R>, reason| UnpackError::Archive { offset: stream.position(), reason };
    let (mut regions, mut pending, mut expected) = (Vec::new(), None, None);
    let (mut line, mut block) = (Vec::with_capacity(20), [0; BLOCK]);
    while expected != Some(regions.len()) {
        if left < BLOCK as u64 || stream.read(&mut block)? < BLOCK {
            return Err(error(stream, "the sparse map is cut short"));
        }
        left -= BLOCK as u64;
        for byte in block {
            if byte != b'\n' {
                // The longest number has 19 digits.
                if line.len() == 20 {
                    return Err(error(stream, "malformed sparse map"));
                }
                line.push(byte);
                continue;
            }
            let number = decimal(&line).map_err(|reason| error(stream, reason))?;
            line.clear();
            match (expected, pending.take()) {
                (None, _) => {
                    let count = usize::try_from(number).unwrap_or(usize::MAX);
                    if count > limits.sparse_regions {
                        return Err(error(stream, "the sparse map has too many regions"));
                    }
                    expected = Some(count);
                }
                (_, None) => pending = Some(number),
                (_, Some(offset)) => regions.push(Region { offset, length: number }),
            }
            if expected == Some(regions.len()) {
                break;
            }
        }
    }
    Ok((regions, left))
}

/// Reads the map of the old GNU format: four regions in the header and then, if it says so, blocks of 21.
/// Returns the file's size, too.
pub(super) fn from_gnu_header<R: BufRead>(
    stream: &mut Stream<R>,
    block: &[u8; BLOCK],
    limits: &Limits,
) -> Result<(Vec<Region>, i64), UnpackError> {
    let error = |stream: &Stream<R>, reason| UnpackError::Archive { offset: stream.position(), reason };
    let size = tar::number(&block[483..495]).map_err(|reason| error(stream, reason))?;
    let mut regions = Vec::new();
    let mut add = |descriptors: &[u8]| {
        for descriptor in descriptors.chunks_exact(24) {
            if descriptor[0] == 0 {
                break;
            }
            let field = |bytes| u64::try_from(tar::number(bytes)?).map_err(|_| "malformed sparse map");
            let region = Region { offset: field(&descriptor[..12])?, length: field(&descriptor[12..])? };
            if regions.len() == limits.sparse_regions {
                return Err("the sparse map has too many regions");
            }
            regions.push(region);
        }
        Ok(())
    };
    add(&block[386..482]).map_err(|reason| error(stream, reason))?;
    let (mut extended, mut extension) = (block[482] > 0, [0; BLOCK]);
    while extended {
        if stream.read(&mut extension)? < BLOCK {
            return Err(error(stream, "the archive ends within a sparse map"));
        }
        add(&extension[..504]).map_err(|reason| error(stream, reason))?;
        extended = extension[504] > 0;
    }
    Ok((regions, size))
}

/// Checks that the regions are in order, within the file, and as long together as the data.
pub(super) fn check(regions: &[Region], size: u64, stored: u64) -> Result<(), &'static str> {
    let (mut end, mut total) = (0u64, 0u64);
    for region in regions {
        let next = region.offset.checked_add(region.length).filter(|next| *next <= size);
        if region.offset < end {
            return Err("the sparse map's regions are out of order");
        }
        end = next.ok_or("the sparse map goes beyond the end of the file")?;
        // Cannot overflow: the regions do not overlap.
        total += region.length;
    }
    if total == stored { Ok(()) } else { Err("the sparse map does not match the data") }
}

fn decimal(text: &[u8]) -> Result<u64, &'static str> {
    tar::pax_number(text).ok().and_then(|number| u64::try_from(number).ok()).ok_or("malformed sparse map")
}
