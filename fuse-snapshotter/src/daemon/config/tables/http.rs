//! How registries are reached.

use std::collections::BTreeMap;

use crate::daemon::config::keys::{ANY, COUNT, Kind, MILLISECONDS, SECONDS};
use crate::daemon::config::table::tables;

const ONE_CLIENT: &str = "tokens are kept until they expire, and credentials are asked for anew";
const ON_DEMAND: &str =
    "what is cached is served without asking; a read that fails resolves the layer's place anew";

tables! {
    /// Limits of requests.
    Http("http") {
        /// Longest wait for a connection with its TLS handshake, in milliseconds. 0: the default.
        dial_timeout_msec as "DialTimeoutMsec": i64 = 3000, MILLISECONDS, zero_is_default;
        // Longer than the reference's 3 s, and as everywhere else in this project: pull-through caches ask their
        // upstream first.
        /// Longest wait for the first byte of an answer, in milliseconds. 0: the default.
        response_header_timeout_msec as "ResponseHeaderTimeoutMsec": i64 = 10_000, MILLISECONDS, zero_is_default;
        /// Longest time for a request with its answer, all but layers, in milliseconds. 0: the default.
        request_timeout_msec as "RequestTimeoutMsec": i64 = 300_000, MILLISECONDS, zero_is_default;
        /// Tries after a transient failure. 0: the default; negative: none.
        max_retries as "MaxRetries": i64 = 8, COUNT, zero_is_default;
        /// Wait before the first retry, doubled for each later one, in milliseconds. 0: the default.
        min_wait_msec as "MinWaitMsec": i64 = 30, MILLISECONDS, zero_is_default;
        // Shorter than the reference's 300 s, so that a server cannot make a reader wait for that long.
        /// Longest wait before a retry, also when the server asks for more, in milliseconds. 0: the default.
        max_wait_msec as "MaxWaitMsec": i64 = 30_000, MILLISECONDS, zero_is_default;
    }

    /// Limits of reads of layers that are read lazily.
    Blob("blob") {
        /// Time since the first try after which a read of a layer is not tried again, in seconds. 0: the default.
        fetching_timeout_sec: i64 = 300, SECONDS, zero_is_default;
        /// Tries after a transient failure of a read of a layer. 0: as many as fetching_timeout_sec allows; negative:
        /// none.
        max_retries: i64 = 0, COUNT;
        /// As http.MinWaitMsec, for reads of layers. 0: as there.
        min_wait_msec: i64 = 0, MILLISECONDS;
        /// As http.MaxWaitMsec, for reads of layers. 0: as there.
        max_wait_msec: i64 = 0, MILLISECONDS;
        /// Seconds between checks that a layer is still in the registry.
        valid_interval: i64 = 60, ANY, idle(ON_DEMAND);
        /// Check before every mount that a layer is still in the registry.
        check_always: bool = false, Kind::Bool, idle(ON_DEMAND);
        /// Ask for one range at a time.
        force_single_range_mode: bool = false, Kind::Bool, idle("it is never done otherwise");
        /// Fetches of a span that has a wrong digest, after the first.
        max_span_verification_retries: i64 = 0, ANY,
            idle("a damaged span is fetched twice more, then the whole layer is, and verified");
    }

    /// Files of mirrors and certificates.
    Registry("registry") {
        /// Directories with containerd's hosts.toml files, divided by colons: mirrors, certificates, plain HTTP. Empty:
        /// none.
        config_path: String = "/etc/containerd/certs.d".into(), Kind::Text, own;
    }

    /// Mirrors.
    Resolver("resolver") {
        /// Seconds for which a registry client is kept.
        auth_client_ttl_sec: i64 = 3600, ANY, idle(ONE_CLIENT);
        /// Share registry clients that have the same credentials.
        enable_auth_client_sharing: bool = false, Kind::Bool, idle(ONE_CLIENT);
        + #[serde(skip_serializing_if = "BTreeMap::is_empty")] host: BTreeMap<String, Host>;
    }

    /// One registry.
    Host("resolver.host.*") {
        + mirrors: Vec<Mirror>;
    }

    /// A mirror of it.
    Mirror("resolver.host.*.mirrors") {
        /// A mirror of this registry: https://host[:port][/path] or host:port; asked before it, in this order.
        host: String = String::new(), Kind::Text, example("\"https://mirror.example.com\"");
        /// Reach it by plain HTTP. A mirror that is the registry itself sets this for the registry.
        insecure: bool = false, Kind::Bool, example("false");
        /// Longest wait for the first byte of its answer, in seconds. 0: as http.ResponseHeaderTimeoutMsec; negative: no
        /// limit.
        request_timeout_sec: i64 = 0, Kind::Int(i64::MIN, 30 * 24 * 3600), example("0");
    }
}
