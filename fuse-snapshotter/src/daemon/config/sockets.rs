//! Trying a unix socket without waiting.

use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Whether somebody listens on a socket; the error says why not.
///
/// A connection is made and closed at once. It is never waited for, not even for a listener that accepts nothing.
pub(crate) fn try_connect(path: &Path) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        // The queue is full: somebody is there, and busy.
        Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(()),
        outcome => outcome,
    }
}
