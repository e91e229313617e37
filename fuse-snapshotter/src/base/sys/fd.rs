//! Descriptors that another crate owns.
#![expect(unsafe_code, reason = "the owner of the descriptor lends it only as borrowed")]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{DupFlags, dup3};

/// Lets the descriptor `fd` stand for the file that `source` stands for. What `fd` stood for is closed, as far as
/// no other descriptor stands for it. A program that is executed does not inherit `fd`.
///
/// The owner of `fd` is not told: it must not rely on which file the descriptor stands for.
///
/// # Errors
/// What dup3(2) says.
pub(crate) fn redirect(fd: BorrowedFd<'_>, source: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, because it is borrowed for the whole call. `ManuallyDrop` keeps this second
    // owner from closing it, and dup3(2) leaves it open whether it succeeds or not.
    let mut fd = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) });
    Ok(dup3(source, &mut fd, DupFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn a_redirected_descriptor_stands_for_the_other_file() {
        let (before, mut from_before) = std::os::unix::net::UnixStream::pair().unwrap();
        let (after, mut from_after) = std::os::unix::net::UnixStream::pair().unwrap();
        redirect(before.as_fd(), after.as_fd()).unwrap();
        drop(after);
        (&before).write_all(b"x").unwrap();
        let mut byte = [0];
        from_after.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        // Nothing else held the other end.
        assert_eq!(from_before.read(&mut byte).unwrap(), 0);
        assert!(fcntl_getfd(&before).unwrap().contains(FdFlags::CLOEXEC));
    }
}
