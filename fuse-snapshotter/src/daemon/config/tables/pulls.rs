//! How images are pulled, and which of their layers are read lazily.

use std::collections::BTreeMap;

use crate::daemon::config::keys::{COUNT, Kind};
use crate::daemon::config::table::tables;
use crate::daemon::config::values::{CONTAINERD_SOCKET, lower, positive};

const PARALLEL: &str = "pull_modes.parallel_pull_unpack";
const STREAMS: &str = "pull_modes.parallel_pull_unpack.decompress_streams.*";
const STREAMED: &str = "layers are unpacked while they arrive";

tables! {
    /// Where artifacts and layers are kept.
    ContentStore("content_store") {
        /// Where artifacts and layers are looked for before the registry is asked, and kept: soci (the root directory) or
        /// containerd.
        kind as "type": String = "soci".into(), Kind::OneOf(&["soci", "containerd"]), zero_is_default;
        /// Socket of containerd, for type containerd. Empty: the default.
        containerd_address: String = CONTAINERD_SOCKET.into(), Kind::Text, zero_is_default;
    }

    /// Which indexes are used, and what becomes of layers without one.
    PullModes("pull_modes") {
        // Both are on, unlike in the reference since 0.10: what `soci create` and `soci push` publish is to be used.
        + soci_v1: SociV1;
        + soci_v2: SociV2;
        + #[serde(skip_serializing_if = "BTreeMap::is_empty")] index: BTreeMap<String, ChosenIndex>;
        + parallel_pull_unpack: Parallel;
    }

    /// Indexes of version 1.
    SociV1("pull_modes.soci_v1") {
        /// Use version 1 indexes: those that refer to the image, as `soci create` makes them.
        enable: bool = true, Kind::Bool => |settings, enable| settings.pull.v1 = enable;
    }

    /// Indexes of version 2.
    SociV2("pull_modes.soci_v2") {
        /// Use version 2 indexes: those that the image names, as `soci convert` makes them.
        enable: bool = true, Kind::Bool => |settings, enable| settings.pull.v2 = enable;
    }

    /// An index for an image that the client names none for.
    ChosenIndex("pull_modes.index.*") {
        /// The SOCI index to use for the image NAME (a full reference, or host/repository for all its tags), and no
        /// other.
        digest: String = String::new(), Kind::Text, own,
            example("\"sha256:dd64aa3e35bfa675d34c9eedf5773007d75b7dcf03c312fce2cbfcd912834f27\"");
    }

    /// Layers that are fetched whole. Fetching and unpacking are one stream, so the lower limit of the two holds.
    Parallel(PARALLEL) {
        /// Fetch and unpack all images whole, their layers in parallel, and read none lazily.
        enable: bool = false, Kind::Bool => |settings, enable| settings.pull.always_unpack = enable;
        /// Do so with images that have no index, instead of leaving them to containerd.
        experimental_parallel_pull_as_fallback: bool = false, Kind::Bool
            => |settings, enable| settings.pull.unpack_without_index = enable;
        /// Layers that are fetched whole at the same time. A layer is unpacked while it is fetched, so the lower limit of
        /// this and max_concurrent_unpacks holds. 0 and negative: no limit.
        max_concurrent_downloads: i64 = -1, COUNT, zero_is_default
            => |settings, number| lower(&mut settings.pull.all_parallel_unpacks, number);
        /// The same for each image. 0: the default; negative: no limit.
        max_concurrent_downloads_per_image: i64 = 3, COUNT, zero_is_default
            => |settings, number| lower(&mut settings.pull.parallel_unpacks, number);
        /// Layers that are unpacked at the same time; see max_concurrent_downloads. 0 and negative: no limit.
        max_concurrent_unpacks: i64 = -1, COUNT, zero_is_default
            => |settings, number| lower(&mut settings.pull.all_parallel_unpacks, number);
        /// The same for each image. 0: the default; negative: no limit.
        max_concurrent_unpacks_per_image: i64 = 3, COUNT, zero_is_default
            => |settings, number| lower(&mut settings.pull.parallel_unpacks, number);
        /// Size of the ranges in which a layer is fetched.
        concurrent_download_chunk_size: String = String::new(), Kind::Text,
            idle("a layer that is fetched whole is asked for in ranges of 1 MiB at its start and up to 4 MiB later, six \
                at a time");
        /// Do not keep compressed layers once they are unpacked.
        discard_unpacked_layers: bool = false, Kind::Bool, idle(STREAMED);
        + #[serde(skip_serializing_if = "BTreeMap::is_empty")] decompress_streams: BTreeMap<String, Stream>;
    }

    /// A program that decompresses.
    Stream(STREAMS) {
        /// Program that decompresses layers of this kind.
        path: String = String::new(), Kind::Text, idle(STREAMED), example("\"/usr/bin/unpigz\"");
        /// Its arguments.
        args: Vec<String> = Vec::new(), Kind::TextList, idle(STREAMED), example("[\"-d\", \"-c\"]");
    }

    /// Which layers are read lazily.
    Snapshotter("snapshotter") {
        /// Smaller layers (compressed, in bytes) are not read lazily.
        min_layer_size: i64 = 0, Kind::Int(0, i64::MAX)
            => |settings, bytes| settings.pull.min_layer_size = positive(bytes).unwrap_or(0);
        /// A layer of 1 MiB or more (compressed) is not read lazily if its zTOC is larger than this share of it. 0: no
        /// limit.
        max_ztoc_percent: i64 = 200, Kind::Int(0, 1_000_000), own
            => |settings, percent| settings.pull.max_ztoc_percent = positive(percent);
        /// Keep the cached contents of a layer when no snapshot uses it any more, until cache.max_size is reached.
        keep_cache: bool = false, Kind::Bool, own => |settings, keep| settings.layers.keep_cache = keep;
        /// Start even if a snapshot cannot be mounted again.
        allow_invalid_mounts_on_restart: bool = false, Kind::Bool,
            idle("one snapshot never keeps the daemon from starting; it comes back when it is asked for");
    }
}
