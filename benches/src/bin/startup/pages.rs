//! Which pages of a file are in memory.
#![expect(unsafe_code, reason = "mincore(2) has no safe interface")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The byte ranges of a file whose pages are in the page cache. Nothing is read.
pub(crate) fn resident(file: &File) -> io::Result<Vec<Range<u64>>> {
    let size = file.metadata()?.len();
    let length = usize::try_from(size).map_err(io::Error::other)?;
    if length == 0 {
        return Ok(Vec::new());
    }
    let page = rustix::param::page_size();
    let mut present = vec![0u8; length.div_ceil(page)];
    // SAFETY: a new mapping at a place of the kernel's choice, of a file that is open; it is never accessed.
    let address = unsafe {
        libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range is the mapping, and there is a byte for each of its pages.
    let code = unsafe { libc::mincore(address, length, present.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the mapping is ours, and not used afterwards.
    unsafe { libc::munmap(address, length) };
    if code < 0 {
        return Err(error);
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (number, _) in present.iter().enumerate().filter(|(_, flags)| *flags & 1 == 1) {
        let start = (number * page) as u64;
        let end = (start + page as u64).min(size);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_just_written_is_in_memory() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        assert_eq!(resident(&file).unwrap(), [0..10_000]);
        file.set_len(0).unwrap();
        assert!(resident(&file).unwrap().is_empty());
    }
}
