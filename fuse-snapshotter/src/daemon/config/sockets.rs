//! Trying a unix socket without waiting.

use std::path::{Path, PathBuf};

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

/// Why nobody answers on a socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotListening {
    #[error("there is no socket {}", .0.display())]
    NoSocket(PathBuf),
    #[error("nobody listens on {}", .0.display())]
    Refused(PathBuf),
    #[error("cannot connect to {}: {error}", path.display())]
    Other { path: PathBuf, error: Errno },
}

/// Whether somebody listens on a socket, or why not.
pub(super) fn listens(path: &Path) -> Result<(), NotListening> {
    let own = path.to_owned();
    try_connect(path).map_err(|error| match error {
        Errno::NOENT => NotListening::NoSocket(own),
        Errno::CONNREFUSED => NotListening::Refused(own),
        error => NotListening::Other { path: own, error },
    })
}
