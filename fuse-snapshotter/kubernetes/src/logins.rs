//! Secrets as the API server sends them, and the logins in them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use kube::Resource;
use kube::api::ObjectMeta;
use registry::{Credential, DockerAuths};
use serde::Deserialize;
use serde_json::Value;

use super::pattern::Pattern;

/// More secrets than anybody has; whoever may create secrets must not fill the daemon's memory.
const MAX_SECRETS: usize = 20_000;
/// For all of them together, in bytes of their JSON.
const MAX_BYTES: usize = 64 << 20;

/// The types of secrets that hold logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `{"auths": …}`
    DockerConfigJson,
    /// The form of Docker before 1.7, without `auths` around it.
    DockerCfg,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::DockerConfigJson, Self::DockerCfg];

    pub(crate) fn secret_type(self) -> &'static str {
        match self {
            Self::DockerConfigJson => "kubernetes.io/dockerconfigjson",
            Self::DockerCfg => "kubernetes.io/dockercfg",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::DockerConfigJson => ".dockerconfigjson",
            Self::DockerCfg => ".dockercfg",
        }
    }
}

/// A secret. Its content is taken as it comes, because the client library logs answers that do not fit their type; and
/// `Debug` shows none of it.
#[derive(Clone, Deserialize)]
pub(crate) struct Secret {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    data: Value,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secret").field(&self.metadata.name).finish()
    }
}

impl Resource for Secret {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Secret".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "secrets".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Namespace and name: the order in which equals are preferred.
type Name = (String, String);

/// The logins of one secret.
pub(crate) struct Entry {
    keys: Vec<(Pattern, Credential)>,
    bytes: usize,
}

/// What a secret is called.
pub(crate) fn name(secret: &Secret) -> Name {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    (text(&secret.metadata.namespace), text(&secret.metadata.name))
}

/// Reads a secret. `None` in place of the entry if it has nothing to offer.
pub(crate) fn read(kind: Kind, secret: &Secret) -> (Name, Option<Entry>) {
    let name = name(secret);
    let complain = |what: &str| {
        tracing::warn!(
            namespace = name.0,
            name = name.1,
            "image pull login in Kubernetes cannot be used: {what}"
        );
    };
    let Some(encoded) = secret.data.get(kind.key()).and_then(Value::as_str) else {
        complain("it has no content");
        return (name, None);
    };
    let Ok(json) = base64::engine::general_purpose::STANDARD.decode(encoded) else {
        complain("its content is not base64");
        return (name, None);
    };
    let parsed = match kind {
        Kind::DockerConfigJson => DockerAuths::from_json(&json),
        Kind::DockerCfg => DockerAuths::from_legacy_json(&json),
    };
    let auths = match parsed {
        Ok(auths) => auths,
        Err(error) => {
            complain(&error);
            return (name, None);
        }
    };
    if !auths.broken.is_empty() {
        complain("some of its entries are no base64 of `user:…`");
    }
    let patterns = auths.entries.into_iter();
    let keys: Vec<_> = patterns.filter_map(|(key, login)| Some((Pattern::new(&key)?, login))).collect();
    let entry = (!keys.is_empty()).then_some(Entry { keys, bytes: json.len() });
    (name, entry)
}

/// What all secrets offer.
#[derive(Default)]
pub(crate) struct Logins {
    entries: BTreeMap<(Name, Kind), Entry>,
    bytes: usize,
    full: bool,
    /// How often anything has changed.
    revision: u64,
}

impl Logins {
    /// A secret came, changed, or (`None`) has gone or become useless.
    pub(crate) fn set(&mut self, kind: Kind, name: Name, entry: Option<Entry>) {
        self.revision += 1;
        let key = (name, kind);
        if let Some(old) = self.entries.remove(&key) {
            self.bytes -= old.bytes;
        }
        let Some(entry) = entry else { return };
        if self.entries.len() >= MAX_SECRETS || self.bytes + entry.bytes > MAX_BYTES {
            if !std::mem::replace(&mut self.full, true) {
                tracing::warn!("there are too many image pull logins in Kubernetes; some are not used");
            }
            return;
        }
        self.bytes += entry.bytes;
        self.entries.insert(key, entry);
    }

    /// Of this kind, these and no others are there now.
    pub(crate) fn replace(&mut self, kind: Kind, listed: Self) {
        self.revision += 1;
        self.entries.retain(|(_, other), _| *other != kind);
        self.bytes = self.entries.values().map(|entry| entry.bytes).sum();
        self.full = listed.full;
        for ((name, kind), entry) in listed.entries {
            self.set(kind, name, Some(entry));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A number that changes with every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The login with the most specific key.
    pub(crate) fn get(&self, host: &str, repository: &str) -> Option<Credential> {
        let all = self.entries.values().flat_map(|entry| &entry.keys);
        let ranked = all.filter_map(|(key, login)| Some((key.rank(host, repository)?, login)));
        // The first of equals; `max_by` would give the last.
        let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(_, login)| login.clone())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn entry(bytes: usize) -> Option<Entry> {
        let keys = vec![(Pattern::new("q.io").unwrap(), Credential::password("a", "b"))];
        Some(Entry { keys, bytes })
    }

    fn name(i: usize) -> Name {
        ("n".to_owned(), i.to_string())
    }

    #[test]
    fn memory_is_bounded() {
        let mut logins = Logins::default();
        for i in 0..MAX_SECRETS + 5 {
            logins.set(Kind::DockerCfg, name(i), entry(1));
        }
        assert_eq!((logins.len(), logins.bytes), (MAX_SECRETS, MAX_SECRETS));
        logins.replace(Kind::DockerCfg, Logins::default());
        assert_eq!((logins.len(), logins.bytes), (0, 0));
        for i in 0..10 {
            logins.set(Kind::DockerCfg, name(i), entry(MAX_BYTES / 4));
        }
        assert_eq!(logins.len(), 4);
        // The same secret anew does not count twice.
        logins.set(Kind::DockerCfg, name(0), entry(MAX_BYTES / 4));
        assert_eq!(logins.len(), 4);
        logins.set(Kind::DockerCfg, name(0), None);
        assert_eq!(logins.bytes, MAX_BYTES / 4 * 3);
    }
}
