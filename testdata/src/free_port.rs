//! Ports for servers that are told where to listen.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

/// A port of the loopback address where nobody listens.
///
/// It is below those that the system chooses for whoever asks for any: by Linux's default 32,768 and above. A port of these could go to
/// another test before the server listens, and the server of that test would be taken for this one. Processes begin at
/// different ports, and no port is given twice by one process before all were.
///
/// # Panics
/// If all are taken.
#[must_use]
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    (0..COUNT)
        .map(|_| {
            let tried = TRIED.fetch_add(1, Ordering::Relaxed);
            FIRST + std::process::id().wrapping_mul(101).wrapping_add(tried) % COUNT
        })
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("no port is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_different() {
        let ports: Vec<_> = (0..100).map(|_| free_port()).collect();
        // Held at the same time, so each must be another one.
        let listeners: Vec<_> =
            ports.iter().map(|port| TcpListener::bind(("127.0.0.1", *port)).unwrap()).collect();
        assert_eq!(listeners.len(), 100);
    }
}
