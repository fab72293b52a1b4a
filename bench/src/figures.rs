//! Figures, each with its floor and, where there is one, its target: `FIGURE area.name value unit floor ok|missed [target]`.

use std::fmt::Write as _;

/// What was measured, a line each.
#[derive(Debug)]
pub(crate) struct Figures {
    area: &'static str,
    text: String,
    missed: bool,
}

impl Figures {
    pub(crate) fn of(area: &'static str) -> Self {
        Self {
            area,
            text: String::new(),
            missed: false,
        }
    }

    /// A figure that must not be less than `floor`.
    pub(crate) fn at_least(&mut self, name: &str, value: f64, unit: &str, floor: f64) {
        self.line(name, value, unit, &floor.to_string(), value >= floor, None);
    }

    /// A figure that must not be more than `ceiling`.
    pub(crate) fn at_most(&mut self, name: &str, value: f64, unit: &str, ceiling: f64) {
        let ok = value <= ceiling;
        self.line(name, value, unit, &ceiling.to_string(), ok, None);
    }

    /// A figure that must be on the floor's side of it, and is meant to reach the target, which is printed behind it:
    /// above the floor if that is where the target is.
    pub(crate) fn aimed(&mut self, name: &str, value: f64, unit: &str, floor: f64, target: f64) {
        let beyond = |bound: f64| match target >= floor {
            true => value >= bound,
            false => value <= bound,
        };
        let ok = beyond(floor);
        self.line(name, value, unit, &floor.to_string(), ok, Some(target));
    }

    /// A figure that nothing is asked of.
    pub(crate) fn seen(&mut self, name: &str, value: f64, unit: &str) {
        self.line(name, value, unit, "-", true, None);
    }

    fn line(
        &mut self,
        name: &str,
        value: f64,
        unit: &str,
        floor: &str,
        ok: bool,
        target: Option<f64>,
    ) {
        self.missed |= !ok;
        let verdict = if ok { "ok" } else { "missed" };
        let area = self.area;
        let digits = if value.fract() == 0.0 { 0 } else { 3 };
        // Writing to a string cannot fail.
        let _ = write!(
            self.text,
            "FIGURE {area}.{name} {value:.digits$} {unit} {floor} {verdict}"
        );
        if let Some(target) = target {
            let _ = write!(self.text, " target {target}");
        }
        self.text.push('\n');
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_on_the_good_side_of_its_floor() {
        let mut figures = Figures::of("area");
        figures.aimed("more", 0.7, "ratio", 0.6, 0.8);
        figures.aimed("less", 1.2, "ratio", 1.35, 1.1);
        figures.aimed("well", 1.0, "ratio", 1.35, 1.1);
        assert!(!figures.missed());
        figures.aimed("bad", 1.4, "ratio", 1.35, 1.1);
        assert!(figures.missed());
        assert_eq!(
            figures.text().lines().collect::<Vec<_>>(),
            [
                "FIGURE area.more 0.700 ratio 0.6 ok target 0.8",
                "FIGURE area.less 1.200 ratio 1.35 ok target 1.1",
                "FIGURE area.well 1 ratio 1.35 ok target 1.1",
                "FIGURE area.bad 1.400 ratio 1.35 missed target 1.1",
            ]
        );
    }

    #[test]
    fn what_is_not_a_number_misses() {
        let mut figures = Figures::of("area");
        figures.aimed("none", f64::NAN, "ratio", 1.35, 1.1);
        assert!(figures.missed());
    }
}
