//! Of a list of referrers, those of one artifact type.
//!
//! Lists are written by registries and by tools that copy images, and some leave the type out, or give that of the empty
//! configuration. Such an entry says nothing, so its manifest is read: the type is `artifactType`, or the media type of
//! the configuration (image-spec, "Guidelines for Artifact Usage").

use std::sync::Arc;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::descriptor::Descriptor;
use crate::error::Result;
use crate::hosts::Endpoint;
use crate::media_types::OCI_EMPTY;
use crate::reference::{Repository, TagOrDigest};

/// Entries without a type that are looked at. Anybody who may push to the repository can add some.
const MAX_UNTYPED: usize = 32;
/// A manifest larger than this is not read for its type, in bytes: that of a thousand layers has half of it.
const MAX_SIZE: u64 = 1 << 20;
/// Manifests that are read at the same time.
const PARALLEL: usize = 8;

/// The entries that can be read. One that cannot be (another digest algorithm, say) must not hide the others.
pub(super) fn readable(entries: Vec<Value>) -> Vec<Descriptor> {
    let read = |entry| match serde_json::from_value::<Descriptor>(entry) {
        Ok(descriptor) => Some(descriptor),
        Err(error) => {
            tracing::debug!(%error, "an entry of the list of referrers is passed over");
            None
        }
    };
    entries.into_iter().filter_map(read).collect()
}

fn has_type(entry: &Descriptor) -> bool {
    entry.artifact_type.as_deref().is_some_and(|kind| !kind.is_empty() && kind != OCI_EMPTY)
}

impl Client {
    /// Those of `entries` that are of this type, in their order.
    ///
    /// # Errors
    /// If none is, and a manifest that may have been could not be read.
    pub(super) async fn of_type(
        &self,
        endpoint: &Arc<Endpoint>,
        repository: &Repository,
        entries: Vec<Descriptor>,
        wanted: &str,
    ) -> Result<Vec<Descriptor>> {
        let mut left = MAX_UNTYPED;
        let mut looked_at = |entry: &Descriptor| {
            let looks = !has_type(entry) && entry.size <= MAX_SIZE && left > 0;
            left -= usize::from(looks);
            looks
        };
        let entries: Vec<_> = entries.into_iter().map(|entry| (looked_at(&entry), entry)).collect();
        let typed = futures::stream::iter(entries).map(|(looks, mut entry)| async move {
            if looks {
                entry.artifact_type = self.type_of(endpoint, repository, &entry).await?;
            }
            Ok(entry)
        });
        let typed: Vec<Result<Descriptor>> = typed.buffered(PARALLEL).collect().await;
        let mut failed = None;
        let mut found = Vec::new();
        for entry in typed {
            match entry {
                Ok(entry) if entry.artifact_type.as_deref() == Some(wanted) => found.push(entry),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// The type that a referrer's manifest says it has; `None` if it says none or is gone.
    async fn type_of(
        &self,
        endpoint: &Arc<Endpoint>,
        repository: &Repository,
        entry: &Descriptor,
    ) -> Result<Option<String>> {
        let digest = TagOrDigest::Digest(entry.digest.clone());
        match self.manifest_from(endpoint.clone(), repository, &digest).await {
            Ok(manifest) => Ok(declared_type(&manifest.bytes)),
            // What cannot be had or is not what it should be is no referrer; what may come later is.
            Err(error) if error.is_transient() || error.is_auth() => Err(error),
            Err(error) => {
                tracing::debug!(digest = %entry.digest, %error, "a referrer without a type is passed over");
                Ok(None)
            }
        }
    }
}

/// What a manifest says it is.
fn declared_type(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        artifact_type: Option<String>,
        config: Option<Config>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        media_type: Option<String>,
    }
    let manifest = serde_json::from_slice::<Manifest>(bytes).ok()?;
    let own = manifest.artifact_type.filter(|own| !own.is_empty());
    own.or_else(|| manifest.config?.media_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use serde_json::json;

    #[test]
    fn one_bad_entry_does_not_hide_the_rest() {
        let bad = json!({"mediaType": "m", "digest": "sha512:odd", "size": 1});
        let good = json!({"mediaType": "m", "digest": Digest::of(b"x"), "size": 1, "artifactType": "t"});
        let list = readable(vec![bad, json!("rubbish"), good]);
        assert_eq!(list.len(), 1);
        assert!(has_type(&list[0]));
    }

    #[test]
    fn the_type_stands_in_the_manifest_or_in_its_configuration() {
        for (manifest, expected) in [
            (json!({"artifactType": "t", "config": {"mediaType": "c"}}), Some("t")),
            (json!({"artifactType": "", "config": {"mediaType": "c"}}), Some("c")),
            (json!({"artifactType": null, "config": {"mediaType": "c"}}), Some("c")),
            (json!({"config": {}}), None),
            (json!([]), None),
        ] {
            assert_eq!(declared_type(manifest.to_string().as_bytes()).as_deref(), expected, "{manifest}");
        }
    }
}
