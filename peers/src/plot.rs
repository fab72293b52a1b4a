//! The table as a picture: commits a second over clients, both axes logarithmic, a line for each system.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::Line;

const SIZE: (u32, u32) = (900, 540);

/// One for each line; told apart also by those who see few colours.
const COLOURS: [RGBColor; 10] = [
    RGBColor(0, 0, 0),
    RGBColor(110, 110, 110),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(204, 121, 167),
    RGBColor(148, 103, 40),
    RGBColor(230, 159, 0),
    RGBColor(120, 60, 160),
];

/// The picture as SVG. Of nothing, an empty one.
pub(crate) fn svg(lines: &[Line]) -> Result<String> {
    let mut text = String::new();
    draw(lines, SVGBackend::with_string(&mut text, SIZE))
        .map_err(|error| anyhow!("the plot: {error}"))?;
    Ok(text)
}

fn draw(lines: &[Line], backend: SVGBackend) -> Result<(), Box<dyn std::error::Error>> {
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let points = |line: &Line| -> Vec<(f64, f64)> {
        let cells = line
            .cells
            .iter()
            .filter(|(_, cell)| cell.commits_per_s > 0.0);
        cells
            .map(|(clients, cell)| (*clients as f64, cell.commits_per_s))
            .collect()
    };
    let all: Vec<_> = lines.iter().flat_map(points).collect();
    if all.is_empty() {
        return Ok(area.present()?);
    }
    let most_clients = all.iter().map(|(clients, _)| *clients).fold(2.0, f64::max);
    let least = all
        .iter()
        .map(|(_, commits)| *commits)
        .fold(f64::MAX, f64::min);
    let most = all.iter().map(|(_, commits)| *commits).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .caption(
            "commits a second, by the number of clients",
            ("sans-serif", 20),
        )
        .x_label_area_size(36)
        .y_label_area_size(76)
        .build_cartesian_2d(
            (1.0..most_clients).log_scale().base(4.0),
            (least * 0.7..most * 1.4).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("clients")
        .x_label_formatter(&|clients| format!("{clients:.0}"))
        .y_label_formatter(&|commits| format!("{commits:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(if line.name.starts_with("ours") { 4 } else { 2 });
        chart
            .draw_series(LineSeries::new(points(line), style).point_size(3))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(area.present()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::Cell;

    fn line(name: &str, commits: &[(usize, f64)]) -> Line {
        let cell = |commits_per_s| Cell {
            commits_per_s,
            median_us: 1.0,
            p99_us: 1.0,
            cpu_us: 1.0,
            servers_cpu_us: None,
            errors: 0,
        };
        let cells: BTreeMap<_, _> = commits
            .iter()
            .map(|(clients, commits)| (*clients, cell(*commits)))
            .collect();
        Line {
            name: name.to_owned(),
            cells,
        }
    }

    #[test]
    fn every_system_is_in_the_picture() {
        let lines = [
            line("ours", &[(1, 2_000.0), (1_024, 400_000.0)]),
            line("etcd", &[(1, 900.0)]),
        ];
        let text = svg(&lines).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("ours") && text.contains("etcd"));
    }

    #[test]
    fn nothing_and_zero_draw_nothing_and_fail_not() {
        assert!(svg(&[]).unwrap().contains("<svg"));
        assert!(svg(&[line("dead", &[(1, 0.0)])]).unwrap().contains("<svg"));
    }
}
