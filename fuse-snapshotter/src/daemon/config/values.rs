//! From raw values to those that the daemon works with: times, limits, names and paths.

use std::path::PathBuf;
use std::time::Duration;

use registry::Reference;

pub(super) fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

pub(super) fn milliseconds(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

/// A number of things of which negative ones stand for any number.
pub(super) fn limit(number: i64) -> Option<usize> {
    usize::try_from(number).ok()
}

/// An image as [`ChosenIndexes`](crate::snapshotter::pull::ChosenIndexes) wants it; `None` if it cannot be one. A repository stays one: without a tag it means all of them.
pub(super) fn full_name(image: &str) -> Option<String> {
    let reference: Reference = image.parse().ok()?;
    let full = reference.to_string();
    let last = image.rsplit('/').next().unwrap_or_default();
    let names_one = last.contains(':') || image.contains('@');
    let repository = reference.repository();
    Some(if names_one { full } else { format!("{}/{}", repository.host(), repository.name()) })
}

/// The path of a socket, which may be written as a URL.
pub(super) fn socket(address: &str) -> PathBuf {
    PathBuf::from(address.strip_prefix("unix://").unwrap_or(address))
}
