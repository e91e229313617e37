//! The logins that came with `PullImage`, by image.
//!
//! A login is used from the moment the pull begins, because layers are prepared within it. Whether it is any good is
//! known when the pull ends: a pull that fails must not take away a login that worked, or anybody who can start a pod
//! with a wrong one would cut running containers off from their registry.

use std::collections::VecDeque;

use registry::{Credential, Reference, same_registry};

/// More images than a node has; the oldest go first.
const MAX_RECORDS: usize = 10_000;
/// What all logins together may take up, in bytes.
const MAX_BYTES: usize = 32 << 20;
/// The tokens of cloud registries have up to 4 KiB.
const MAX_LOGIN_BYTES: usize = 64 << 10;

/// Names one call of `PullImage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pull(u64);

/// Bounded in entries and bytes. No `Debug`: it holds secrets.
#[derive(Default)]
pub(super) struct Store {
    /// Oldest first.
    records: VecDeque<Record>,
    bytes: usize,
    last: u64,
    /// How often a login has gone, or has taken the place of another.
    revision: u64,
}

struct Record {
    pull: Pull,
    reference: Reference,
    /// The registry that the login is for, `host[:port]`; empty: that of the reference.
    server: String,
    credential: Credential,
    /// A pull with it has succeeded.
    proven: bool,
    /// The id that the runtime gave the image, by which it may be removed; empty if not known.
    image_id: String,
}

impl Store {
    /// A pull of `reference` begins with this login for `server` (empty: any). `None` if it is too large to keep.
    pub(super) fn begin(
        &mut self,
        reference: Reference,
        server: String,
        credential: Credential,
    ) -> Option<Pull> {
        self.last += 1;
        let pull = Pull(self.last);
        let record = Record { pull, reference, server, credential, proven: false, image_id: String::new() };
        if record.bytes() > MAX_LOGIN_BYTES {
            return None;
        }
        self.bytes += record.bytes();
        self.records.push_back(record);
        while self.records.len() > MAX_RECORDS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.records.pop_front() else { break };
            self.revision += 1;
            self.bytes -= oldest.bytes();
        }
        Some(pull)
    }

    /// The pull was successful; the runtime calls the image `image_id`.
    pub(super) fn succeeded(&mut self, pull: Pull, image_id: &str) {
        let Some(record) = self.records.iter_mut().find(|record| record.pull == pull) else { return };
        record.proven = true;
        if record.image_id.is_empty() && image_id.len() <= MAX_LOGIN_BYTES {
            record.image_id = image_id.to_owned();
            self.bytes += image_id.len();
        }
        // It takes the place of what came before it for the same image, but not of a pull that is under way.
        let reference = record.reference.clone();
        self.retain(|other| {
            other.reference != reference || other.pull == pull || (!other.proven && other.pull.0 > pull.0)
        });
    }

    /// The pull failed, for whatever reason.
    pub(super) fn failed(&mut self, pull: Pull) {
        let Some(record) = self.records.iter().find(|record| record.pull == pull) else { return };
        let reference = record.reference.clone();
        let better = |other: &Record| {
            other.reference == reference
                || (other.proven && other.reference.repository() == reference.repository())
        };
        // It is kept while there is nothing else: the failure may not have been the login's.
        if self.records.iter().any(|other| other.pull != pull && better(other)) {
            self.retain(|other| other.pull != pull);
        }
    }

    /// The image is gone from the runtime; `name` is a reference to it or its id.
    pub(super) fn removed(&mut self, name: &str) {
        let reference = name.parse::<Reference>().ok();
        let hex = |id: &str| id.strip_prefix("sha256:").unwrap_or(id).to_owned();
        let id = hex(name);
        self.retain(|record| {
            Some(&record.reference) != reference.as_ref()
                && (record.image_id.is_empty() || hex(&record.image_id) != id)
        });
    }

    /// A number that changes when a login has gone. That a pull begins is no such change: until it succeeds, what was
    /// made with a login that works stays.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The newest login for any image of `repository` on `host`.
    pub(super) fn get(&self, host: &str, repository: &str) -> Option<Credential> {
        let fits = |record: &&Record| {
            record.reference.repository().name() == repository
                && same_registry(record.reference.registry(), host)
                && (record.server.is_empty() || same_registry(&record.server, host))
        };
        self.records.iter().rev().find(fits).map(|record| record.credential.clone())
    }

    fn retain(&mut self, keep: impl Fn(&Record) -> bool) {
        self.revision += 1;
        self.records.retain(keep);
        self.bytes = self.records.iter().map(Record::bytes).sum();
    }
}

impl Record {
    fn bytes(&self) -> usize {
        let login = match &self.credential {
            Credential::Password { username, password } => username.len() + password.len(),
            Credential::IdentityToken(token) | Credential::RegistryToken(token) => token.len(),
            // Kinds yet to come.
            _ => 0,
        };
        let repository = self.reference.repository();
        login + self.server.len() + self.image_id.len() + repository.host().len() + repository.name().len()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn begin(store: &mut Store, image: &str, server: &str, user: &str) -> Pull {
        store.begin(image.parse().unwrap(), server.to_owned(), Credential::password(user, "p")).unwrap()
    }

    fn user(store: &Store, host: &str, repository: &str) -> String {
        match store.get(host, repository) {
            Some(Credential::Password { username, .. }) => username,
            _ => String::new(),
        }
    }

    #[test]
    fn the_newest_of_a_repository_is_used_at_once() {
        let mut store = Store::default();
        begin(&mut store, "q.io/a/b:1", "", "one");
        begin(&mut store, "q.io/a/b:2", "", "two");
        begin(&mut store, "redis", "", "hub");
        assert_eq!(user(&store, "q.io", "a/b"), "two");
        assert_eq!(user(&store, "q.io", "a"), "");
        assert_eq!(user(&store, "q.io:443", "a/b"), "");
        assert_eq!(user(&store, "registry-1.docker.io", "library/redis"), "hub");
    }

    #[test]
    fn a_login_goes_to_its_own_server_only() {
        let mut store = Store::default();
        begin(&mut store, "q.io/a:1", "other.io", "one");
        assert_eq!(user(&store, "q.io", "a"), "");
        assert_eq!(user(&store, "other.io", "a"), "");
        begin(&mut store, "redis", "index.docker.io", "hub");
        assert_eq!(user(&store, "registry-1.docker.io", "library/redis"), "hub");
    }

    #[test]
    fn a_failed_pull_takes_nothing_away() {
        let mut store = Store::default();
        let good = begin(&mut store, "q.io/a:1", "", "good");
        store.succeeded(good, "sha256:1");
        let bad = begin(&mut store, "q.io/a:2", "", "bad");
        assert_eq!(user(&store, "q.io", "a"), "bad");
        store.failed(bad);
        assert_eq!(user(&store, "q.io", "a"), "good");
        // Without anything else the failed one is better than nothing, as the reference has it.
        let only = begin(&mut store, "q.io/b:1", "", "only");
        store.failed(only);
        assert_eq!(user(&store, "q.io", "b"), "only");
        let next = begin(&mut store, "q.io/b:1", "", "next");
        store.succeeded(next, "");
        assert_eq!(user(&store, "q.io", "b"), "next");
        assert_eq!(store.records.len(), 2);
    }

    #[test]
    fn removal_by_reference_and_by_id() {
        let mut store = Store::default();
        for (image, id) in [("q.io/a:1", "sha256:aa"), ("q.io/a:2", "sha256:bb"), ("q.io/a:3", "sha256:bb")] {
            let pull = begin(&mut store, image, "", id);
            store.succeeded(pull, id);
        }
        store.removed("sha256:bb");
        assert_eq!(user(&store, "q.io", "a"), "sha256:aa");
        store.removed("q.io/a:2");
        assert_eq!(user(&store, "q.io", "a"), "sha256:aa");
        store.removed("q.io/a:1");
        assert_eq!(user(&store, "q.io", "a"), "");
        assert_eq!((store.bytes, store.records.len()), (0, 0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut store = Store::default();
        for i in 0..MAX_RECORDS + 3 {
            begin(&mut store, &format!("q.io/a{i}"), "", "me");
        }
        assert_eq!(store.records.len(), MAX_RECORDS);
        assert_eq!(user(&store, "q.io", "a2"), "");
        assert_eq!(user(&store, "q.io", "a3"), "me");

        let large = "x".repeat(MAX_LOGIN_BYTES - 100);
        for i in 0..MAX_BYTES / large.len() + 10 {
            begin(&mut store, &format!("q.io/b{i}"), "", &large);
        }
        assert!(store.bytes <= MAX_BYTES);
        assert_eq!(user(&store, "q.io", "a3"), "");
        let huge = Credential::IdentityToken("x".repeat(MAX_LOGIN_BYTES + 1));
        assert!(store.begin("q.io/c".parse().unwrap(), String::new(), huge).is_none());
    }
}
