//! Entering a new user namespace.
#![expect(unsafe_code, reason = "unshare(2) is unsafe in general")]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Enters a new user namespace. Only a process with a single thread can.
///
/// # Errors
/// What unshare(2) says.
pub fn enter_user_namespace() -> io::Result<()> {
    // SAFETY: the call is unsafe because it can divide the table of file descriptors. That is not asked for.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(io::Error::from)
}
