//! Printing figures.

use std::fmt::Display;

/// One measured promise.
#[derive(Debug)]
pub struct Figure {
    /// What is measured.
    pub name: String,
    /// What it came to.
    pub value: f64,
    /// The most it may be, if there is such a bar.
    pub bar: Option<f64>,
    /// Unit of both, empty for ratios.
    pub unit: &'static str,
}

/// Prints a heading.
pub fn heading(text: impl Display) {
    println!("\n{text}");
}

/// Prints a line of explanation.
pub fn note(text: impl Display) {
    println!("  {text}");
}

/// Prints figures as a table; returns whether all are within their bars.
#[must_use]
pub fn print(figures: &[Figure]) -> bool {
    println!("\n{:<62}{:>12}{:>12}", "FIGURE", "MEASURED", "AT MOST");
    let mut all = true;
    for figure in figures {
        let bar = figure.bar.map_or(String::new(), |bar| format!("{bar:.2}{}", figure.unit));
        let missed = figure.bar.is_some_and(|bar| figure.value > bar);
        all &= !missed;
        let mark = if missed { "  MISSED" } else { "" };
        println!("{:<62}{:>12}{bar:>12}{mark}", figure.name, format!("{:.2}{}", figure.value, figure.unit));
    }
    all
}
