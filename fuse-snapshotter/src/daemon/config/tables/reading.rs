//! Layers that are read lazily: the cache, FUSE, background fetch, prefetch.

use crate::daemon::config::keys::{ANY, COUNT, Kind, SECONDS};
use crate::daemon::config::size::ByteSize;
use crate::daemon::config::table::tables;
use crate::daemon::config::values::{fuse_threads, prefetch_requests, seconds};

const NO_DESCRIPTORS: &str = "the cache is one sparse file per layer";
const NEVER_CHANGES: &str = "trees never change, so the kernel may keep what it knows for a day";
const WHEN_IDLE: &str =
    "background fetch begins when nobody has waited for a second, and gives way to every read";

tables! {
    /// The cache of awslabs/soci-snapshotter.
    DirectoryCache("directory_cache") {
        /// Spans cached in memory.
        max_lru_cache_entry: i64 = 0, ANY, idle(NO_DESCRIPTORS);
        /// Files of the cache kept open.
        max_cache_fds: i64 = 0, ANY, idle(NO_DESCRIPTORS);
        /// Wait until a span is in the cache.
        sync_add: bool = false, Kind::Bool, idle(NO_DESCRIPTORS);
        /// Do not cache spans in memory.
        direct: bool = true, Kind::Bool, idle(NO_DESCRIPTORS);
    }

    /// The cache.
    Cache("cache") {
        /// Largest size of the cached contents of all layers: bytes, or a number with KiB, MiB, GiB or TiB. 0: the
        /// default.
        max_size: ByteSize = ByteSize(10 << 30), Kind::Size, own, zero_is_default
            => |settings, size| settings.fetch.cache_size = size.0;
    }

    /// The front that the kernel asks.
    Fuse("fuse") {
        /// Threads that answer the kernel. 0: as many as there are processors, at most 8.
        threads: i64 = 0, Kind::Int(0, 256), own
            => |settings, number| settings.trees.fuse_threads = fuse_threads(number);
        /// Log every request of the kernel, at level debug whatever the level is otherwise; slow, and it names files.
        log_fuse_operations: bool = false, Kind::Bool;
        /// Seconds for which the kernel may keep attributes.
        attr_timeout: i64 = 1, ANY, idle(NEVER_CHANGES);
        /// Seconds for which the kernel may keep names.
        entry_timeout: i64 = 1, ANY, idle(NEVER_CHANGES);
        /// Seconds for which the kernel may keep that a name does not exist.
        negative_timeout: i64 = 1, ANY, idle(NEVER_CHANGES);
    }

    /// Fetching the rest of an image.
    BackgroundFetch("background_fetch") {
        /// Fetch only what is read, instead of the rest of the image too while nobody reads.
        disable: bool = false, Kind::Bool => |settings, disable| settings.layers.background = !disable;
        /// Pause after a new image, in milliseconds.
        silence_period_msec: i64 = 30_000, ANY, idle(WHEN_IDLE);
        /// Time between two spans, in milliseconds.
        fetch_period_msec: i64 = 500, ANY, idle(WHEN_IDLE);
        /// Layers that may wait for background fetch.
        max_queue_size: i64 = 300, ANY, idle("no layer is dropped");
        /// Which layer is dropped when too many wait: newest or oldest.
        drop_policy: String = "newest".into(), Kind::OneOf(&["newest", "oldest"]), zero_is_default,
            idle("no layer is dropped");
        /// Seconds between two updates of the queue's metric.
        emit_metric_period_sec: i64 = 10, ANY, idle("the queue is asked when metrics are read");
    }

    /// Fetching ahead what a container will read.
    Prefetch("prefetch") {
        // On, unlike in the reference, whose mounts wait for it.
        /// Fetch ahead what a recorded start of the image on this node has read, or else what the prefetch artifacts of
        /// its index name. Mounts do not wait for it.
        enable: bool = true, Kind::Bool => |settings, enable| settings.prefetch.replay = enable;
        /// Requests for that at the same time, of each image; 16 at most. 0 and negative: 4. (In awslabs/soci-snapshotter:
        /// layers.)
        max_concurrency: i64 = 0, COUNT
            => |settings, number| settings.prefetch.requests = prefetch_requests(number);
        /// Record what the first container of an image reads at its start.
        record: bool = true, Kind::Bool, own => |settings, record| settings.prefetch.record = record;
        /// Fetch what the image's own program will read at its start, where nothing tells it.
        forecast: bool = true, Kind::Bool, own => |settings, forecast| settings.prefetch.forecast = forecast;
        /// A recording ends when nothing new was read for so long. 0: the default.
        record_quiet_sec: i64 = 5, SECONDS, own, zero_is_default
            => |settings, number| settings.prefetch.quiet = seconds(number);
        /// A recording ends after this time in any case. 0: the default.
        record_max_sec: i64 = 120, SECONDS, own, zero_is_default
            => |settings, number| settings.prefetch.longest = seconds(number);
    }
}
