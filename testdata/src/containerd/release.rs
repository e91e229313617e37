//! Which containerd it is, and where its programs are.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::clients::Client;
use crate::need::{Need, available};

/// A release of containerd that the tests know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian's package: 1.6, with Debian's runc.
    Debian,
    /// 2.3, built by `scripts/build-test-clients`.
    V2_3,
    /// 2.4, built by `scripts/build-test-clients`.
    V2_4,
}

impl Release {
    /// The one that the tests are run against: what `SOCI_TEST_CONTAINERD` says (`1.6`, `2.3` or `2.4`), else Debian's.
    ///
    /// # Panics
    /// If the variable says something else.
    #[must_use]
    pub fn under_test() -> Self {
        match std::env::var("SOCI_TEST_CONTAINERD").as_deref() {
            Ok("2.3") => Self::V2_3,
            Ok("2.4") => Self::V2_4,
            Ok("1.6" | "") | Err(_) => Self::Debian,
            Ok(other) => panic!("SOCI_TEST_CONTAINERD={other}: expected 1.6, 2.3 or 2.4"),
        }
    }

    /// Whether it is containerd 2: its configuration has version 3, and it pulls through the transfer service.
    #[must_use]
    pub fn is_current(self) -> bool {
        self != Self::Debian
    }

    fn client(self) -> Option<Client> {
        match self {
            Self::Debian => None,
            Self::V2_3 => Some(Client::Containerd23),
            Self::V2_4 => Some(Client::Containerd24),
        }
    }

    /// Whether it can be started here; says aloud why not.
    ///
    /// # Panics
    /// In CI, if it cannot.
    #[must_use]
    pub fn is_available(self) -> bool {
        let debian = [
            Need::Program("containerd", "containerd"),
            Need::Program("ctr", "containerd"),
            Need::Program("runc", "runc"),
        ];
        match self.client() {
            None => available(&debian) && available(&[Need::Root]),
            Some(client) => available(&[Need::Client(client), Need::Client(Client::Runc), Need::Root]),
        }
    }

    /// `containerd`, `ctr` or the shim.
    #[must_use]
    pub fn program(self, name: &str) -> PathBuf {
        self.client().and_then(|client| client.program(name)).unwrap_or_else(|| PathBuf::from(name))
    }

    /// `PATH` with its own programs first: containerd looks for its shim there, and the shim for runc.
    #[must_use]
    pub fn path(self) -> OsString {
        let own = self.client().into_iter().chain(self.is_current().then_some(Client::Runc));
        let own = own.filter_map(Client::directory);
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::join_paths(own.chain(std::env::split_paths(&path))).unwrap()
    }
}
