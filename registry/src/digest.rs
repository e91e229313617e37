//! Content digests as the OCI image specification writes them: `sha256:<64 lower-case hex digits>`.

mod parse;

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use sha2::Digest as _;

const PREFIX: &str = "sha256:";
const HEX_LEN: usize = 64;

/// A validated SHA-256 digest, `sha256:<64 lower-case hex digits>`; cheap to clone.
///
/// Other algorithms are refused when parsing: SOCI, containerd and every registry in use address content by
/// SHA-256, and a digest that cannot be verified must not be mistaken for one that can.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(&sha2::Sha256::digest(bytes).into())
    }

    /// The digest whose hash value is `hash`.
    pub fn from_sha256(hash: &[u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", hex::encode(hash)).into())
    }

    /// Reads a digest; none if `text` is not one.
    fn read(text: &str) -> Option<Self> {
        let valid = text.strip_prefix(PREFIX).is_some_and(|hex| {
            hex.len() == HEX_LEN && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        valid.then(|| Self(text.into()))
    }

    /// The whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits after the colon.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// The name of the algorithm, always `sha256`.
    pub fn algorithm(&self) -> &str {
        "sha256"
    }

    /// The tag under which referrers of this digest are listed where the registry has no referrers API
    /// (distribution-spec, "Referrers Tag Schema"): `sha256-<hex>`.
    pub fn referrers_tag(&self) -> String {
        format!("sha256-{}", self.hex())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Digest {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone, Default)]
pub struct DigestHasher(sha2::Sha256);

impl DigestHasher {
    /// A hasher that has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest::from_sha256(&self.0.finalize().into())
    }
}

impl fmt::Debug for DigestHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestHasher")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets something unexpected stops there")]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn of_bytes_parse_and_parts() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest, EMPTY.parse().unwrap());
        assert_eq!(digest.hex(), &EMPTY[7..]);
        assert_eq!(digest.referrers_tag(), EMPTY.replace(':', "-"));
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        let mut hasher = DigestHasher::new();
        hasher.update(b"a");
        hasher.update(b"b");
        assert_eq!(hasher.finish(), Digest::of(b"ab"));
    }

    #[test]
    fn refuses_what_is_not_a_sha256_digest() {
        let upper = EMPTY.to_uppercase();
        let mixed = EMPTY.replace('e', "E");
        let short = &EMPTY[..70];
        let long = format!("{EMPTY}0");
        let other = EMPTY.replace("sha256", "sha512");
        let path = format!("sha256:{}", "../".repeat(22));
        for text in ["", "sha256", "sha256:", &upper, &mixed, short, &long, &other, &path[..71]] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
