//! From raw values to those that the daemon works with: times, limits, names and paths.

use std::path::PathBuf;
use std::time::Duration;

use registry::Reference;

use crate::foresight::recorded::PrefetchOptions;
use crate::snapshotter::pull::UNLIMITED;

/// containerd's socket unless the user says otherwise.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Most threads for the kernel's requests unless more are asked for: they never wait, so more would not help.
const MAX_FUSE_THREADS: usize = 8;

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

/// Lowers a limit, unless negative numbers stand for none.
pub(super) fn lower(current: &mut usize, number: i64) {
    *current = (*current).min(limit(number).unwrap_or(UNLIMITED));
}

/// A number of which 0 stands for none.
pub(super) fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

/// Threads that answer the kernel, of which 0 stands for as many as are of use; at least 1.
pub(super) fn fuse_threads(number: i64) -> usize {
    match limit(number) {
        None | Some(0) => {
            std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MAX_FUSE_THREADS)
        }
        Some(threads) => threads,
    }
}

/// Requests for what is fetched ahead, of which 0 and negative numbers stand for the default.
pub(super) fn prefetch_requests(number: i64) -> usize {
    limit(number).filter(|requests| *requests > 0).unwrap_or(PrefetchOptions::default().requests)
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
