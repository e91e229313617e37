//! Spans of a layer: fetched by ranged requests, verified by their digests, and written into the cache.
//!
//! * [`table`] says which spans hold a file, and where the file stands in the cache.
//! * [`supplier`] brings what a reader lacks; the policies fetch what no reader waits for. Both do so by a [`fetcher`].
//! * A [`request`] names neighbouring spans; [`stream`] makes it, hashing and inflating each span while it arrives
//!   ([`sink`]). The tar headers in it are checked against the zTOC ([`headers`]), and it is published once its digest
//!   matches. What has come of a span when its request gives way waits in [`partial_spans`].
//! * A span that is wrong is [insisted](insist) on: fetched again, and then taken from a verified copy of the
//!   [`whole_layer`]. When the layer is gone from all its repositories, a [`twin`] stands in.

pub(crate) mod fetcher;
pub(crate) mod headers;
mod insist;
mod partial_spans;
pub(crate) mod request;
mod sink;
mod stream;
pub(crate) mod supplier;
pub(crate) mod table;
pub(crate) mod twin;
mod whole_layer;
