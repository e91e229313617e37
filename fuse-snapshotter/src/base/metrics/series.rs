//! Names, types, labels and values of all series.
//!
//! Series that begin with `soci_fs_` are the reference's, and their names are an interface. Those of this project
//! begin with `soci_snapshotter_`.

/// What a family of series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// All series of one name.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    /// In alphabetical order, as Go's client writes them.
    pub(super) labels: &'static [&'static str],
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(pub(super) const $constant: Family =
            Family { name: $name, help: $help, kind: Kind::$kind, labels: &$labels };)*
        /// All of them.
        #[cfg(test)]
        pub(super) const FAMILIES: &[Family] = &[$($constant),*];
    };
}

families! {
    MILLISECONDS = Histogram "soci_fs_operation_duration_milliseconds" ["layer", "operation_type"],
        "Latency in milliseconds of SOCI snapshotter operations. Broken down by operation type and layer digest.";
    MICROSECONDS = Histogram "soci_fs_operation_duration_microseconds" ["layer", "operation_type"],
        "Latency in microseconds of SOCI snapshotter operations. Broken down by operation type and layer digest.";
    OPERATION_COUNT = Counter "soci_fs_operation_count" ["layer", "operation_type"],
        "Count of SOCI snapshotter operations. Broken down by operation type and layer digest.";
    BYTES_SERVED = Gauge "soci_fs_bytes_served" ["layer", "operation_type"],
        "Bytes served to reads. Broken down by operation type and layer digest.";
    IMAGE_OPERATIONS = Gauge "soci_fs_image_operation_count_key" ["image", "operation_type"],
        "Count of SOCI snapshotter operations. Broken down by operation type and image digest.";
    LAYER_FETCHED = Counter "soci_fs_layer_fetched_size_bytes" ["digest", "mountpoint"],
        "Bytes of the layer that were fetched, compressed.";
    LAYER_SIZE = Counter "soci_fs_layer_size_bytes" ["digest", "mountpoint"],
        "Size of the layer, compressed.";
    BUILD_INFO = Gauge "soci_snapshotter_build_info" ["version"],
        "Always 1; the label says which version runs.";
    CACHE_BYTES = Gauge "soci_snapshotter_cache_bytes" [],
        "Size of the cached contents of layers.";
    CACHE_LIMIT = Gauge "soci_snapshotter_cache_limit_bytes" [],
        "Largest size that the cached contents of layers may have.";
    CACHE_IN_MEMORY = Gauge "soci_snapshotter_cache_in_memory_bytes" [],
        "Size of cached contents that are in memory because the cache's disk is full or fails.";
    EAGER_LAYERS = Counter "soci_snapshotter_eager_layers_total" ["reason"],
        "Layers that were fetched whole instead of being read lazily, by reason.";
    FETCH_ERRORS = Counter "soci_snapshotter_fetch_errors_total" ["kind"],
        "Fetches of layer contents that failed after all retries, by what is to blame.";
    PREFETCHED_BYTES = Counter "soci_snapshotter_prefetched_bytes_total" [],
        "Compressed bytes of layers that were fetched because a recording or a prefetch artifact says that \
        they will be read.";
    PREFETCHED_SPANS = Counter "soci_snapshotter_prefetched_spans_total" [],
        "Spans of layers that were fetched because a recording or a prefetch artifact says that \
        they will be read.";
    REGISTRY_REQUESTS = Counter "soci_snapshotter_registry_requests_total" [],
        "HTTP requests to registries and their storage, with redirects, retries and token requests.";
    REGISTRY_RECEIVED = Counter "soci_snapshotter_registry_received_bytes_total" [],
        "Bytes of answers received from registries and their storage.";
    REGISTRY_RETRIES = Counter "soci_snapshotter_registry_retries_total" [],
        "HTTP requests sent again after a transient failure.";
    SNAPSHOTS = Gauge "soci_snapshotter_snapshots" ["kind"],
        "Snapshots, by kind.";
}

/// `operation_type` of the background queue's size.
pub(super) const BACKGROUND_QUEUE: &str = "background_fetch_work_queue_size";

/// `operation_type` of the bytes that reads got.
pub(super) const SYNCHRONOUS_BYTES: &str = "synchronous_bytes_served";

/// Enumerations whose variants are values of a label.
macro_rules! values {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            /// The value of `operation_type`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    )*};
}

values! {
    /// Operations that are timed. The last two are shown in microseconds, the others in milliseconds.
    Operation {
        /// Making a layer readable, from the request to the answer.
        Mount = "mount",
        /// A ranged read of a layer.
        RemoteRegistryGet = "remote_registry_get",
        /// Making a layer's tree and tables of its zTOC.
        InitMetadataStore = "init_metadata_store",
        /// One piece of background fetch.
        BackgroundFetch = "background_fetch",
        /// Reading and checking a zTOC, once it is here.
        ZtocUnmarshal = "ztoc_unmarshal",
        /// Mounting, without what comes before.
        FuseMount = "fuse_mount",
        /// Finding where the registry keeps a layer.
        BlobRedirect = "blob_redirect",
        /// Asking for the size of a layer.
        GetLayerSize = "get_layer_size",
        /// Finding and fetching an index; the layer is the index's digest.
        SociIndexFetch = "soci_index_fetch",
        /// Fetching a zTOC.
        ZtocFetch = "ztoc_fetch",
        /// Listing a directory.
        NodeReaddir = "node_readdir",
        /// Answering a read.
        SynchronousRead = "synchronous_read",
    }
    /// What is counted for a layer.
    Count {
        /// Reads of files.
        SynchronousRead = "synchronous_read_count",
        /// Reads of files that had to wait for the registry.
        SynchronousReadRemoteFetch = "synchronous_read_remote_registry_fetch_count",
        /// `getattr` failed.
        NodeGetattrFailure = "fuse_node_getattr_failure_count",
        /// `listxattr` failed.
        NodeListxattrFailure = "fuse_node_listxattr_failure_count",
        /// `lookup` failed, other than by finding nothing.
        NodeLookupFailure = "fuse_node_lookup_failure_count",
        /// `open` failed.
        NodeOpenFailure = "fuse_node_open_failure_count",
        /// `readdir` failed.
        NodeReaddirFailure = "fuse_node_readdir_failure_count",
        /// `read` failed.
        FileReadFailure = "fuse_file_read_failure_count",
        /// `getattr` of an open file failed.
        FileGetattrFailure = "fuse_file_getattr_failure_count",
        /// `getattr` of a whiteout failed.
        WhiteoutGetattrFailure = "fuse_whiteout_getattr_failure_count",
        /// Something else failed.
        UnknownOperationFailure = "fuse_unknown_operation_failure_count",
        /// Spans fetched in the background.
        BackgroundSpanFetch = "background_span_fetch_count",
        /// Spans that could not be.
        BackgroundSpanFetchFailure = "background_span_fetch_failure_count",
        /// A layer was asked for that was prepared already.
        ResolveCacheHit = "resolve_cache_hit",
        /// A layer was asked for that was not.
        ResolveCacheMiss = "resolve_cache_miss",
    }
    /// What is counted without a layer; shown from the start.
    DaemonCount {
        /// Something in a file system failed, within the last five minutes of a rise.
        FuseFailureState = "fuse_failure_state",
        /// A layer could not be made readable lazily.
        FuseMountFailure = "fuse_mount_failure_count",
        /// A layer could not be fetched and unpacked.
        LocalMountFailure = "local_mount_failure_count",
        /// A layer was dropped from the background queue.
        BackgroundQueueEvicted = "background_fetch_work_queue_evicted",
        /// A layer was not prepared ahead, because too many were waiting.
        PreresolveQueueDrop = "preresolve_queue_drop",
    }
    /// Requests of the kernel, counted for an image.
    ImageOperation {
        /// Attributes.
        NodeGetattr = "node.Getattr",
        /// One extended attribute.
        NodeGetxattr = "node.Getxattr",
        /// Names of extended attributes.
        NodeListxattr = "node.Listxattr",
        /// A name in a directory.
        NodeLookup = "node.Lookup",
        /// Opening a file.
        NodeOpen = "node.Open",
        /// Listing a directory.
        NodeReaddir = "node.Readdir",
        /// The target of a symbolic link.
        NodeReadlink = "node.Readlink",
        /// Contents of a file.
        FileRead = "file.Read",
        /// Attributes of an open file.
        FileGetattr = "file.Getattr",
        /// Attributes of a whiteout.
        WhiteoutGetattr = "whiteout.Getattr",
    }
}

impl Operation {
    /// Whether it is shown in microseconds.
    pub(super) fn is_short(self) -> bool {
        matches!(self, Self::NodeReaddir | Self::SynchronousRead)
    }
}
