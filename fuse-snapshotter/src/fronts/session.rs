//! A connection to the kernel's FUSE, step by step: opening the device, the INIT exchange, serving.
//!
//! The kernel sends INIT once in the life of a connection. `fuser` insists on an INIT whenever a session begins,
//! and answers it at once. So each of the two happens over a socket pair that takes the device's place:
//!
//! * For the exchange, a session that serves nothing answers the kernel's INIT, and its answer is passed on to the
//!   kernel.
//! * For serving, the session gets an INIT that the kernel never sent, its answer is dropped, and the descriptor
//!   that it reads from is then [redirected](redirect) to the device.
//!
//! A device can thus be served whether this process has made the exchange or another one that the device comes from.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;

use fuser::{BackgroundSession, Config, Filesystem, KernelConfig, MountOption, Request, Session, SessionACL};
use rustix::io::{read, retry_on_intr, write};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::base::sys::redirect;

/// Requests of the background kind (read-ahead, mostly) that may be under way. Reads that wait for one image's
/// network must not hold up another image's.
pub(super) const MAX_BACKGROUND: u16 = 512;

/// Longest read that the kernel is told to ask for, in bytes. It asks for at most its read-ahead (128 KiB) anyway.
pub(super) const MAX_READ: u32 = 1 << 20;

/// The kernel refuses to hand out requests to a smaller buffer (`FUSE_MIN_READ_BUFFER`).
const MIN_BUFFER: usize = 8192;

/// Chooses what to ask of the kernel, and says what came of it.
pub(super) type Choose<T> = fn(&mut KernelConfig) -> T;

/// A file system that does nothing but answer INIT.
#[derive(Debug)]
pub(super) struct Handshake<T> {
    choose: Choose<T>,
    chosen: mpsc::Sender<T>,
}

impl<T: Send + 'static> Filesystem for Handshake<T> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Nobody waits for it if the session has failed.
        let _ = self.chosen.send((self.choose)(config));
        Ok(())
    }
}

/// A connection of an ordinary user, which `fusermount3` has mounted. Dropping `mount` unmounts.
#[derive(Debug)]
pub(super) struct UserConnection<T: Send + 'static> {
    pub(super) device: OwnedFd,
    pub(super) chosen: T,
    pub(super) mount: Session<Handshake<T>>,
}

/// Opens the device: a connection that is not mounted yet.
pub(super) fn open_device() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open("/dev/fuse")?.into())
}

/// Answers the INIT of a device that has just been mounted. Returns what `choose` says of it.
pub(super) fn exchange<T: Send + 'static>(device: BorrowedFd<'_>, choose: Choose<T>) -> io::Result<T> {
    let mut message = vec![0; MIN_BUFFER];
    let length = retry_on_intr(|| read(device, &mut message))?;
    let (ours, theirs) = socket_pair()?;
    write(&ours, &message[..length])?;
    // A session that wanted a second request would wait for it for ever.
    shutdown(&ours, Shutdown::Write)?;
    let (chosen, receiver) = mpsc::channel();
    let session = Session::from_fd(Handshake { choose, chosen }, theirs, SessionACL::All, Config::default())?;
    let length = retry_on_intr(|| read(&ours, &mut message))?;
    write(device, &message[..length])?;
    drop(session);
    receiver.recv().map_err(|_| io::Error::other("the INIT exchange has not taken place"))
}

/// Has `fusermount3` open the device and mount it, and answers its INIT. `fuser` does not separate these steps.
pub(super) fn fusermount<T: Send + 'static>(
    path: &Path,
    options: Vec<MountOption>,
    acl: SessionACL,
    choose: Choose<T>,
) -> io::Result<UserConnection<T>> {
    let mut config = Config::default();
    config.mount_options = options;
    config.acl = acl;
    let (chosen, receiver) = mpsc::channel();
    let mount = Session::new(Handshake { choose, chosen }, path, &config)?;
    let chosen = receiver.recv().map_err(|_| io::Error::other("the INIT exchange has not taken place"))?;
    Ok(UserConnection { device: mount.as_fd().try_clone_to_owned()?, chosen, mount })
}

/// Serves a device whose INIT exchange is over, until the file system is unmounted.
pub(super) fn serve(
    filesystem: impl Filesystem,
    device: OwnedFd,
    acl: SessionACL,
    threads: usize,
) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    // The kernel has a queue of answers for each thread then.
    config.clone_fd = true;
    let (ours, theirs) = socket_pair()?;
    write(&ours, &init_request())?;
    shutdown(&ours, Shutdown::Write)?;
    let session = Session::from_fd(filesystem, theirs, acl, config)?;
    redirect(session.as_fd(), device.as_fd())?;
    drop(device);
    session.spawn()
}

/// Two connected sockets that keep messages apart, as the device does.
fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// An INIT request of a kernel that offers nothing: `struct fuse_in_header`, then `struct fuse_init_in`.
fn init_request() -> Vec<u8> {
    const LENGTH: u32 = 40 + 64;
    const OPCODE: u32 = 26;
    const VERSION: [u32; 2] = [7, 40];
    let mut request = Vec::with_capacity(LENGTH as usize);
    for word in [LENGTH, OPCODE] {
        request.extend(word.to_ne_bytes());
    }
    // The request's number. The file's number, the caller, read-ahead and flags are 0.
    request.extend(1_u64.to_ne_bytes());
    request.resize(40, 0);
    for word in VERSION {
        request.extend(word.to_ne_bytes());
    }
    request.resize(LENGTH as usize, 0);
    request
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]

    use fuser::InitFlags;

    use super::*;

    /// The other end of a socket pair that is used as a device.
    fn kernel(request: &[u8]) -> (OwnedFd, OwnedFd) {
        let (kernel, device) = socket_pair().unwrap();
        write(&kernel, request).unwrap();
        (kernel, device)
    }

    #[test]
    fn the_exchange_answers_the_kernel_and_says_what_was_chosen() {
        let (kernel, device) = kernel(&init_request());
        let chosen = exchange(device.as_fd(), |config| {
            config.set_max_background(77).unwrap();
            config.capabilities().contains(InitFlags::FUSE_ASYNC_DIO)
        });
        assert!(!chosen.unwrap(), "the request offers nothing");
        let mut answer = [0; 200];
        let length = read(&kernel, &mut answer).unwrap();
        // `struct fuse_out_header`, then `struct fuse_init_out`.
        let word = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
        assert_eq!((word(0) as usize, word(4)), (length, 0));
        assert_eq!(u64::from_ne_bytes(answer[8..16].try_into().unwrap()), 1);
        assert_eq!((word(16), word(32) & 0xffff), (7, 77));
    }

    #[test]
    fn what_is_no_init_fails_and_does_not_hang() {
        let mut lookup = init_request();
        lookup[4..8].copy_from_slice(&1_u32.to_ne_bytes());
        let mut newer = init_request();
        newer[40..44].copy_from_slice(&8_u32.to_ne_bytes());
        for request in [lookup, newer, vec![0; 3]] {
            let (_kernel, device) = kernel(&request);
            assert!(exchange(device.as_fd(), |_| ()).is_err());
        }
    }
}
