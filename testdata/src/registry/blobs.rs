//! Reading blobs, whole and in ranges.

use bytes::{Bytes, BytesMut};
use hyper::Method;
use hyper::header::RANGE;
use hyper::http::request::Parts;

use super::fault::Action;
use super::redirect;
use super::reply::{Payload, Reply};
use super::server::Shared;
use super::store::Source;

/// One range of a `Range` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteRange {
    /// `bytes=a-`
    From(u64),
    /// `bytes=a-b`
    Within(u64, u64),
    /// `bytes=-n`
    Last(u64),
}

/// Reads a `Range` header with one range. Anything else is `None`, which by RFC 9110 means no range at all; several
/// ranges are answered with everything too, as S3 does.
pub(super) fn parse_range(text: &str) -> Option<ByteRange> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", n) => Some(ByteRange::Last(n.parse().ok()?)),
        (a, "") => Some(ByteRange::From(a.parse().ok()?)),
        (a, b) => {
            let (a, b) = (a.parse().ok()?, b.parse().ok()?);
            (a <= b).then_some(ByteRange::Within(a, b))
        }
    }
}

/// GET and HEAD of a blob.
pub(super) fn get(shared: &Shared, parts: &Parts, repo: &str, digest: &str) -> Reply {
    if !crate::digest::is_sha256(digest) {
        return Reply::error(400, "DIGEST_INVALID", "provided digest did not parse");
    }
    let Some(source) = shared.store().blob(repo, digest) else {
        return unknown();
    };
    if let Some(redirect) = shared.config.redirect.as_ref()
        && parts.method == Method::GET
    {
        return redirect::issue(shared, redirect, digest);
    }
    content(parts, source).header("docker-content-digest", digest)
}

/// The bytes of a blob, or the range of them that the request asks for.
pub(super) fn content(parts: &Parts, source: Source) -> Reply {
    let length = source.len();
    let range = parts.headers.get(RANGE).and_then(|v| v.to_str().ok()).and_then(parse_range);
    let (status, start, end) = match range {
        // Nobody's registry answers HEAD with 206.
        _ if parts.method == Method::HEAD => (200, 0, length),
        None => (200, 0, length),
        Some(ByteRange::From(a)) => (206, a, length),
        Some(ByteRange::Within(a, b)) => (206, a, length.min(b.saturating_add(1))),
        Some(ByteRange::Last(n)) => (206, if n == 0 { length } else { length.saturating_sub(n) }, length),
    };
    if status == 206 && start >= length {
        return Reply::new(416).header("content-range", &format!("bytes */{length}"));
    }
    let mut reply = Reply::new(status).header("accept-ranges", "bytes").body("application/octet-stream", "");
    if status == 206 {
        reply.set("content-range", &format!("bytes {start}-{}/{length}", end - 1));
    }
    reply.body = Payload::Blob { source, start, end };
    reply
}

/// DELETE of a blob.
pub(super) fn delete(shared: &Shared, repo: &str, digest: &str) -> Reply {
    if shared.store().remove_blob_from(repo, digest) { Reply::new(202) } else { unknown() }
}

pub(super) fn unknown() -> Reply {
    Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry")
}

/// Applies those faults that change the head of an answer; [`super::body`] applies the others.
pub(super) fn spoil(reply: &mut Reply, action: &Action) {
    match (action, &reply.body) {
        (Action::IgnoreRange, Payload::Blob { source, .. }) => {
            reply.status = 200;
            reply.headers.remove("content-range");
            reply.body = Payload::Blob { source: source.clone(), start: 0, end: source.len() };
        }
        (Action::WrongContentRange, Payload::Blob { source, start, end }) => {
            let value = format!("bytes {}-{}/{}", start + 1, end, source.len() + 1);
            reply.set("content-range", &value);
        }
        (Action::Multipart, Payload::Blob { source, start, end }) => {
            let data = source.read_now(*start, end - start).expect("blob file");
            let body = multipart(&data, *start, source.len());
            reply.headers.remove("content-range");
            reply.set("content-type", &format!("multipart/byteranges; boundary={BOUNDARY}"));
            reply.body = Payload::Bytes(body);
        }
        (Action::Header(name, value), _) => reply.set(name, value),
        (Action::BadDigestHeader, _) => {
            reply.set("docker-content-digest", &crate::digest::sha256(b"something else"));
        }
        _ => {}
    }
}

const BOUNDARY: &str = "3d6b6a416f9b5";

fn multipart(data: &[u8], start: u64, length: u64) -> Bytes {
    let end = start + data.len() as u64 - 1;
    let mut body = BytesMut::new();
    body.extend_from_slice(
        format!(
            "\r\n--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {start}-{end}/{length}\r\n\r\n"
        )
        .as_bytes(),
    );
    body.extend_from_slice(data);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body.freeze()
}
