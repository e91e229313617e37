//! Tables and durations as Go's `text/tabwriter` and `time` print them.

use std::time::Duration;

/// Narrowest column and space after a column, in characters.
const MIN_WIDTH: usize = 8;
const PADDING: usize = 4;

/// A table whose every cell is closed by a tab, as the reference's: the last column is padded too.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |cell: &String| cell.chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let widest = self.rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0);
                (widest + PADDING).max(MIN_WIDTH)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            for (cell, column) in row.iter().zip(&widths) {
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', column - width(cell)));
            }
            text.push('\n');
        }
        text
    }
}

/// Go's `Duration.String` of whole seconds, such as `1h0m3s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    // Rounded half up, as Duration.Round does.
    let seconds = duration.as_secs() + u64::from(duration.subsec_millis() >= 500);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Go's `time.ParseDuration` of what is not negative: `0`, `1.5h`, `1m30s`, `250ms`.
pub(crate) fn parse_go_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is not a duration such as 90s, 1m30s or 250ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(error)?;
        let number: f64 = rest[..end].parse().map_err(|_| error())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(error()),
        };
        rest = &rest[end..];
        total += number * unit;
    }
    if text.is_empty() {
        return Err(error());
    }
    Duration::try_from_secs_f64(total).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_gos_tabwriter_makes_them() {
        let mut table = Table::new(&["DIGEST", "SIZE", ""]);
        table.row(vec!["sha256:ab".into(), "12".into(), "é".into()]);
        assert_eq!(table.render(), "DIGEST       SIZE            \nsha256:ab    12      é       \n");
    }

    #[test]
    fn durations_read_and_print_as_in_go() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m0s"), (63, "1m3s"), (3600, "1h0m0s"), (90_061, "25h1m1s")]
        {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
            assert_eq!(parse_go_duration(text).unwrap(), Duration::from_secs(seconds));
        }
        assert_eq!(go_duration(Duration::from_millis(1500)), "2s");
        assert_eq!(parse_go_duration("1.5h").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_go_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_go_duration("0").unwrap(), Duration::ZERO);
        for bad in ["", "5", "s", "5x", "-1s", "1..s", "1e300h"] {
            assert!(parse_go_duration(bad).is_err(), "{bad}");
        }
    }
}
