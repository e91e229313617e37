//! All results as a picture (SVG): bars of pull and run for each image and variant, a panel for each link.

use crate::report::{Group, Report};
use crate::svg::{COLOURS, LINE, TEXT, document, line, rect, step, text};

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
    document(LEFT + WIDTH + RIGHT, y + 20.0, &body)
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
            let (pull, run) = ((split - LEFT, BAR - 2.0), (scale(median.total) - split, BAR - 2.0));
            rect(&mut bars, (LEFT, *y), pull, &format!("fill=\"{colour}\" fill-opacity=\"0.55\""));
            rect(&mut bars, (split, *y), run, &format!("fill=\"{colour}\""));
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
