//! containerd's filter language: which snapshots a client asks for.
//!
//! ```text
//! filter    = selector *("," selector)                 all must match
//! selector  = fieldpath [operator value]               without an operator: the field is there
//! fieldpath = field *("." field)
//! field     = 1*(letter | digit | "_") | quoted        letters of ASCII
//! operator  = "==" | "!=" | "~="                       the last takes a regular expression
//! value     = quoted | anything up to a comma or white space
//! quoted    = a Go string in "double quotes"; after "~=" also between slashes or |bars|
//! ```
//!
//! Of several filters one must match; none at all, or an empty one, matches everything. White space may stand before
//! any part, not after the last one. The fields of a snapshot are `kind` (`active`, `view`, `committed`), `name`,
//! `parent` (there, though empty, if it has none), and `labels.<key>`, whose key may be split at dots and quoted as one
//! likes.
//!
//! A field that does not exist is not there and equals nothing. Its value is the empty string, though, so that
//! `labels.a!=b` matches a snapshot without the label, and `labels.a~=^$` as well.
//!
//! Differences from containerd, none of which a client is likely to meet: `\d`, `\w` and `\b` of a regular expression
//! know all of Unicode, and the regex crate accepts a little more (nested character classes, `a?+`); and a value
//! without quotes may hold characters that Go does not call graphic.

mod parse;
mod quote;
mod scan;
#[cfg(test)]
mod tests;

use regex::{Regex, RegexBuilder};

use self::parse::{Operator, Parser};
use super::store::Info;

/// Most bytes of all filters of a request together. A label is at most 4096.
pub const MAX_FILTER_BYTES: usize = 64 << 10;

/// Most bytes that a compiled regular expression may take, and its matching as well.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// How deep a regular expression may nest; the regex crate recurses when it parses one.
const MAX_REGEX_NESTING: u32 = 100;

/// Most regular expressions in a request: each may take [`MAX_REGEX_BYTES`].
const MAX_REGEXES: usize = 16;

/// A filter that makes no sense. The text is that of containerd, and belongs to the gRPC code `INVALID_ARGUMENT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filters: {0}: invalid argument")]
pub struct FilterError(String);

/// Says which snapshots are asked for.
#[derive(Debug, Clone)]
pub struct Filter {
    /// One of them must match. `None` matches everything.
    any: Option<Vec<Vec<Selector>>>,
}

#[derive(Debug, Clone)]
struct Selector {
    field: Field,
    test: Test,
}

#[derive(Debug, Clone)]
enum Field {
    Kind,
    Name,
    Parent,
    /// `None` is a key that is not UTF-8, which no label has.
    Label(Option<String>),
    Unknown,
}

/// Values are bytes, because `"\xff"` is a value.
#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    Matches(Regex),
    Never,
}

impl Filter {
    /// The filter that matches everything.
    #[cfg(test)]
    pub(crate) const ALL: Self = Self { any: None };

    /// Reads the filters of a request.
    pub fn parse(filters: &[String]) -> Result<Self, FilterError> {
        let length: usize = filters.iter().map(String::len).sum();
        if length > MAX_FILTER_BYTES {
            return Err(FilterError(format!("{length} bytes of filters are more than {MAX_FILTER_BYTES}")));
        }
        let mut any = Vec::new();
        let mut everything = filters.is_empty();
        let mut regexes = 0;
        for filter in filters {
            if filter.is_empty() {
                everything = true;
                continue;
            }
            let mut all = Vec::new();
            for parsed in Parser::new(filter).selectors().map_err(FilterError)? {
                let test = match parsed.operator {
                    None => Test::Present,
                    Some((Operator::Equal, value)) => Test::Equal(value),
                    Some((Operator::NotEqual, value)) => Test::NotEqual(value),
                    Some((Operator::Matches, value)) => {
                        regexes += 1;
                        if regexes > MAX_REGEXES {
                            return Err(FilterError(format!("more than {MAX_REGEXES} regular expressions")));
                        }
                        compile(&value)
                    }
                };
                all.push(Selector { field: Field::new(&parsed.fieldpath), test });
            }
            any.push(all);
        }
        Ok(Self { any: (!everything).then_some(any) })
    }

    /// Whether `info` is one of the snapshots asked for.
    pub fn matches(&self, info: &Info) -> bool {
        match &self.any {
            None => true,
            Some(any) => any.iter().any(|all| all.iter().all(|selector| selector.matches(info))),
        }
    }
}

impl Field {
    fn new(path: &[Vec<u8>]) -> Self {
        match path.split_first() {
            // What follows the first part of these is ignored in containerd.
            Some((first, _)) if first == b"kind" => Self::Kind,
            Some((first, _)) if first == b"name" => Self::Name,
            Some((first, _)) if first == b"parent" => Self::Parent,
            Some((first, key)) if first == b"labels" => Self::Label(String::from_utf8(key.join(&b'.')).ok()),
            _ => Self::Unknown,
        }
    }

    fn value<'a>(&self, info: &'a Info) -> Option<&'a str> {
        match self {
            Self::Kind => Some(info.kind.as_str()),
            Self::Name => Some(&info.name),
            Self::Parent => Some(&info.parent),
            Self::Label(key) => info.labels.get(key.as_deref()?).map(String::as_str),
            Self::Unknown => None,
        }
    }
}

impl Selector {
    fn matches(&self, info: &Info) -> bool {
        let value = self.field.value(info);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some_and(|value| value.as_bytes() == wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default().as_bytes() != unwanted,
            Test::Matches(regex) => regex.is_match(value.unwrap_or_default()),
            Test::Never => false,
        }
    }
}

/// An expression that cannot be compiled matches nothing, and is no error: so it is in containerd, which compiles it
/// when it is first needed.
fn compile(value: &[u8]) -> Test {
    let regex = std::str::from_utf8(value).map_err(|error| error.to_string()).and_then(|value| {
        RegexBuilder::new(value)
            .size_limit(MAX_REGEX_BYTES)
            .dfa_size_limit(MAX_REGEX_BYTES)
            .nest_limit(MAX_REGEX_NESTING)
            .build()
            .map_err(|error| error.to_string())
    });
    match regex {
        Ok(regex) => Test::Matches(regex),
        Err(error) => {
            tracing::error!(%error, "error compiling regexp {:?}", String::from_utf8_lossy(value));
            Test::Never
        }
    }
}
