//! A plot: commits per second over clients, and below it the median latency, both on scales of powers.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

/// A line of the plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// What it is of.
    pub(crate) name: String,
    /// By the number of clients, growing.
    pub(crate) points: Vec<Point>,
}

/// What was measured with so many clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) clients: usize,
    pub(crate) commits_per_s: u64,
    pub(crate) median_us: u64,
}

const WIDTH: u32 = 860;
const HEIGHT: u32 = 820;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(50, 50, 50);
const GRID: RGBColor = RGBColor(225, 225, 225);

/// Colours that can be told apart without seeing red from green (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
];

/// Draws `series` as an SVG. Lines without points are left out.
pub(crate) fn draw(title: &str, series: &[Series], file: &Path) -> Result<()> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        fill(title, series, &area).map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(file, svg)?)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failure = DrawingAreaErrorKind<std::io::Error>;

fn fill<'a>(title: &str, series: &[Series], area: &Area<'a>) -> Result<(), Failure> {
    area.fill(&WHITE)?;
    let area = area.titled(title, (FONT, 18).into_font().color(&INK))?;
    let (upper, lower) = area.split_vertically(area.dim_in_pixel().1 as i32 * 11 / 20);
    let throughput = |point: &Point| point.commits_per_s as f64;
    let latency = |point: &Point| point.median_us as f64 / 1_000.0;
    panel(&upper, "commits/s", series, throughput, true)?;
    panel(&lower, "median latency, ms", series, latency, false)?;
    area.present()
}

fn panel<'a>(
    area: &Area<'a>,
    what: &str,
    series: &[Series],
    value: impl Fn(&Point) -> f64,
    legend: bool,
) -> Result<(), Failure> {
    let points = || series.iter().flat_map(|line| &line.points);
    let clients = around(points().map(|point| point.clients as f64));
    let values = around(points().map(&value));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(38)
        .y_label_area_size(70)
        .build_cartesian_2d(
            (clients.0..clients.1).log_scale().base(2.0),
            (values.0..values.1).log_scale(),
        )?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc("clients")
        .y_desc(what)
        .x_labels(16)
        .label_style((FONT, 13).into_font().color(&INK))
        .x_label_formatter(&|clients| short(*clients))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for (number, line) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let at = |point: &Point| (point.clients as f64, value(point));
        let points = line.points.iter().map(at);
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.map(|at| Circle::new(at, 3, colour.filled())))?;
    }
    if legend {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .label_font((FONT, 13).into_font().color(&INK))
            .draw()?;
    }
    Ok(())
}

/// A range around all values, with some room, that a logarithmic scale can show.
fn around(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let positive = values.filter(|value| *value > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if high == 0.0 {
        return (0.5, 2.0);
    }
    (low / 1.4, high * 1.4)
}

/// 200, 8k, 1.5M.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let digits = if scaled >= 10.0 || scaled.fract() == 0.0 {
        0
    } else {
        2
    };
    let text = format!("{scaled:.digits$}");
    let trimmed = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{trimmed}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_axes_are_short() {
        let all = [0.05, 0.3, 1.0, 64.0, 4096.0, 20_000.0, 1_500_000.0].map(short);
        assert_eq!(all, ["0.05", "0.3", "1", "64", "4096", "20k", "1.5M"]);
    }

    #[test]
    fn every_line_is_named_and_drawn() {
        let line = |name: &str, clients: &[usize]| Series {
            name: name.into(),
            points: clients
                .iter()
                .map(|clients| Point {
                    clients: *clients,
                    commits_per_s: 2_000 * *clients as u64,
                    median_us: 400,
                })
                .collect(),
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/plot.svg");
        let lines = [
            line("ours", &[1, 64, 1024]),
            line("one point", &[1]),
            line("none", &[]),
        ];
        draw("a title", &lines, &file).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        for text in [
            "a title",
            "ours",
            "one point",
            "commits/s",
            "median latency",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        // A point for each measurement, in both panels.
        assert_eq!(svg.matches("<circle").count(), 2 * 4);
    }
}
