//! Answers before they go on the wire.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::store::Source;

/// The body of an answer.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// Bytes at hand.
    Bytes(Bytes),
    /// The bytes `start..end` of a blob.
    Blob {
        /// The blob.
        source: Source,
        /// First byte.
        start: u64,
        /// One after the last byte.
        end: u64,
    },
}

impl Payload {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob { start, end, .. } => end - start,
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Payload,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: HeaderMap::new(), body: Payload::Bytes(Bytes::new()) }
    }

    /// Adds a header; a value that is not one shows as such instead of stopping the server.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a header.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("header name");
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or(HeaderValue::from_static("invalid"));
        self.headers.insert(name, value);
    }

    pub(super) fn body(mut self, media_type: &str, body: impl Into<Bytes>) -> Self {
        self.set(CONTENT_TYPE.as_str(), media_type);
        self.body = Payload::Bytes(body.into());
        self
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn json(self, value: &serde_json::Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// An error in the form of the distribution specification.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(status).json(&json!({ "errors": [{ "code": code, "message": message }] }))
    }
}
