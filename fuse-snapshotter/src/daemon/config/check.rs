//! From a text to a [`File`]: every key is looked up in the list of keys, in any case, and every value is checked
//! against what the key may hold.
//!
//! serde alone would do for values, but not for files of a program that ignores unknown keys and the case of known
//! ones: a misspelt key would be lost in silence, and an error would not say what is allowed instead.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{File, KEYS};
use super::keys::{Key, Kind, LISTS, join};
use super::notes::{Note, NoteKind};
use super::render;
use super::size::{self, ByteSize};

/// What is wrong, and in which line.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Longest piece of the file that a message repeats, in characters.
const MAX_SHOWN: usize = 60;

/// The file with defaults resolved, and what is to be said about it.
pub(super) fn read(text: &str) -> Result<(File, Vec<Note>), Mistake> {
    let syntax = |error: toml::de::Error| Mistake {
        line: line(text, &error.span().unwrap_or(0..0)),
        message: error.message().to_owned(),
    };
    let table = DeTable::parse(text).map_err(syntax)?;
    let span = table.span();
    let mut check = Check { text, defaults: render::defaults(), notes: Vec::new() };
    let known = check.table("", "", table.into_inner())?;
    let deserializer = toml::Deserializer::from(Spanned::new(span, known));
    let mut file = File::deserialize(deserializer).map_err(syntax)?;
    file.resolve_all_defaults();
    check.notes.sort_by_key(|note| note.line);
    Ok((file, check.notes))
}

fn line(text: &str, span: &Range<usize>) -> usize {
    text.get(..span.start).unwrap_or(text).matches('\n').count() + 1
}

struct Check<'a> {
    text: &'a str,
    /// The default values, as they would be written.
    defaults: toml::Table,
    notes: Vec<Note>,
}

/// What a name in a table is.
enum Found {
    Key(&'static Key),
    /// A table, by its name and its place in the list of keys.
    Table(String, String),
    Nothing,
}

/// Looks up a name in a table of the list of keys, whatever its case.
fn find(table: &str, name: &str) -> Found {
    if let Some(key) = KEYS.iter().find(|key| key.table == table && key.name.eq_ignore_ascii_case(name)) {
        return Found::Key(key);
    }
    for key in KEYS.iter() {
        let below = if table.is_empty() {
            Some(key.table)
        } else {
            key.table.strip_prefix(table).and_then(|rest| rest.strip_prefix('.'))
        };
        let Some(step) = below.and_then(|rest| rest.split('.').next()).filter(|step| !step.is_empty()) else {
            continue;
        };
        if step == "*" {
            // A name of the user's, such as a registry.
            return Found::Table(name.to_owned(), join(table, step));
        }
        if step.eq_ignore_ascii_case(name) {
            return Found::Table(step.to_owned(), join(table, step));
        }
    }
    Found::Nothing
}

impl Check<'_> {
    /// The table with only the keys that exist, under their own names. `place` is where it is in the list of keys,
    /// `shown` what the user calls it. The list of keys bounds the depth.
    fn table<'i>(&mut self, place: &str, shown: &str, given: DeTable<'i>) -> Result<DeTable<'i>, Mistake> {
        let mut known = DeTable::new();
        for (name, value) in given {
            let span = name.span();
            let shown_name = join(shown, name.get_ref());
            let (canonical, value) = match find(place, name.get_ref()) {
                Found::Key(key) => {
                    self.value(key, &shown_name, &value)?;
                    (key.name.to_owned(), value)
                }
                Found::Table(canonical, place) => (canonical, self.below(&place, &shown_name, value)?),
                Found::Nothing => {
                    let kind = NoteKind::Unknown { meant: similar(name.get_ref()) };
                    self.notes.push(Note { key: shown_name, line: line(self.text, &span), kind });
                    continue;
                }
            };
            let key = Spanned::new(span.clone(), Cow::Owned(canonical));
            if known.contains_key(&key) {
                let message = format!("{shown_name} is given twice, in upper and lower case");
                return Err(Mistake { line: line(self.text, &span), message });
            }
            known.insert(key, value);
        }
        Ok(known)
    }

    /// A table, or a list of tables, that is the value of a name.
    fn below<'i>(
        &mut self,
        place: &str,
        shown: &str,
        value: Spanned<DeValue<'i>>,
    ) -> Result<Spanned<DeValue<'i>>, Mistake> {
        let span = value.span();
        let checked = match value.into_inner() {
            DeValue::Table(table) if !LISTS.contains(&place) => {
                DeValue::Table(self.table(place, shown, table)?)
            }
            DeValue::Array(list) if LISTS.contains(&place) => {
                let mut checked = toml::de::DeArray::new();
                for element in list {
                    let element_span = element.span();
                    let DeValue::Table(table) = element.into_inner() else {
                        return Err(self.mistake(shown, &element_span, "expected a table"));
                    };
                    let table = self.table(place, shown, table)?;
                    checked.push(Spanned::new(element_span, DeValue::Table(table)));
                }
                DeValue::Array(checked)
            }
            _ if LISTS.contains(&place) => {
                return Err(self.mistake(shown, &span, "expected a list of tables"));
            }
            _ => return Err(self.mistake(shown, &span, "expected a table")),
        };
        Ok(Spanned::new(span, checked))
    }

    fn value(&mut self, key: &Key, shown: &str, value: &Spanned<DeValue<'_>>) -> Result<(), Mistake> {
        if !allowed(key.kind, value.get_ref()) {
            return Err(self.mistake(shown, &value.span(), &expected(key.kind)));
        }
        if let Some(reason) = key.no_effect
            && !self.is_default(key, value.get_ref())
        {
            let line = line(self.text, &value.span());
            self.notes.push(Note { key: shown.to_owned(), line, kind: NoteKind::NoEffect { reason } });
        }
        Ok(())
    }

    /// Whether this is what would hold anyway. What every file made from `config default` has is not worth a word.
    fn is_default(&self, key: &Key, value: &DeValue<'_>) -> bool {
        match render::lookup(&self.defaults, key) {
            Some(toml::Value::Boolean(default)) => value.as_bool() == Some(*default),
            Some(toml::Value::Integer(default)) => integer(value) == Some(*default),
            Some(toml::Value::String(default)) => {
                value.as_str() == Some(default) || value.as_str() == Some("")
            }
            _ => false,
        }
    }

    fn mistake(&self, shown: &str, span: &Range<usize>, expected: &str) -> Mistake {
        let value = self.text.get(span.clone()).unwrap_or_default();
        let first = value.lines().next().unwrap_or_default();
        let mut value: String = first.chars().take(MAX_SHOWN).collect();
        if value.len() < first.len() {
            value.push('…');
        }
        Mistake { line: line(self.text, span), message: format!("{shown} = {value}: {expected}") }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn allowed(kind: Kind, value: &DeValue<'_>) -> bool {
    match kind {
        Kind::Bool => value.is_bool(),
        Kind::Int(min, max) => integer(value).is_some_and(|number| (min..=max).contains(&number)),
        Kind::Text => value.is_str(),
        Kind::OneOf(words) => value.as_str().is_some_and(|text| text.is_empty() || words.contains(&text)),
        Kind::Size => match value.as_str() {
            Some(text) => ByteSize::parse(text).is_some(),
            None => integer(value).is_some_and(|n| u64::try_from(n).is_ok_and(|n| n <= size::MAX)),
        },
        Kind::TextList => value.as_array().is_some_and(|list| list.iter().all(|e| e.get_ref().is_str())),
    }
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Bool => "expected true or false".into(),
        Kind::Int(i64::MIN, i64::MAX) => "expected a whole number".into(),
        Kind::Int(i64::MIN, max) => format!("expected a whole number, at most {max}"),
        Kind::Int(min, i64::MAX) => format!("expected a whole number, at least {min}"),
        Kind::Int(min, max) => format!("expected a whole number from {min} to {max}"),
        Kind::Text => "expected a text in quotation marks".into(),
        Kind::OneOf(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            format!("expected {}", words.join(" or "))
        }
        Kind::Size => "expected a number of bytes or a size such as \"10GiB\", at most 1024TiB".into(),
        Kind::TextList => "expected a list of texts".into(),
    }
}

/// A key whose name differs by underscores and case only, or that is in another table: `dial_timeout_msec`.
fn similar(name: &str) -> Option<String> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    KEYS.iter().find(|key| plain(key.name) == plain(name)).map(Key::path)
}
