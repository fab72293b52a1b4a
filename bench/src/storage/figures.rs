//! Figures, each with its floor.

use std::fmt::Write as _;

/// What was measured, a line each.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    text: String,
    missed: bool,
}

impl Figures {
    /// A figure that must not be less than `floor`.
    pub(crate) fn at_least(&mut self, name: &str, value: f64, unit: &str, floor: f64) {
        self.line(name, value, unit, &floor.to_string(), value >= floor);
    }

    /// A figure that must not be more than `ceiling`.
    pub(crate) fn at_most(&mut self, name: &str, value: f64, unit: &str, ceiling: f64) {
        self.line(name, value, unit, &ceiling.to_string(), value <= ceiling);
    }

    /// A figure that nothing is asked of.
    pub(crate) fn seen(&mut self, name: &str, value: f64, unit: &str) {
        self.line(name, value, unit, "-", true);
    }

    fn line(&mut self, name: &str, value: f64, unit: &str, floor: &str, ok: bool) {
        self.missed |= !ok;
        let verdict = if ok { "ok" } else { "missed" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "FIGURE storage.{name} {value:.3} {unit} {floor} {verdict}"
        );
    }

    /// All of them.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether one was not what it had to be.
    pub(crate) fn missed(&self) -> bool {
        self.missed
    }
}
