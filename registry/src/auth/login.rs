//! Which login a header was made with, without keeping the login.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::credentials::Credential;

/// Another key in each process: what is kept says nothing about the secret.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A fingerprint of a login, or of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Login(Option<u64>);

impl Login {
    pub(super) fn of(credential: Option<&Credential>) -> Self {
        Self(credential.map(|credential| KEY.hash_one(credential)))
    }
}
