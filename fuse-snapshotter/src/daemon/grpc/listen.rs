//! The socket that containerd connects to.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use tokio::net::UnixListener;

/// Where connections come from, and the path to tell people, if it is known.
pub type Listener = (UnixListener, Option<PathBuf>);

/// Listens at an address: a path, `unix://PATH`, or `fd://` for the one socket that systemd hands over.
///
/// A socket file that nobody listens on is replaced; where somebody does, there is a daemon already.
///
/// # Errors
/// If it cannot be listened on.
pub fn bind(address: &str, default: &Path) -> io::Result<Listener> {
    if let Some(rest) = address.strip_prefix("fd://") {
        if !rest.is_empty() {
            return Err(io::Error::other(format!(
                "{address}: write fd:// for the socket that systemd hands over"
            )));
        }
        return match inherited()? {
            Some(listener) => Ok((listener, None)),
            None => {
                tracing::warn!(path = %default.display(), "systemd handed over no socket; listening at the default path");
                at_path(default)
            }
        };
    }
    at_path(Path::new(address.strip_prefix("unix://").unwrap_or(address)))
}

fn inherited() -> io::Result<Option<UnixListener>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(io::Error::other(format!(
            "systemd handed over {} sockets; one is needed",
            sockets.len()
        )));
    }
    let Some(listener) = sockets.take_unix_listener(0)? else { return Ok(None) };
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener).map(Some)
}

fn at_path(path: &Path) -> io::Result<Listener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon listens there")),
            Err(_) => std::fs::remove_file(path)?,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok((listener, Some(path.to_owned())))
}
