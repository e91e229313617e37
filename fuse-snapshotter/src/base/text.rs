//! Numbers as text for people.

use std::fmt;

/// A size in bytes for people: three digits at least, units of 1000.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0..10_000 => format!("{} B", self.0),
            10_000..10_000_000 => format!("{:.0} kB", self.0 as f64 / 1e3),
            10_000_000..10_000_000_000 => format!("{:.1} MB", self.0 as f64 / 1e6),
            _ => format!("{:.2} GB", self.0 as f64 / 1e9),
        };
        f.pad(&text)
    }
}

/// The share of a part in the whole, in percent.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}
