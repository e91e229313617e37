//! The results as a picture (SVG): bars of pull and run for each image and variant, a panel for each link.
//!
//! No background, and colours of middling brightness: it can be read on white and on black.

use std::fmt::Write;

use crate::report::{Group, Report};

const TEXT: &str = "#808890";
const LINE: &str = "#80889066";
/// One for each variant, again from the start if there are more.
const COLOURS: [&str; 6] = ["#2f9e6e", "#3b82c4", "#c9782b", "#9b5fc0", "#c04f6b", "#7d8f2e"];
const LEFT: f64 = 170.0;
const WIDTH: f64 = 620.0;
const RIGHT: f64 = 130.0;
const BAR: f64 = 14.0;
/// Between the bars of two images.
const GAP: f64 = 12.0;

/// Draws it.
pub(crate) fn draw(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 30.0;
    text(&mut body, 10.0, y, "start", 15.0, "Cold start: pull (pale) and run to the ready line (full)");
    y += 16.0;
    let note = "seconds, median; whisker: 90th percentile; dashed: the floor; at the right: times the floor";
    text(&mut body, 10.0, y, "start", 11.0, note);
    for link in &report.links {
        let groups: Vec<_> = report.results.iter().filter(|group| group.profile == link.profile).collect();
        y += 34.0;
        let rate = link.measured.megabits.map_or(String::new(), |rate| format!(", {rate:.0} Mbit/s"));
        let title = format!("link {} (measured: {:.1} ms{rate})", link.profile, link.measured.connect_ms);
        text(&mut body, 10.0, y, "start", 13.0, &title);
        y += 12.0;
        panel(&mut body, &mut y, &groups);
    }
    let (width, height) = (LEFT + WIDTH + RIGHT, y + 20.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" width=\"{width}\" \
         height=\"{height:.0}\" font-family=\"system-ui, sans-serif\">\n{body}</svg>\n"
    )
}

fn panel(body: &mut String, y: &mut f64, groups: &[&Group]) {
    let longest = groups.iter().flat_map(|group| &group.variants).map(|variant| variant.median.total_p90);
    let longest = longest.fold(0.1, f64::max);
    let scale = |seconds: f64| LEFT + seconds / longest * WIDTH;
    let top = *y;
    let mut bars = String::new();
    for group in groups {
        let begin = *y;
        for (number, variant) in group.variants.iter().enumerate() {
            let (median, colour) = (&variant.median, COLOURS[number % COLOURS.len()]);
            let baseline = *y + BAR - 3.0;
            let label = format!("{} {}", group.image, variant.variant);
            text(&mut bars, LEFT - 8.0, baseline, "end", 11.0, &label);
            let split = scale(median.pull.min(median.total));
            rect(&mut bars, (LEFT, *y), split - LEFT, &format!("fill=\"{colour}\" fill-opacity=\"0.55\""));
            rect(&mut bars, (split, *y), scale(median.total) - split, &format!("fill=\"{colour}\""));
            let (from, to, middle) = (scale(median.total), scale(median.total_p90), *y + BAR / 2.0 - 1.0);
            line(&mut bars, (from, middle), (to, middle), colour, "");
            line(&mut bars, (to, *y + 2.0), (to, *y + BAR - 4.0), colour, "");
            let value = format!("{:.2} s  ×{:.1}", median.total, median.multiple);
            text(&mut bars, to + 6.0, baseline, "start", 11.0, &value);
            *y += BAR;
        }
        let floor = scale(group.floor.total);
        line(&mut bars, (floor, begin - 2.0), (floor, *y), TEXT, "4 2");
        *y += GAP;
    }
    let step = step(longest);
    let mut tick = 0.0;
    while tick <= longest {
        line(body, (scale(tick), top - 2.0), (scale(tick), *y - 4.0), LINE, "");
        text(body, scale(tick), *y + 8.0, "middle", 10.0, &format!("{} s", (tick * 1000.0).round() / 1000.0));
        tick += step;
    }
    body.push_str(&bars);
    *y += 8.0;
}

/// Distance of ticks: 1, 2 or 5 times a power of ten, so that there are at most eight or so.
fn step(longest: f64) -> f64 {
    let power = 10f64.powf((longest / 8.0).log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| longest / step <= 8.0)
        .unwrap_or(10.0 * power)
}

// Writing to a string does not fail.

fn text(body: &mut String, x: f64, y: f64, anchor: &str, size: f64, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{TEXT}\">{words}</text>"
    );
}

fn rect(body: &mut String, (x, y): (f64, f64), width: f64, style: &str) {
    let (width, height) = (width.max(0.0), BAR - 2.0);
    let _ =
        writeln!(body, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" {style}/>");
}

fn line(body: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, dashes: &str) {
    let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
    let _ = writeln!(
        body,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"{dashes}/>",
        from.0, from.1, to.0, to.1
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (longest, expected) in
            [(0.1, 0.02), (1.0, 0.2), (3.9, 0.5), (8.0, 1.0), (14.6, 2.0), (60.0, 10.0)]
        {
            assert!((step(longest) - expected).abs() < 1e-9, "{longest}: {}", step(longest));
        }
    }
}
