//! JSON lines, as the reference writes them:
//!
//! ```json
//! {"level":"info","msg":"remote snapshot successfully prepared.","time":"2026-11-21T07:26:02.531742000Z","key":"…"}
//! ```
//!
//! `level` has logrus' names (`error`, `warning`, `info`, `debug`, `trace`), `time` is RFC 3339 in UTC with nine
//! fractional digits, and the fields of the event and of the spans around it stand beside them; an event's win over
//! a span's. A field that has one of the three names is called `fields.…`, as in logrus. There is no module name:
//! tools of the reference look for words such as "token" in lines, and modules are named like that.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Longest value of a field, in bytes. Registries answer with pages of HTML, and collectors cut long lines anywhere.
const MAX_VALUE: usize = 4096;

/// Most causes of an error that are written.
const MAX_CAUSES: usize = 16;

/// Writes a line for each event.
#[derive(Debug)]
pub struct JsonLayer<W> {
    writer: W,
}

impl<W> JsonLayer<W> {
    /// Lines go to `writer`, each in one piece.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }
}

/// Fields in the order in which they came.
#[derive(Debug, Clone, Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        // What comes through the `log` crate says where in the source it is; nobody asked.
        if name.starts_with("log.") {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), bounded(format_args!("{value}")));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity.
        let number = serde_json::Number::from_f64(value).map(Value::Number);
        self.set(field.name(), number.unwrap_or_else(|| value.to_string().into()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field.name(), bounded(Causes(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), bounded(format_args!("{value:?}")));
    }
}

/// An error with its causes.
struct Causes<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let causes = std::iter::successors(self.0.source(), |&error| error.source());
        for cause in causes.take(MAX_CAUSES) {
            let cause = cause.to_string();
            // Many errors end with their cause already.
            if !shown.ends_with(&cause) {
                write!(f, ": {cause}")?;
                shown = cause;
            }
        }
        Ok(())
    }
}

/// The first bytes of a text, and how many there were beyond.
#[derive(Default)]
struct Bounded {
    text: String,
    more: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = if self.more == 0 { MAX_VALUE - self.text.len() } else { 0 };
        let kept = (0..=room.min(piece.len())).rev().find(|at| piece.is_char_boundary(*at)).unwrap_or(0);
        let (kept, rest) = piece.split_at(kept);
        self.text.push_str(kept);
        self.more += rest.len();
        Ok(())
    }
}

fn bounded(value: impl fmt::Display) -> Value {
    let mut out = Bounded::default();
    // Values that cannot be formatted say no more than what came so far.
    let _ = write!(out, "{value}");
    if out.more > 0 {
        let _ = write!(out.text, "… ({} bytes more)", out.more);
    }
    Value::String(out.text)
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn line(level: &str, time: Timestamp, fields: &Fields) -> String {
    let message = fields.0.iter().find(|(name, _)| *name == "message");
    let message = message.map_or(&Value::Null, |(_, value)| value).as_str().unwrap_or_default();
    // Displaying a value escapes whatever has to be.
    let mut line = format!("{{\"level\":\"{level}\",\"msg\":{},\"time\":\"{time:.9}\"", Value::from(message));
    for (name, value) in fields.0.iter().filter(|(name, _)| *name != "message") {
        let prefix = if matches!(*name, "level" | "msg" | "time") { "fields." } else { "" };
        let _ = write!(line, ",{}:{value}", Value::from(format!("{prefix}{name}")));
    }
    line.push_str("}\n");
    line
}

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                // A span called with a message of its own is not what happened.
                let outer = outer.0.iter().filter(|(name, _)| *name != "message");
                outer.for_each(|(name, value)| fields.set(name, value.clone()));
            }
        }
        event.record(&mut fields);
        let line = line(level(*event.metadata().level()), Timestamp::now(), &fields);
        // There is nobody left to tell that logging fails.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(line.as_bytes());
    }
}
