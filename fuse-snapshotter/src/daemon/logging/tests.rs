#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use super::*;

/// Collects what is written, and in how many pieces.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Vec<u8>>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that are logged while `act` runs.
fn logged(options: LogOptions, act: impl FnOnce()) -> Vec<Value> {
    let sink = Sink::default();
    let writer = sink.clone();
    let layer = JsonLayer::new(move || writer.clone());
    let subscriber = tracing_subscriber::registry().with(options.filter()).with(requests_only()).with(layer);
    tracing::subscriber::with_default(subscriber, act);
    let pieces = sink.0.lock().unwrap();
    pieces
        .iter()
        .map(|piece| {
            let text = std::str::from_utf8(piece).unwrap();
            assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text}");
            serde_json::from_str(text).unwrap()
        })
        .collect()
}

const INFO: LogOptions = LogOptions { level: LevelFilter::INFO, fuse_operations: false };
const TRACE: LogOptions = LogOptions { level: LevelFilter::TRACE, fuse_operations: false };

/// Takes the time out of a line, once it is known to be one.
fn without_time(mut line: Value) -> Value {
    let time = line.as_object_mut().unwrap().remove("time").unwrap();
    let time = time.as_str().unwrap();
    time.parse::<jiff::Timestamp>().unwrap();
    assert!(time.ends_with('Z') && time.len() == "2026-11-21T07:26:02.531742000Z".len(), "{time}");
    line
}

#[test]
fn a_line_has_the_fields_that_tools_look_for() {
    let lines = logged(INFO, || {
        tracing::info!(
            "remote-snapshot-prepared" = "true",
            key = "extract-1",
            size = 7_u64,
            change = -7,
            ratio = 0.5,
            done = true,
            infinite = f64::INFINITY,
            "remote snapshot successfully prepared."
        );
    });
    assert_eq!(
        lines.into_iter().map(without_time).collect::<Vec<_>>(),
        [json!({
            "level": "info",
            "msg": "remote snapshot successfully prepared.",
            "remote-snapshot-prepared": "true",
            "key": "extract-1",
            "size": 7,
            "change": -7,
            "ratio": 0.5,
            "done": true,
            "infinite": "inf",
        })]
    );
}

#[test]
fn levels_have_the_names_of_logrus() {
    let lines = logged(TRACE, || {
        tracing::error!("a");
        tracing::warn!("b");
        tracing::info!("c");
        tracing::debug!("d");
        tracing::trace!("e");
    });
    let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["error", "warning", "info", "debug", "trace"]);
}

#[test]
fn whatever_a_value_holds_the_line_stays_one_line_of_json() {
    let nasty = "a\"b\\c\nd\r\u{0}\u{1b}[31m\u{2028}é";
    let lines = logged(INFO, || tracing::info!(value = nasty, shown = %nasty, path = ?nasty, "{nasty}"));
    assert_eq!(lines[0]["msg"], nasty);
    assert_eq!(lines[0]["value"], nasty);
    assert_eq!(lines[0]["shown"], nasty);
    assert_eq!(lines[0]["path"], format!("{nasty:?}"));
}

#[test]
fn long_values_are_cut_between_characters() {
    let long = "é".repeat(3000);
    let odd = format!("x{long}");
    let lines = logged(INFO, || tracing::info!(odd, pieces = ?vec![long.as_str(); 3], "{long}"));
    assert_eq!(lines[0]["msg"], format!("{}… (1904 bytes more)", "é".repeat(2048)));
    assert_eq!(lines[0]["odd"], format!("x{}… (1906 bytes more)", "é".repeat(2047)));
    assert!(lines[0]["pieces"].as_str().unwrap().len() < 4200);
    let exact = "x".repeat(4096);
    assert_eq!(logged(INFO, || tracing::info!("{exact}"))[0]["msg"], exact);
}

#[test]
fn errors_come_with_their_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the layer")]
    struct Outer(#[source] io::Error);
    #[derive(Debug, thiserror::Error)]
    #[error("the mount failed: {0}")]
    struct Says(#[source] Outer);
    let error = Says(Outer(io::Error::other("disk on fire")));
    let lines = logged(INFO, || {
        tracing::error!(error = &error as &dyn std::error::Error, "failed");
        tracing::error!(%error, "failed");
    });
    assert_eq!(lines[0]["error"], "the mount failed: cannot read the layer: disk on fire");
    assert_eq!(lines[1]["error"], "the mount failed: cannot read the layer");
}

#[test]
fn fields_cannot_take_the_place_of_level_time_and_message() {
    let lines = logged(INFO, || tracing::info!(level = 1, time = 2, msg = 3, "log.target" = "x", "real"));
    assert_eq!(
        without_time(lines[0].clone()),
        json!({ "level": "info", "msg": "real", "fields.level": 1, "fields.time": 2, "fields.msg": 3 })
    );
}

#[test]
fn fields_of_spans_are_in_the_line_and_the_event_wins() {
    let lines = logged(INFO, || {
        let outer =
            tracing::info_span!("prepare", namespace = "k8s.io", key = "a", late = tracing::field::Empty);
        let _outer = outer.enter();
        let inner = tracing::info_span!("fetch", key = "b");
        let _inner = inner.enter();
        outer.record("late", 5);
        tracing::info!("in both");
        tracing::info!(key = "c", "own");
    });
    assert_eq!(
        without_time(lines[0].clone()),
        json!({ "level": "info", "msg": "in both", "namespace": "k8s.io", "key": "b", "late": 5 })
    );
    assert_eq!(lines[1]["key"], "c");
}

#[test]
fn only_this_project_logs_below_warnings() {
    let act = || {
        tracing::debug!(target: "fuse_snapshotter::content", "ours");
        tracing::debug!(target: "registry", "ours");
        tracing::info!(target: "hyper::proto", "theirs");
        tracing::warn!(target: "h2", "their warning");
        tracing::debug!(target: "fuser::request", "READ");
        tracing::error!(target: "fuser::reply", "Failed to send FUSE reply");
        tracing::warn!(target: "fuser", "[Not Implemented] access");
        tracing::error!(target: "kube_client::client", "their error");
        tracing::warn!(target: "kube_runtime", "their warning");
    };
    let messages = |level, fuse_operations| -> Vec<String> {
        let lines = logged(LogOptions { level, fuse_operations }, act);
        lines.iter().map(|line| line["msg"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(messages(LevelFilter::TRACE, false), ["ours", "ours", "their warning"]);
    assert_eq!(messages(LevelFilter::INFO, false), ["their warning"]);
    assert!(messages(LevelFilter::ERROR, false).is_empty());
    assert_eq!(messages(LevelFilter::ERROR, true), ["READ"]);
}
