//! docker-registry's log: one JSON object for each request that was answered.

use std::time::{Duration, SystemTime};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) began: SystemTime,
    pub(crate) took: Duration,
    /// Bytes of the body that was sent.
    pub(crate) bytes: u64,
    pub(crate) method: String,
    pub(crate) path: String,
}

/// The request of a line, if it is about one.
pub(crate) fn parse(line: &str) -> Option<Request> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    if value["msg"] != "response completed" {
        return None;
    }
    let text = |field: &str| Some(value[field].as_str()?.to_owned());
    let ended: jiff::Timestamp = text("time")?.parse().ok()?;
    let took = duration(&text("http.response.duration")?)?;
    Some(Request {
        began: SystemTime::from(ended).checked_sub(took)?,
        took,
        bytes: value["http.response.written"].as_u64().unwrap_or(0),
        method: text("http.request.method")?,
        path: text("http.request.uri")?,
    })
}

/// A duration as Go writes it: `1m2.5s`, `3.2ms`, `950µs`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let scale = match &unit[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" | "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = &unit[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_registry_are_understood() {
        let line = r#"{"http.request.method":"GET","http.request.uri":"/v2/redis/blobs/sha256:00","http.response.duration":"1.5s","http.response.status":206,"http.response.written":70,"level":"info","msg":"response completed","time":"2026-11-21T10:00:02.5Z"}"#;
        let request = parse(line).unwrap();
        assert_eq!((request.bytes, &*request.method), (70, "GET"));
        let second = request.began.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((second.as_secs() % 60, second.subsec_nanos()), (1, 0));
        assert_eq!(parse(r#"{"msg":"listening"}"#), None);
        assert_eq!(parse("no JSON"), None);
    }

    #[test]
    fn durations_of_go_are_understood() {
        for (text, nanos) in
            [("1m2.5s", 62_500_000_000), ("3.2ms", 3_200_000), ("950µs", 950_000), ("7ns", 7)]
        {
            assert_eq!(duration(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["5", "s", "1.2.3s", "1 s", "1x"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
