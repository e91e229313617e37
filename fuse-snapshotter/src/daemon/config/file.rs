//! The file as it is written: raw numbers and texts, with their defaults.
//!
//! Names and defaults are those of awslabs/soci-snapshotter, so that its files work unchanged; keys of our own are
//! marked. The declarations here and in `tables` are what files are checked against and what `config default` and the
//! rows of `docs/configuration.md` are made of. Only `settings.rs`, `hosts.rs` and `problems.rs` read the raw values.

use std::sync::LazyLock;

use super::keys::{ANY, COUNT, Key, Kind, SECONDS};
use super::table::{Table, or, tables};
use super::tables::http::{Blob, Http, Registry, Resolver};
use super::tables::logins::{CriKeychain, KubeconfigKeychain};
use super::tables::pulls::{ContentStore, PullModes, Snapshotter};
use super::tables::reading::{BackgroundFetch, Cache, DirectoryCache, Fuse, Prefetch};
use super::values::{limit, seconds};
use crate::snapshotter::pull::UNLIMITED;

const NO_DATABASE: &str = "layers are read-only tables, not a database";

tables! {
    /// The whole file.
    File("") {
        /// Log at level debug, unless --log-level says otherwise.
        debug: bool = false, Kind::Bool;
        /// Longest wait for a layer to become readable lazily, in seconds; after it the layer is fetched whole. 0: the
        /// default.
        mount_timeout_sec: i64 = 30, SECONDS, zero_is_default
            => |settings, number| settings.pull.mount_timeout = seconds(number);
        /// Layers, of all images together, that are prepared for lazy reading at the same time. 0: the default; negative:
        /// no limit.
        max_concurrency: i64 = 100, COUNT, zero_is_default
            => |settings, number| settings.pull.parallel_layers = limit(number).unwrap_or(UNLIMITED);
        /// Where metrics are served as http://ADDRESS/metrics: host:port, or a path if metrics_network is unix. Empty: not
        /// at all.
        metrics_address: String = String::new(), Kind::Text;
        /// Kind of metrics_address: tcp or unix.
        metrics_network: String = "tcp".into(), Kind::OneOf(&["tcp", "unix"]), zero_is_default;
        /// Serve no metrics, whatever metrics_address says.
        no_prometheus: bool = false, Kind::Bool;
        /// Time from the first mount of an image until its FUSE operations are logged, in seconds. 0: the default.
        fuse_metrics_emit_wait_duration_sec: i64 = 60, SECONDS, zero_is_default
            => |settings, number| settings.trees.metrics_wait = seconds(number);
        /// Do not check at start-up that the root directory can hold overlay mounts.
        skip_check_snapshotter_supported: bool = false, Kind::Bool
            => |settings, skip| settings.check_overlay = !skip;
        /// Kind of the cache of compressed spans.
        http_cache_type: String = String::new(), Kind::Text, idle("compressed spans are not kept");
        /// Kind of the cache of file contents.
        filesystem_cache_type: String = String::new(), Kind::Text,
            idle("contents are always cached on disk, within cache.max_size");
        /// Layers kept in memory.
        resolve_result_entry: i64 = 0, ANY, idle("a layer is kept for as long as a snapshot uses it");
        /// Serve contents without checking their digests.
        disable_verification: bool = false, Kind::Bool, idle("nothing unverified is ever served");
        /// Unix socket of Go's profiler.
        debug_address: String = String::new(), Kind::Text, idle("there is no such profiler in this program");
        /// Kind of the database of layers.
        metadata_store: String = "db".into(), Kind::Text, idle(NO_DATABASE);
        /// Do not sync the database of layers.
        metadata_db_no_sync: bool = false, Kind::Bool, idle(NO_DATABASE);
        /// Entries written to the database of layers at a time.
        metadata_insertion_chunk_size: i64 = 0, ANY, idle(NO_DATABASE);
        + http: Http;
        + blob: Blob;
        + directory_cache: DirectoryCache;
        + cache: Cache;
        + registry: Registry;
        + fuse: Fuse;
        + background_fetch: BackgroundFetch;
        + content_store: ContentStore;
        + pull_modes: PullModes;
        + prefetch: Prefetch;
        + kubeconfig_keychain: KubeconfigKeychain;
        + cri_keychain: CriKeychain;
        + resolver: Resolver;
        + snapshotter: Snapshotter;
    }
}

/// All keys, in the order of `config default`.
pub(super) static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    File::keys(&mut keys);
    keys
});

impl File {
    /// Puts in the defaults that 0 and empty texts stand for.
    pub(super) fn resolve_all_defaults(&mut self) {
        self.resolve_defaults();
        or(&mut self.blob.min_wait_msec, self.http.min_wait_msec);
        or(&mut self.blob.max_wait_msec, self.http.max_wait_msec);
    }
}
