//! Reading response bodies: bounded, counted, and never waiting for ever.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use serde::Deserialize;

use crate::connections::Use;
use crate::error::{Context, Error, Result};
use crate::redact;
use crate::stats::Counters;

/// A stream of bytes that may fail on the way.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The next piece of `response`; `None` at its end.
pub(crate) async fn chunk(
    response: &mut reqwest::Response,
    idle: Duration,
    counters: &Counters,
    context: &Context,
) -> Result<Option<Bytes>> {
    match tokio::time::timeout(idle, response.chunk()).await {
        Err(_) => Err(Error::Timeout {
            context: context.clone(),
            waited_for: "the next piece of the body",
            limit: idle,
        }),
        Ok(Err(error)) => Err(Error::transport(context, error)),
        Ok(Ok(chunk)) => {
            counters.note_heard();
            counters.add_received(chunk.as_ref().map_or(0, Bytes::len) as u64);
            Ok(chunk)
        }
    }
}

/// The whole body, if it is at most `limit` bytes.
pub(crate) async fn collect(
    mut response: reqwest::Response,
    limit: usize,
    idle: Duration,
    counters: &Counters,
    context: &Context,
) -> Result<Bytes> {
    let too_large =
        |size: Option<u64>| Error::TooLarge { context: context.clone(), limit: limit as u64, size };
    let announced = response.content_length();
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(announced));
    }
    // The announced length was checked against the limit, so a lie cannot make this large.
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0) as usize);
    while let Some(chunk) = chunk(&mut response, idle, counters, context).await? {
        if chunk.len() > limit - bytes.len() {
            return Err(too_large(None));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// How much of an error's body is read, in bytes and in time. Reading a small body to its end also frees the
/// connection for the next request.
const ERROR_LIMIT: usize = 16 << 10;
const ERROR_TIME: Duration = Duration::from_secs(2);

/// The body of a failed or redirecting answer, as far as it is short; empty otherwise.
pub(crate) async fn short(
    response: reqwest::Response,
    mut connection: Use,
    counters: &Counters,
    context: &Context,
) -> Bytes {
    let read = collect(response, ERROR_LIMIT, ERROR_TIME, counters, context);
    let body = tokio::time::timeout(ERROR_TIME, read).await.ok().and_then(Result::ok);
    if body.is_some() {
        connection.end();
    }
    body.unwrap_or_default()
}

/// The form of errors in the distribution specification ("Error Codes"). `oci_distribution`'s type insists on
/// fields that registries leave out.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    errors: Vec<Item>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: Option<String>,
}

/// What an error's body says, in one bounded line.
pub(crate) fn error_text(body: &[u8]) -> String {
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(body) {
        let words: Vec<_> = envelope
            .errors
            .iter()
            .map(|item| {
                let code = item.code.as_str().unwrap_or_default();
                match item.message.as_deref().filter(|m| !m.is_empty()) {
                    Some(message) if code.is_empty() => message.to_owned(),
                    Some(message) => format!("{code}: {message}"),
                    None => code.to_owned(),
                }
            })
            .chain(envelope.message)
            .chain(envelope.details)
            .filter(|words| !words.is_empty())
            .collect();
        return redact::message(&words.join("; "));
    }
    let text = String::from_utf8_lossy(body);
    // S3 and its like answer in XML: what counts is in <Code> and <Message>.
    if text.trim_start().starts_with("<?xml") || text.contains("<Error>") {
        let words: Vec<_> = ["Code", "Message"].into_iter().filter_map(|name| element(&text, name)).collect();
        return redact::message(&words.join(": "));
    }
    if text.trim_start().starts_with('<') {
        return String::new(); // a page of HTML
    }
    redact::message(&text)
}

/// Whether an error's body is the registry's own word that it does not know the blob or the repository: nothing but
/// these two codes of the distribution specification.
pub(crate) fn says_unknown(body: &[u8]) -> bool {
    let Ok(Envelope { errors, .. }) = serde_json::from_slice(body) else { return false };
    let unknown = |item: &Item| matches!(item.code.as_str(), Some("BLOB_UNKNOWN" | "NAME_UNKNOWN"));
    !errors.is_empty() && errors.iter().all(unknown)
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let end = start + text[start..].find("</")?;
    Some(&text[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
                "MANIFEST_UNKNOWN: manifest unknown",
            ),
            (r#"{"errors":[{"code":"DENIED"},{"message":"x"}]}"#, "DENIED; x"),
            (r#"{"errors":[]}"#, ""),
            (r#"{"message":"Not Authorized"}"#, "Not Authorized"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (
                "<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message><Token-0>secret</Token-0></Error>",
                "ExpiredToken: The provided token has expired.",
            ),
            ("<html><body>502</body></html>", ""),
            ("404 page not found\n", "404 page not found"),
            ("", ""),
        ] {
            assert_eq!(error_text(body.as_bytes()), expected, "{body}");
        }
        assert!(error_text(&[0xff; 100_000]).len() < 1000);
    }

    #[test]
    fn only_the_registrys_own_codes_say_that_a_blob_is_unknown() {
        for (body, expected) in [
            (r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#, true),
            (r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#, true),
            (r#"{"errors":[{"code":"NAME_UNKNOWN"},{"code":"BLOB_UNKNOWN"}]}"#, true),
            (r#"{"errors":[{"code":"NAME_UNKNOWN"},{"code":"UNAUTHORIZED"}]}"#, false),
            (r#"{"errors":[{"code":"DENIED"}]}"#, false),
            (r#"{"errors":[{"code":404}]}"#, false),
            (r#"{"errors":[]}"#, false),
            (r#"{"message":"BLOB_UNKNOWN"}"#, false),
            ("<html>BLOB_UNKNOWN</html>", false),
            ("default backend - 404", false),
            ("", false),
        ] {
            assert_eq!(says_unknown(body.as_bytes()), expected, "{body}");
        }
    }
}
