//! The few elements of SVG that the charts are made of.
//!
//! Charts have no background, and their colours have middling brightness: they can be read on white and on black.

use std::fmt::Write;

/// Of words: about as far from white as from black.
pub(crate) const TEXT: &str = "#737c86";
/// Of thin lines.
pub(crate) const LINE: &str = "#737c8666";
/// One for each variant, again from the start if there are more.
pub(crate) const COLOURS: [&str; 6] = ["#2f9e6e", "#3b82c4", "#c9782b", "#9b5fc0", "#c04f6b", "#7d8f2e"];

/// A whole document around its elements. Fonts are those of the reader's system.
pub(crate) fn document(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" width=\"{width}\" \
         height=\"{height:.0}\" font-family=\"system-ui, sans-serif\">\n{body}</svg>\n"
    )
}

// Writing to a string does not fail.

/// Words at a place.
pub(crate) fn text(body: &mut String, x: f64, y: f64, anchor: &str, size: f64, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{TEXT}\">{words}</text>"
    );
}

/// A filled rectangle.
pub(crate) fn rect(body: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), style: &str) {
    let width = width.max(0.0);
    let _ =
        writeln!(body, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" {style}/>");
}

/// A line; solid without `dashes`.
pub(crate) fn line(body: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, dashes: &str) {
    let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
    let _ = writeln!(
        body,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"{dashes}/>",
        from.0, from.1, to.0, to.1
    );
}

/// Distance of ticks on an axis from 0: 1, 2 or 5 times a power of ten, so that there are at most eight or so.
pub(crate) fn step(longest: f64) -> f64 {
    let power = 10f64.powf((longest / 8.0).log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| longest / step <= 8.0)
        .unwrap_or(10.0 * power)
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
