//! The file as it is written: raw numbers and texts, with their defaults.
//!
//! Only `settings.rs` and `hosts.rs` read these; everybody else gets durations, sizes and choices from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::size::ByteSize;

pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Structures whose missing keys have defaults.
macro_rules! tables {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $($(#[$field_meta])* pub(super) $field: $type,)*
        }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    )*};
}

tables! {
    /// The whole file.
    File {
        debug: bool = false,
        mount_timeout_sec: i64 = 30,
        max_concurrency: i64 = 100,
        metrics_address: String = String::new(),
        metrics_network: String = "tcp".into(),
        no_prometheus: bool = false,
        fuse_metrics_emit_wait_duration_sec: i64 = 60,
        skip_check_snapshotter_supported: bool = false,
        http_cache_type: String = String::new(),
        filesystem_cache_type: String = String::new(),
        resolve_result_entry: i64 = 0,
        disable_verification: bool = false,
        debug_address: String = String::new(),
        metadata_store: String = "db".into(),
        metadata_db_no_sync: bool = false,
        metadata_insertion_chunk_size: i64 = 0,
        http: Http = Http::default(),
        blob: Blob = Blob::default(),
        directory_cache: DirectoryCache = DirectoryCache::default(),
        cache: Cache = Cache::default(),
        registry: Registry = Registry::default(),
        fuse: Fuse = Fuse::default(),
        background_fetch: BackgroundFetch = BackgroundFetch::default(),
        content_store: ContentStore = ContentStore::default(),
        pull_modes: PullModes = PullModes::default(),
        prefetch: Prefetch = Prefetch::default(),
        kubeconfig_keychain: KubeconfigKeychain = KubeconfigKeychain::default(),
        cri_keychain: CriKeychain = CriKeychain::default(),
        resolver: Resolver = Resolver::default(),
        snapshotter: Snapshotter = Snapshotter::default(),
    }
    Http {
        #[serde(rename = "DialTimeoutMsec")]
        dial_timeout_msec: i64 = 3000,
        // Longer than the reference's 3 s, and as everywhere else in this project: pull-through caches ask their
        // upstream first.
        #[serde(rename = "ResponseHeaderTimeoutMsec")]
        response_header_timeout_msec: i64 = 10_000,
        #[serde(rename = "RequestTimeoutMsec")]
        request_timeout_msec: i64 = 300_000,
        #[serde(rename = "MaxRetries")]
        max_retries: i64 = 8,
        #[serde(rename = "MinWaitMsec")]
        min_wait_msec: i64 = 30,
        // Shorter than the reference's 300 s, so that a server cannot make a reader wait for that long.
        #[serde(rename = "MaxWaitMsec")]
        max_wait_msec: i64 = 30_000,
    }
    Blob {
        fetching_timeout_sec: i64 = 300,
        max_retries: i64 = 0,
        min_wait_msec: i64 = 0,
        max_wait_msec: i64 = 0,
        valid_interval: i64 = 60,
        check_always: bool = false,
        force_single_range_mode: bool = false,
        max_span_verification_retries: i64 = 0,
    }
    DirectoryCache {
        max_lru_cache_entry: i64 = 0,
        max_cache_fds: i64 = 0,
        sync_add: bool = false,
        direct: bool = true,
    }
    Cache {
        max_size: ByteSize = ByteSize(10 << 30),
    }
    Registry {
        config_path: String = "/etc/containerd/certs.d".into(),
    }
    Fuse {
        threads: i64 = 0,
        log_fuse_operations: bool = false,
        attr_timeout: i64 = 1,
        entry_timeout: i64 = 1,
        negative_timeout: i64 = 1,
    }
    BackgroundFetch {
        disable: bool = false,
        silence_period_msec: i64 = 30_000,
        fetch_period_msec: i64 = 500,
        max_queue_size: i64 = 300,
        drop_policy: String = "newest".into(),
        emit_metric_period_sec: i64 = 10,
    }
    ContentStore {
        #[serde(rename = "type")]
        kind: String = "soci".into(),
        containerd_address: String = CONTAINERD_SOCKET.into(),
    }
    PullModes {
        // On, unlike in the reference since 0.10: what `soci create` and `soci push` publish is to be used.
        soci_v1: PullMode = PullMode { enable: true },
        soci_v2: PullMode = PullMode { enable: true },
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        index: BTreeMap<String, ChosenIndex> = BTreeMap::new(),
        parallel_pull_unpack: Parallel = Parallel::default(),
    }
    ChosenIndex {
        digest: String = String::new(),
    }
    PullMode {
        enable: bool = true,
    }
    Parallel {
        enable: bool = false,
        experimental_parallel_pull_as_fallback: bool = false,
        max_concurrent_downloads: i64 = -1,
        max_concurrent_downloads_per_image: i64 = 3,
        max_concurrent_unpacks: i64 = -1,
        max_concurrent_unpacks_per_image: i64 = 3,
        concurrent_download_chunk_size: String = String::new(),
        discard_unpacked_layers: bool = false,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        decompress_streams: BTreeMap<String, Stream> = BTreeMap::new(),
    }
    Stream {
        path: String = String::new(),
        args: Vec<String> = Vec::new(),
    }
    Prefetch {
        // On, unlike in the reference, whose mounts wait for it.
        enable: bool = true,
        max_concurrency: i64 = 0,
        record: bool = true,
        forecast: bool = true,
        record_quiet_sec: i64 = 5,
        record_max_sec: i64 = 120,
    }
    KubeconfigKeychain {
        enable_keychain: bool = false,
        kubeconfig_path: String = String::new(),
    }
    CriKeychain {
        enable_keychain: bool = false,
        image_service_path: String = CONTAINERD_SOCKET.into(),
    }
    Resolver {
        auth_client_ttl_sec: i64 = 3600,
        enable_auth_client_sharing: bool = false,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        host: BTreeMap<String, Host> = BTreeMap::new(),
    }
    Host {
        mirrors: Vec<Mirror> = Vec::new(),
    }
    Mirror {
        host: String = String::new(),
        insecure: bool = false,
        request_timeout_sec: i64 = 0,
    }
    Snapshotter {
        min_layer_size: i64 = 0,
        max_ztoc_percent: i64 = 200,
        keep_cache: bool = false,
        allow_invalid_mounts_on_restart: bool = false,
    }
}

impl File {
    /// Puts in the defaults that 0 and empty texts stand for.
    pub(super) fn resolve_defaults(&mut self) {
        let default = Self::default();
        or(&mut self.mount_timeout_sec, default.mount_timeout_sec);
        or(&mut self.max_concurrency, default.max_concurrency);
        or(&mut self.metrics_network, default.metrics_network);
        or(&mut self.fuse_metrics_emit_wait_duration_sec, default.fuse_metrics_emit_wait_duration_sec);
        or(&mut self.http.dial_timeout_msec, default.http.dial_timeout_msec);
        or(&mut self.http.response_header_timeout_msec, default.http.response_header_timeout_msec);
        or(&mut self.http.request_timeout_msec, default.http.request_timeout_msec);
        or(&mut self.http.max_retries, default.http.max_retries);
        or(&mut self.http.min_wait_msec, default.http.min_wait_msec);
        or(&mut self.http.max_wait_msec, default.http.max_wait_msec);
        or(&mut self.blob.fetching_timeout_sec, default.blob.fetching_timeout_sec);
        or(&mut self.blob.min_wait_msec, self.http.min_wait_msec);
        or(&mut self.blob.max_wait_msec, self.http.max_wait_msec);
        or(&mut self.cache.max_size, default.cache.max_size);
        or(&mut self.background_fetch.drop_policy, default.background_fetch.drop_policy);
        or(&mut self.content_store.kind, default.content_store.kind);
        or(&mut self.content_store.containerd_address, default.content_store.containerd_address);
        let parallel = &mut self.pull_modes.parallel_pull_unpack;
        let usual = default.pull_modes.parallel_pull_unpack;
        or(&mut parallel.max_concurrent_downloads, usual.max_concurrent_downloads);
        or(&mut parallel.max_concurrent_downloads_per_image, usual.max_concurrent_downloads_per_image);
        or(&mut parallel.max_concurrent_unpacks, usual.max_concurrent_unpacks);
        or(&mut parallel.max_concurrent_unpacks_per_image, usual.max_concurrent_unpacks_per_image);
        or(&mut self.prefetch.record_quiet_sec, default.prefetch.record_quiet_sec);
        or(&mut self.prefetch.record_max_sec, default.prefetch.record_max_sec);
        or(&mut self.cri_keychain.image_service_path, default.cri_keychain.image_service_path);
    }
}

fn or<T: Default + PartialEq>(value: &mut T, default: T) {
    if *value == T::default() {
        *value = default;
    }
}
