//! One image over one link as a small picture (SVG) for the README: a start with this snapshotter and without it.
//!
//! The picture in the repository (`docs/start.svg`) shows the rows that `docs/benchmarks.md` records; a test compares the
//! two. So rows can come from a run and from that document.

use std::fmt::Write;

use anyhow::{Context, bail};

use crate::report::Report;
use crate::svg::{COLOURS, LINE, TEXT, document, line, rect, step, text};

/// The table that the picture shows follows this line in `docs/benchmarks.md`.
const MARKER: &str = "<!-- docs/start.svg -->";
/// The link that is shown if several were measured: a cloud's registry in the same region is about so far.
const LINK: &str = "10ms/1gbit";
/// The variants that are shown, in their order, and what they are called.
const VARIANTS: [(&str, &str); 4] = [
    ("overlayfs", "without it: overlayfs"),
    ("eager", "with it: eager, the whole image"),
    ("lazy", "with it: lazy"),
    ("recorded", "with it: lazy, recorded start"),
];

const LEFT: f64 = 220.0;
const WIDTH: f64 = 400.0;
const RIGHT: f64 = 120.0;
const BAR: f64 = 18.0;
const ROW: f64 = 28.0;

/// What is shown.
#[derive(Debug, PartialEq)]
pub(crate) struct Overview {
    /// Image and link.
    subject: String,
    rows: Vec<Row>,
}

/// A way to start the image.
#[derive(Debug, PartialEq)]
struct Row {
    variant: String,
    /// From the pull command to the line that says that the program is ready.
    seconds: f64,
    /// That came over the link until then; in units of 1000.
    megabytes: f64,
}

impl Overview {
    /// Of the largest image that was started both lazily and by overlayfs; none if no image was.
    pub(crate) fn of_run(report: &Report) -> Option<Self> {
        let size =
            |name: &str| report.images.iter().find(|image| image.name == name).map_or(0, |image| image.size);
        let groups = report.results.iter().filter(|group| {
            let has = |name: &str| group.variants.iter().any(|variant| variant.variant == name);
            has("lazy") && has("overlayfs")
        });
        let group = groups.max_by_key(|group| (group.profile == LINK, size(&group.image)))?;
        let rows = VARIANTS.iter().filter_map(|(name, _)| {
            let median = &group.variants.iter().find(|variant| variant.variant == *name)?.median;
            Some(Row { variant: (*name).into(), seconds: median.total, megabytes: median.bytes / 1e6 })
        });
        let megabytes = size(&group.image) as f64 / 1e6;
        let link =
            group.profile.replace("ms/", " ms, ").replace("gbit", " Gbit/s").replace("mbit", " Mbit/s");
        let subject = format!("{} ({megabytes:.0} MB) over {link}", group.image);
        Some(Self { subject, rows: rows.collect() })
    }

    /// Of the table after the marker in a document.
    pub(crate) fn of_document(document: &str) -> anyhow::Result<Self> {
        let (_, after) = document.split_once(MARKER).with_context(|| format!("no line {MARKER}"))?;
        let mut lines = after.lines().map(str::trim).skip_while(|line| !line.starts_with('|'));
        let cells = |line: &str| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        let subject = lines.next().map(cells).and_then(|cells| cells.into_iter().next());
        let mut rows = Vec::new();
        // The line of dashes comes between.
        for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
            let [variant, seconds, megabytes] = &cells(line)[..] else { bail!("not three cells: {line}") };
            let number =
                |text: &str| text.parse::<f64>().with_context(|| format!("no number: {text:?} in {line}"));
            rows.push(Row {
                variant: variant.clone(),
                seconds: number(seconds)?,
                megabytes: number(megabytes)?,
            });
        }
        Ok(Self { subject: subject.context("no table after the marker")?, rows })
    }

    /// The table for `docs/benchmarks.md`.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("{MARKER}\n\n| {} | seconds | MB |\n|---|---|---|\n", self.subject);
        for row in &self.rows {
            // Writing to a string does not fail.
            let _ = writeln!(table, "| {} | {:.2} | {:.1} |", row.variant, row.seconds, row.megabytes);
        }
        table
    }

    /// The picture.
    pub(crate) fn draw(&self) -> String {
        let longest = self.rows.iter().map(|row| row.seconds).fold(0.1, f64::max);
        let scale = |seconds: f64| LEFT + seconds / longest * WIDTH;
        let (mut body, mut bars) = (String::new(), String::new());
        text(&mut body, 10.0, 22.0, "start", 15.0, &format!("Cold start of {}", self.subject));
        let top = 38.0;
        let mut y = top;
        for row in &self.rows {
            let known = VARIANTS.iter().find(|(name, _)| *name == row.variant);
            let label = known.map_or(row.variant.as_str(), |(_, words)| words);
            let colour = if row.variant == "overlayfs" { TEXT } else { COLOURS[0] };
            let baseline = y + BAR - 5.0;
            text(&mut bars, LEFT - 8.0, baseline, "end", 12.0, label);
            let size = (scale(row.seconds) - LEFT, BAR);
            rect(&mut bars, (LEFT, y), size, &format!("fill=\"{colour}\""));
            let value = format!("{:.1} s, {:.0} MB", row.seconds, row.megabytes);
            text(&mut bars, scale(row.seconds) + 6.0, baseline, "start", 12.0, &value);
            y += ROW;
        }
        let mut tick = 0.0;
        while tick <= longest {
            line(&mut body, (scale(tick), top - 4.0), (scale(tick), y - 4.0), LINE, "");
            text(
                &mut body,
                scale(tick),
                y + 8.0,
                "middle",
                11.0,
                &format!("{}", (tick * 1000.0).round() / 1000.0),
            );
            tick += step(longest);
        }
        let axis = "seconds from the pull command to the program's ready line; MB: fetched until then";
        text(&mut body, 10.0, y + 30.0, "start", 12.0, axis);
        document(LEFT + WIDTH + RIGHT, y + 42.0, &(body + &bars))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "words\n\n<!-- docs/start.svg -->\n\n| torch (485 MB) over 10 ms, 1 Gbit/s | seconds | MB |\n\
                            |---|---|---|\n| overlayfs | 20.00 | 485.0 |\n| lazy | 5.00 | 240.4 |\n\nmore\n";

    #[test]
    fn bars_are_as_long_as_starts_take() {
        let picture = Overview::of_document(DOCUMENT).unwrap().draw();
        let widths = picture.lines().filter(|line| line.starts_with("<rect"));
        let widths = widths.map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap());
        let widths: Vec<f64> = widths.map(|width| width.parse().unwrap()).collect();
        assert_eq!(widths, [WIDTH, WIDTH / 4.0]);
    }

    #[test]
    fn it_names_the_image_the_ways_and_the_units_and_needs_nothing_from_elsewhere() {
        let picture = Overview::of_document(DOCUMENT).unwrap().draw();
        let axis = "seconds from the pull command";
        for words in [
            "torch (485 MB) over 10 ms, 1 Gbit/s",
            "without it: overlayfs",
            "with it: lazy",
            "5.0 s, 240 MB",
            axis,
        ] {
            assert!(picture.contains(words), "no {words:?} in {picture}");
        }
        assert_eq!(picture.matches("http").count(), 1, "the name space is the only address: {picture}");
        assert!(!picture.contains("url(") && !picture.contains("@import"), "{picture}");
    }

    #[test]
    fn a_table_that_is_written_is_read_again() {
        let overview = Overview::of_document(DOCUMENT).unwrap();
        assert_eq!(Overview::of_document(&overview.table()).unwrap(), overview);
        for broken in ["", MARKER, "<!-- docs/start.svg -->\n| a | b | c |\n|-|-|-|\n| lazy | soon | 1 |\n"] {
            Overview::of_document(broken).unwrap_err();
        }
    }

    /// After a change of the table: `startup --chart docs/start.svg --recorded docs/benchmarks.md`.
    #[test]
    fn the_picture_in_the_repository_shows_the_recorded_rows() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
        let read = |name: &str| std::fs::read_to_string(format!("{docs}/{name}")).unwrap();
        let overview = Overview::of_document(&read("benchmarks.md")).unwrap();
        assert_eq!(read("start.svg"), overview.draw());
    }
}
