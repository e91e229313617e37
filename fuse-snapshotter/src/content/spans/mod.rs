//! Spans of a layer: fetched by ranged requests, verified by their digests, and written into the cache.

pub(crate) mod flight;
pub(crate) mod headers;
pub(crate) mod partial_spans;
pub(crate) mod request;
pub(crate) mod sink;
pub(crate) mod table;
pub(crate) mod twin;
pub(crate) mod whole_layer;
