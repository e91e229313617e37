//! What is known about servers and their repositories.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::challenge::Scheme;
use super::grant::Grant;
use super::login::Login;
use super::scope::Scope;
use crate::error::Error;
use crate::hosts::Endpoint;

/// Scopes that are remembered. A node pulls from some hundred repositories; to forget all costs each a token.
const MAX_SLOTS: usize = 4096;
/// Servers whose last challenge is remembered.
const MAX_HINTS: usize = 1024;

/// What a server wants from requests for one scope.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// This.
    Asks(Scheme),
    /// Nothing: it refused what it was sent, and let a bare request through.
    Open,
}

/// What is known about one scope. The lock is held while its header is renewed.
pub(super) type Slot = tokio::sync::Mutex<SlotState>;

#[derive(Debug, Default)]
pub(super) struct SlotState {
    pub(super) known: Option<Known>,
    pub(super) grant: Option<Grant>,
    pub(super) serial: u64,
    /// The login that the grant was made with.
    pub(super) login: Login,
    /// The revision of the provider when it gave that login.
    pub(super) revision: u64,
    /// What the server's challenge asked for beyond our own scope.
    pub(super) extra: Scope,
    pub(super) failed: Option<(Instant, Error)>,
}

impl SlotState {
    pub(super) fn scheme(&self) -> Option<Scheme> {
        match &self.known {
            Some(Known::Asks(scheme)) => Some(scheme.clone()),
            Some(Known::Open) | None => None,
        }
    }
}

/// All slots, and for each server what it asked for last: a new repository is likely to be asked for the same, and
/// saves a round trip.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Mutex<HashMap<(String, Scope), Arc<Slot>>>,
    hints: Mutex<HashMap<String, Scheme>>,
}

impl Slots {
    pub(super) fn of(&self, endpoint: &Endpoint, scope: &Scope) -> Arc<Slot> {
        bounded(&self.slots, MAX_SLOTS).entry((server(endpoint), scope.clone())).or_default().clone()
    }

    pub(super) fn hint(&self, endpoint: &Endpoint) -> Option<Scheme> {
        bounded(&self.hints, MAX_HINTS).get(&server(endpoint)).cloned()
    }

    pub(super) fn set_hint(&self, endpoint: &Endpoint, scheme: &Scheme) {
        bounded(&self.hints, MAX_HINTS).insert(server(endpoint), scheme.clone());
    }

    /// Forgets the hint, unless it has changed meanwhile.
    pub(super) fn forget_hint(&self, endpoint: &Endpoint, scheme: &Scheme) {
        let mut hints = bounded(&self.hints, MAX_HINTS);
        let server = server(endpoint);
        if hints.get(&server) == Some(scheme) {
            hints.remove(&server);
        }
    }
}

fn server(endpoint: &Endpoint) -> String {
    format!("{}://{}", if endpoint.is_https() { "https" } else { "http" }, endpoint.host())
}

/// The map, with room for one more.
fn bounded<K: Eq + Hash, V>(map: &Mutex<HashMap<K, V>>, limit: usize) -> MutexGuard<'_, HashMap<K, V>> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if map.len() >= limit {
        map.clear();
    }
    map
}
