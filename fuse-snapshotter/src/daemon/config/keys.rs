//! What a key of `config.toml` is: where it stands, what it may hold, what it means, and whether it does anything here.
//!
//! The keys themselves are declared in `file.rs` and in `tables`.

/// What a key may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    /// A whole number within these bounds, both included.
    Int(i64, i64),
    Text,
    /// One of these words; the empty one stands for the default.
    OneOf(&'static [&'static str]),
    /// A number of bytes, or a text such as `10GiB`.
    Size,
    TextList,
}

/// Longest time that can be set: 30 days. Longer ones are mistakes, and must not overflow clocks.
pub(super) const SECONDS: Kind = Kind::Int(0, 30 * 24 * 3600);
pub(super) const MILLISECONDS: Kind = Kind::Int(0, 30 * 24 * 3600 * 1000);
/// More than a machine could do at the same time.
pub(super) const COUNT: Kind = Kind::Int(-1_000_000, 1_000_000);
pub(super) const ANY: Kind = Kind::Int(i64::MIN, i64::MAX);

/// Tables that stand in a list (`[[…]]`).
pub(super) const LISTS: &[&str] = &["resolver.host.*.mirrors"];

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The table it is in, divided by dots; empty for the top of the file, `*` for a name of the user's.
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What it means, in one line, with its unit.
    pub(super) doc: &'static str,
    /// Why it does nothing here, if so.
    pub(super) no_effect: Option<&'static str>,
    /// awslabs/soci-snapshotter does not have it.
    pub(super) is_own: bool,
    /// 0 or an empty text stands for the default.
    pub(super) zero_is_default: bool,
    /// What `config default` shows where there is no default, because the table has a name of the user's.
    pub(super) example: &'static str,
}

impl Key {
    /// A key as most are. `doc` may begin with the space of a doc comment.
    pub(super) const fn new(table: &'static str, name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            table,
            name,
            kind,
            doc: doc.trim_ascii_start(),
            no_effect: None,
            is_own: false,
            zero_is_default: false,
            example: "\"\"",
        }
    }

    /// It does nothing here, for this reason, and is accepted so that files of awslabs/soci-snapshotter work.
    pub(super) const fn idle(self, why: &'static str) -> Self {
        Self { no_effect: Some(why), ..self }
    }

    /// awslabs/soci-snapshotter does not have it.
    pub(super) const fn own(self) -> Self {
        Self { is_own: true, ..self }
    }

    /// 0 or an empty text stands for the default.
    pub(super) const fn zero_is_default(self) -> Self {
        Self { zero_is_default: true, ..self }
    }

    /// A value to show.
    pub(super) const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    /// `table.name`.
    pub(super) fn path(&self) -> String {
        join(self.table, self.name)
    }
}

pub(super) fn join(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}
