//! Every key of `config.toml`: where it stands, what it may hold, what it means, and whether it does anything here.
//!
//! Names and defaults are those of awslabs/soci-snapshotter, so that its files work unchanged; keys of our own are
//! marked. This list is what files are checked against and what `config default` and the rows of
//! `docs/configuration.md` are made of. The values themselves are in `file.rs`.

/// What a key may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    /// A whole number within these bounds, both included.
    Int(i64, i64),
    Text,
    /// One of these words; the empty one stands for the default.
    OneOf(&'static [&'static str]),
    /// A number of bytes, or a text such as `10GiB`.
    Size,
    TextList,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The table it is in, divided by dots; empty for the top of the file, `*` for a name of the user's.
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What it means, in one line, with its unit.
    pub(super) doc: &'static str,
    /// Why it does nothing here, if so.
    pub(super) no_effect: Option<&'static str>,
}

impl Key {
    /// `table.name`.
    pub(super) fn path(&self) -> String {
        join(self.table, self.name)
    }
}

pub(super) fn join(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}

/// Tables that stand in a list (`[[…]]`).
pub(super) const LISTS: &[&str] = &[MIRRORS];

/// Longest time that can be set: 30 days. Longer ones are mistakes, and must not overflow clocks.
const SECONDS: Kind = Kind::Int(0, 30 * 24 * 3600);
const MILLISECONDS: Kind = Kind::Int(0, 30 * 24 * 3600 * 1000);
/// More than a machine could do at the same time.
const COUNT: Kind = Kind::Int(-1_000_000, 1_000_000);
const ANY: Kind = Kind::Int(i64::MIN, i64::MAX);

const PARALLEL: &str = "pull_modes.parallel_pull_unpack";
const STREAMS: &str = "pull_modes.parallel_pull_unpack.decompress_streams.*";
const MIRRORS: &str = "resolver.host.*.mirrors";

const fn key(table: &'static str, name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { table, name, kind, doc, no_effect: None }
}

const fn idle(
    table: &'static str,
    name: &'static str,
    kind: Kind,
    doc: &'static str,
    why: &'static str,
) -> Key {
    Key { table, name, kind, doc, no_effect: Some(why) }
}

const NO_DATABASE: &str = "layers are read-only tables, not a database";
const NO_DESCRIPTORS: &str = "the cache is one sparse file per layer";
const NEVER_CHANGES: &str = "trees never change, so the kernel may keep what it knows for a day";
const WHEN_IDLE: &str =
    "background fetch begins when nobody has waited for a second, and gives way to every read";
const STREAMED: &str = "layers are unpacked while they arrive";
const ONE_CLIENT: &str = "tokens are kept until they expire, and credentials are asked for anew";
const ON_DEMAND: &str =
    "what is cached is served without asking; a read that fails resolves the layer's place anew";

/// All keys, in the order of `config default`.
pub(super) const KEYS: &[Key] = &[
    key("", "debug", Kind::Bool, "Log at level debug, unless --log-level says otherwise."),
    key(
        "",
        "mount_timeout_sec",
        SECONDS,
        "Longest wait for a layer to become readable lazily, in seconds; after it the layer is fetched whole. 0: the default.",
    ),
    key(
        "",
        "max_concurrency",
        COUNT,
        "Layers, of all images together, that are prepared for lazy reading at the same time. 0: the default; negative: no limit.",
    ),
    key(
        "",
        "metrics_address",
        Kind::Text,
        "Where metrics are served as http://ADDRESS/metrics: host:port, or a path if metrics_network is unix. Empty: not at all.",
    ),
    key("", "metrics_network", Kind::OneOf(&["tcp", "unix"]), "Kind of metrics_address: tcp or unix."),
    key("", "no_prometheus", Kind::Bool, "Serve no metrics, whatever metrics_address says."),
    key(
        "",
        "fuse_metrics_emit_wait_duration_sec",
        SECONDS,
        "Time from the first mount of an image until its FUSE operations are logged, in seconds. 0: the default.",
    ),
    key(
        "",
        "skip_check_snapshotter_supported",
        Kind::Bool,
        "Do not check at start-up that the root directory can hold overlay mounts.",
    ),
    idle(
        "",
        "http_cache_type",
        Kind::Text,
        "Kind of the cache of compressed spans.",
        "compressed spans are not kept",
    ),
    idle(
        "",
        "filesystem_cache_type",
        Kind::Text,
        "Kind of the cache of file contents.",
        "contents are always cached on disk, within cache.max_size",
    ),
    idle(
        "",
        "resolve_result_entry",
        ANY,
        "Layers kept in memory.",
        "a layer is kept for as long as a snapshot uses it",
    ),
    idle(
        "",
        "disable_verification",
        Kind::Bool,
        "Serve contents without checking their digests.",
        "nothing unverified is ever served",
    ),
    idle(
        "",
        "debug_address",
        Kind::Text,
        "Unix socket of Go's profiler.",
        "there is no such profiler in this program",
    ),
    idle("", "metadata_store", Kind::Text, "Kind of the database of layers.", NO_DATABASE),
    idle("", "metadata_db_no_sync", Kind::Bool, "Do not sync the database of layers.", NO_DATABASE),
    idle(
        "",
        "metadata_insertion_chunk_size",
        ANY,
        "Entries written to the database of layers at a time.",
        NO_DATABASE,
    ),
    key(
        "http",
        "DialTimeoutMsec",
        MILLISECONDS,
        "Longest wait for a connection with its TLS handshake, in milliseconds. 0: the default.",
    ),
    key(
        "http",
        "ResponseHeaderTimeoutMsec",
        MILLISECONDS,
        "Longest wait for the first byte of an answer, in milliseconds. 0: the default.",
    ),
    key(
        "http",
        "RequestTimeoutMsec",
        MILLISECONDS,
        "Longest time for a request with its answer, all but layers, in milliseconds. 0: the default.",
    ),
    key("http", "MaxRetries", COUNT, "Tries after a transient failure. 0: the default; negative: none."),
    key(
        "http",
        "MinWaitMsec",
        MILLISECONDS,
        "Wait before the first retry, doubled for each later one, in milliseconds. 0: the default.",
    ),
    key(
        "http",
        "MaxWaitMsec",
        MILLISECONDS,
        "Longest wait before a retry, also when the server asks for more, in milliseconds. 0: the default.",
    ),
    key(
        "blob",
        "fetching_timeout_sec",
        SECONDS,
        "Time since the first try after which a read of a layer is not tried again, in seconds. 0: the default.",
    ),
    key(
        "blob",
        "max_retries",
        COUNT,
        "Tries after a transient failure of a read of a layer. 0: as many as fetching_timeout_sec allows; negative: none.",
    ),
    key("blob", "min_wait_msec", MILLISECONDS, "As http.MinWaitMsec, for reads of layers. 0: as there."),
    key("blob", "max_wait_msec", MILLISECONDS, "As http.MaxWaitMsec, for reads of layers. 0: as there."),
    idle(
        "blob",
        "valid_interval",
        ANY,
        "Seconds between checks that a layer is still in the registry.",
        ON_DEMAND,
    ),
    idle(
        "blob",
        "check_always",
        Kind::Bool,
        "Check before every mount that a layer is still in the registry.",
        ON_DEMAND,
    ),
    idle(
        "blob",
        "force_single_range_mode",
        Kind::Bool,
        "Ask for one range at a time.",
        "it is never done otherwise",
    ),
    idle(
        "blob",
        "max_span_verification_retries",
        ANY,
        "Fetches of a span that has a wrong digest, after the first.",
        "a damaged span is fetched twice more, then the whole layer is, and verified",
    ),
    idle("directory_cache", "max_lru_cache_entry", ANY, "Spans cached in memory.", NO_DESCRIPTORS),
    idle("directory_cache", "max_cache_fds", ANY, "Files of the cache kept open.", NO_DESCRIPTORS),
    idle("directory_cache", "sync_add", Kind::Bool, "Wait until a span is in the cache.", NO_DESCRIPTORS),
    idle("directory_cache", "direct", Kind::Bool, "Do not cache spans in memory.", NO_DESCRIPTORS),
    key(
        "cache",
        "max_size",
        Kind::Size,
        "Largest size of the cached contents of all layers: bytes, or a number with KiB, MiB, GiB or TiB. 0: the default.",
    ),
    key(
        "registry",
        "config_path",
        Kind::Text,
        "Directories with containerd's hosts.toml files, divided by colons: mirrors, certificates, plain HTTP. Empty: none.",
    ),
    key(
        "fuse",
        "threads",
        Kind::Int(0, 256),
        "Threads that answer the kernel. 0: as many as there are processors, at most 8.",
    ),
    key(
        "fuse",
        "log_fuse_operations",
        Kind::Bool,
        "Log every request of the kernel, at level debug whatever the level is otherwise; slow, and it names files.",
    ),
    idle("fuse", "attr_timeout", ANY, "Seconds for which the kernel may keep attributes.", NEVER_CHANGES),
    idle("fuse", "entry_timeout", ANY, "Seconds for which the kernel may keep names.", NEVER_CHANGES),
    idle(
        "fuse",
        "negative_timeout",
        ANY,
        "Seconds for which the kernel may keep that a name does not exist.",
        NEVER_CHANGES,
    ),
    key(
        "background_fetch",
        "disable",
        Kind::Bool,
        "Fetch only what is read, instead of the rest of the image too while nobody reads.",
    ),
    idle(
        "background_fetch",
        "silence_period_msec",
        ANY,
        "Pause after a new image, in milliseconds.",
        WHEN_IDLE,
    ),
    idle("background_fetch", "fetch_period_msec", ANY, "Time between two spans, in milliseconds.", WHEN_IDLE),
    idle(
        "background_fetch",
        "max_queue_size",
        ANY,
        "Layers that may wait for background fetch.",
        "no layer is dropped",
    ),
    idle(
        "background_fetch",
        "drop_policy",
        Kind::OneOf(&["newest", "oldest"]),
        "Which layer is dropped when too many wait: newest or oldest.",
        "no layer is dropped",
    ),
    idle(
        "background_fetch",
        "emit_metric_period_sec",
        ANY,
        "Seconds between two updates of the queue's metric.",
        "the queue is asked when metrics are read",
    ),
    key(
        "content_store",
        "type",
        Kind::OneOf(&["soci", "containerd"]),
        "Where artifacts and layers are looked for before the registry is asked, and kept: soci (the root directory) or containerd.",
    ),
    key(
        "content_store",
        "containerd_address",
        Kind::Text,
        "Socket of containerd, for type containerd. Empty: the default.",
    ),
    key(
        "pull_modes.soci_v1",
        "enable",
        Kind::Bool,
        "Use version 1 indexes: those that refer to the image, as `soci create` makes them.",
    ),
    key(
        "pull_modes.soci_v2",
        "enable",
        Kind::Bool,
        "Use version 2 indexes: those that the image names, as `soci convert` makes them.",
    ),
    key(
        "pull_modes.index.*",
        "digest",
        Kind::Text,
        "The SOCI index to use for the image NAME (a full reference, or host/repository for all its tags), and no other.",
    ),
    key(
        PARALLEL,
        "enable",
        Kind::Bool,
        "Fetch and unpack all images whole, their layers in parallel, and read none lazily.",
    ),
    key(
        PARALLEL,
        "experimental_parallel_pull_as_fallback",
        Kind::Bool,
        "Do so with images that have no index, instead of leaving them to containerd.",
    ),
    key(
        PARALLEL,
        "max_concurrent_downloads",
        COUNT,
        "Layers that are fetched whole at the same time. A layer is unpacked while it is fetched, so the lower limit of this and max_concurrent_unpacks holds. 0 and negative: no limit.",
    ),
    key(
        PARALLEL,
        "max_concurrent_downloads_per_image",
        COUNT,
        "The same for each image. 0: the default; negative: no limit.",
    ),
    key(
        PARALLEL,
        "max_concurrent_unpacks",
        COUNT,
        "Layers that are unpacked at the same time; see max_concurrent_downloads. 0 and negative: no limit.",
    ),
    key(
        PARALLEL,
        "max_concurrent_unpacks_per_image",
        COUNT,
        "The same for each image. 0: the default; negative: no limit.",
    ),
    idle(
        PARALLEL,
        "concurrent_download_chunk_size",
        Kind::Text,
        "Size of the ranges in which a layer is fetched.",
        "a layer that is fetched whole is asked for in ranges of 1 MiB at its start and up to 4 MiB later, six at a time",
    ),
    idle(
        PARALLEL,
        "discard_unpacked_layers",
        Kind::Bool,
        "Do not keep compressed layers once they are unpacked.",
        STREAMED,
    ),
    idle(STREAMS, "path", Kind::Text, "Program that decompresses layers of this kind.", STREAMED),
    idle(STREAMS, "args", Kind::TextList, "Its arguments.", STREAMED),
    key(
        "prefetch",
        "enable",
        Kind::Bool,
        "Fetch ahead what a recorded start of the image on this node has read, or else what the prefetch artifacts of its index name. Mounts do not wait for it.",
    ),
    key(
        "prefetch",
        "max_concurrency",
        COUNT,
        "Requests for that at the same time, of each image; 16 at most. 0 and negative: 4. (In awslabs/soci-snapshotter: layers.)",
    ),
    key("prefetch", "record", Kind::Bool, "Record what the first container of an image reads at its start."),
    key(
        "prefetch",
        "forecast",
        Kind::Bool,
        "Fetch what the image's own program will read at its start, where nothing tells it.",
    ),
    key(
        "prefetch",
        "record_quiet_sec",
        SECONDS,
        "A recording ends when nothing new was read for so long. 0: the default.",
    ),
    key(
        "prefetch",
        "record_max_sec",
        SECONDS,
        "A recording ends after this time in any case. 0: the default.",
    ),
    key(
        "kubeconfig_keychain",
        "enable_keychain",
        Kind::Bool,
        "Use registry credentials from the secrets of a Kubernetes cluster.",
    ),
    key(
        "kubeconfig_keychain",
        "kubeconfig_path",
        Kind::Text,
        "The kubeconfig to reach it with. Empty: $KUBECONFIG, else ~/.kube/config.",
    ),
    key(
        "cri_keychain",
        "enable_keychain",
        Kind::Bool,
        "Use registry credentials that the kubelet sends: its image service must be this program's socket.",
    ),
    key(
        "cri_keychain",
        "image_service_path",
        Kind::Text,
        "Socket of the real image service, to which its requests are passed on. Empty: the default.",
    ),
    idle("resolver", "auth_client_ttl_sec", ANY, "Seconds for which a registry client is kept.", ONE_CLIENT),
    idle(
        "resolver",
        "enable_auth_client_sharing",
        Kind::Bool,
        "Share registry clients that have the same credentials.",
        ONE_CLIENT,
    ),
    key(
        MIRRORS,
        "host",
        Kind::Text,
        "A mirror of this registry: https://host[:port][/path] or host:port; asked before it, in this order.",
    ),
    key(
        MIRRORS,
        "insecure",
        Kind::Bool,
        "Reach it by plain HTTP. A mirror that is the registry itself sets this for the registry.",
    ),
    key(
        MIRRORS,
        "request_timeout_sec",
        Kind::Int(i64::MIN, 30 * 24 * 3600),
        "Longest wait for the first byte of its answer, in seconds. 0: as http.ResponseHeaderTimeoutMsec; negative: no limit.",
    ),
    key(
        "snapshotter",
        "min_layer_size",
        Kind::Int(0, i64::MAX),
        "Smaller layers (compressed, in bytes) are not read lazily.",
    ),
    key(
        "snapshotter",
        "max_ztoc_percent",
        Kind::Int(0, 1_000_000),
        "A layer of 1 MiB or more (compressed) is not read lazily if its zTOC is larger than this share of it. 0: no limit.",
    ),
    key(
        "snapshotter",
        "keep_cache",
        Kind::Bool,
        "Keep the cached contents of a layer when no snapshot uses it any more, until cache.max_size is reached.",
    ),
    idle(
        "snapshotter",
        "allow_invalid_mounts_on_restart",
        Kind::Bool,
        "Start even if a snapshot cannot be mounted again.",
        "one snapshot never keeps the daemon from starting; it comes back when it is asked for",
    ),
];

/// Keys that awslabs/soci-snapshotter does not have.
pub(super) const OUR_OWN: &[&str] = &[
    "cache.max_size",
    "registry.config_path",
    "fuse.threads",
    "snapshotter.max_ztoc_percent",
    "snapshotter.keep_cache",
    "pull_modes.index.*.digest",
    "prefetch.record",
    "prefetch.forecast",
    "prefetch.record_quiet_sec",
    "prefetch.record_max_sec",
];
