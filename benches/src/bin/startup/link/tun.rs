//! A TUN device: a network interface whose packets this process reads and writes. It goes when its descriptor is closed,
//! so that nothing is left of it however the process ends.
#![expect(unsafe_code, reason = "the ioctl that makes a TUN device has no safe interface")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

/// Linux's `struct ifreq`, as far as this needs it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Before each packet stands `struct virtio_net_hdr`: whether its checksum is still to be made, and whether it is many
/// packets in one. What one device gives, the other takes as it is.
pub(super) const HEADER: usize = 10;
/// Many packets in one have at most this.
pub(super) const LARGEST: usize = HEADER + 65_535;

/// One device.
pub(super) struct Tun(File);

impl Tun {
    /// Makes a device of this name, which must be free.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/net/tun")?;
        let mut request = Request { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
        // The name ends with a zero.
        if name.len() >= request.name.len() {
            return Err(io::Error::other(format!("{name}: too long for the name of an interface")));
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request.flags =
            (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL) as libc::c_short;
        // SAFETY: the descriptor is open, and the request is a whole `struct ifreq` that outlives the call.
        let code = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
        if code < 0 {
            return Err(io::Error::last_os_error());
        }
        let tun = Self(device);
        tun.combine(false)?;
        Ok(tun)
    }

    /// Whether the kernel may hand over many TCP packets as one. Needed where a system call for each is too slow.
    pub(super) fn combine(&self, on: bool) -> io::Result<()> {
        let features = libc::TUN_F_CSUM | if on { libc::TUN_F_TSO4 } else { 0 };
        // SAFETY: the descriptor is open; the argument is a plain number.
        let code = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(features))
        };
        if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for a packet; returns its length with the header before it.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }

    /// Hands a packet, with the header before it, to the kernel.
    pub(super) fn write(&self, packet: &[u8]) -> io::Result<usize> {
        (&self.0).write(packet)
    }
}

/// What a packet would take on a wire: one that is many has their headers too.
pub(super) fn wire_size(frame: &[u8]) -> u64 {
    let (Some(header), Some(packet)) = (frame.get(..HEADER), frame.get(HEADER..)) else { return 0 };
    let whole = packet.len() as u64;
    let segment = u64::from(u16::from_ne_bytes([header[4], header[5]]));
    if header[1] == 0 || segment == 0 {
        return whole;
    }
    let Some(first) = packet.first() else { return 0 };
    let internet = usize::from(first & 15) * 4;
    let Some(offset) = packet.get(internet + 12) else { return whole };
    let headers = (internet + usize::from(offset >> 4) * 4) as u64;
    let segments = whole.saturating_sub(headers).div_ceil(segment);
    whole + headers * segments.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_combined_packets_count() {
        let mut frame = vec![0; HEADER + 40 + 3000];
        frame[HEADER] = 0x45;
        frame[HEADER + 20 + 12] = 5 << 4;
        assert_eq!(wire_size(&frame), 3040);
        frame[1] = 1;
        frame[4..6].copy_from_slice(&1460u16.to_ne_bytes());
        assert_eq!(wire_size(&frame), 3040 + 2 * 40);
        assert_eq!(wire_size(&frame[..5]), 0);
        assert_eq!(wire_size(&frame[..HEADER]), 0);
    }
}
