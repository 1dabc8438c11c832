//! How a dashboard with its data is drawn as a small SVG picture for the documentation.
//!
//! It asks nobody. It is not Grafana: the same panels in the same places with the same numbers, no more.

use std::fmt::Write as _;

use crate::dashboard::Panel;
use crate::prometheus::Series;

/// One cell of the grid of 24 columns, in pixels.
const CELL: (f64, f64) = (44.0, 24.0);
/// Most series a panel's legend, and most rows a table, has room for.
const MOST: usize = 6;
const COLORS: [&str; MOST] = ["#3274d9", "#e0752d", "#2f9e44", "#a352cc", "#c4162a", "#8a6d3b"];

const STYLE: &str = "text{font:11px sans-serif;fill:#333}.t{font-weight:bold}.n{font-size:26px;fill:#2f7d32}\
                     .s{font-size:9px;fill:#666}.p{fill:#fff;stroke:#ccc}.l{fill:none;stroke-width:1.5}.a{stroke:#ddd}";

/// A panel and, for each of its queries, the series with their names.
pub type Drawn = (Panel, Vec<Vec<(String, Series)>>);

/// The picture; `span` is the time of its left and right edge, in seconds of the Unix epoch.
pub fn svg(panels: &[Drawn], span: (f64, f64)) -> String {
    let bottom = panels.iter().map(|(panel, _)| panel.place[1] + panel.place[3]).max().unwrap_or(0);
    let (width, height) = (24.0 * CELL.0, f64::from(bottom) * CELL.1);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\"><style>{STYLE}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#f4f5f5\"/>\n"
    );
    for (panel, series) in panels {
        let [x, y, w, h] = panel.place.map(f64::from);
        let (width, height) = (w * CELL.0 - 6.0, h * CELL.1 - 6.0);
        let _ = write!(
            text,
            "<g transform=\"translate({} {})\"><rect class=\"p\" width=\"{width}\" height=\"{height}\" rx=\"2\"/>\
             <text class=\"t\" x=\"6\" y=\"14\">{}</text>",
            x * CELL.0 + 3.0,
            y * CELL.1 + 3.0,
            escaped(&panel.title, 80)
        );
        let all: Vec<&(String, Series)> = series.iter().flatten().collect();
        match panel.kind.as_str() {
            "stat" => number(&mut text, panel, &all, height),
            "table" => table(&mut text, panel, series, width),
            _ => lines(&mut text, panel, &all, span, (width, height)),
        }
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

fn number(text: &mut String, panel: &Panel, series: &[&(String, Series)], height: f64) {
    let newest = series.iter().filter_map(|(_, series)| series.points.last()).map(|(_, value)| *value).next_back();
    let shown = newest.map_or_else(|| "no data".into(), |value| with_unit(value, &panel.unit));
    let _ = write!(text, "<text class=\"n\" x=\"12\" y=\"{}\">{shown}</text>", height / 2.0 + 16.0);
}

fn table(text: &mut String, panel: &Panel, series: &[Vec<(String, Series)>], width: f64) {
    let mut rows: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    let names = series.iter().flatten().next().map(|(_, series)| series.labels.keys()).into_iter().flatten();
    let mut heads: Vec<&str> = names.map(String::as_str).collect();
    for (column, (query, found)) in panel.queries.iter().zip(series).enumerate() {
        heads.push(&query.legend);
        for (_, series) in found {
            let labels: Vec<&str> = series.labels.values().map(String::as_str).collect();
            let value = series.points.last().map_or_else(String::new, |(_, value)| with_unit(*value, &query.unit));
            match rows.iter_mut().find(|(of, _)| *of == labels) {
                Some((_, values)) => values.push(value),
                None => rows.push((labels, [vec![String::new(); column], vec![value]].concat())),
            }
        }
        for (_, values) in &mut rows {
            values.resize(column + 1, String::new());
        }
    }
    let across = (width - 12.0) / heads.len().max(1) as f64;
    let lines = rows
        .iter()
        .take(MOST)
        .map(|(labels, values)| labels.iter().copied().chain(values.iter().map(String::as_str)).collect::<Vec<_>>());
    for (row, cells) in std::iter::once(heads.clone()).chain(lines).enumerate() {
        let class = if row == 0 { " class=\"s\"" } else { "" };
        for (column, cell) in cells.iter().enumerate() {
            let (x, cell) = (6.0 + column as f64 * across, escaped(cell, (across / 6.0) as usize));
            let _ = write!(text, "<text{class} x=\"{x:.0}\" y=\"{}\">{cell}</text>", 34 + row * 17);
        }
    }
}

fn lines(text: &mut String, panel: &Panel, series: &[&(String, Series)], span: (f64, f64), size: (f64, f64)) {
    let (left, top, right, bottom) = (58.0, 24.0, size.0 - 8.0, size.1 - 36.0);
    let all = series.iter().flat_map(|(_, series)| series.points.iter().map(|(_, value)| *value));
    let most = all.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    for (share, y) in [(1.0, top), (0.5, f64::midpoint(top, bottom)), (0.0, bottom)] {
        let shown = with_unit(most * share, &panel.unit);
        let _ = write!(
            text,
            "<path class=\"a\" d=\"M{left} {y:.0}H{right}\"/><text class=\"s\" x=\"4\" y=\"{:.0}\">{shown}</text>",
            y + 3.0
        );
    }
    let (mut x, mut y) = (8.0, bottom + 16.0);
    for ((name, series), color) in series.iter().zip(COLORS) {
        let place = |(time, value): &(f64, f64)| {
            let across = (time - span.0) / (span.1 - span.0).max(1.0);
            format!("{:.0} {:.0}", left + across * (right - left), bottom - value.max(0.0) / most * (bottom - top))
        };
        let points: Vec<_> = series.points.iter().map(place).collect();
        let _ = write!(text, "<path class=\"l\" stroke=\"{color}\" d=\"M{}\"/>", points.join("L"));
        let name = escaped(name, 40);
        let width = 12.0 + 4.9 * name.chars().count() as f64;
        if x + width > size.0 {
            (x, y) = (8.0, y + 12.0);
        }
        if y < size.1 {
            let _ = write!(text, "<text class=\"s\" x=\"{x:.0}\" y=\"{y:.0}\" style=\"fill:{color}\">{name}</text>");
        }
        x += width;
    }
}

/// A number as Grafana would show it.
fn with_unit(value: f64, unit: &str) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (size, name) = steps.iter().find(|(size, _)| value.abs() >= *size).or(steps.last()).unwrap_or(&(1.0, ""));
        format!("{} {name}", short(value / size))
    };
    match unit {
        "s" => scaled(&[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]),
        "ns" => scaled(&[(1e6, "ms"), (1e3, "µs"), (1.0, "ns")]),
        "percentunit" => format!("{} %", short(value * 100.0)),
        "bytes" => scaled(&[(1024.0 * 1024.0, "MiB"), (1024.0, "KiB"), (1.0, "B")]),
        "Bps" => scaled(&[(1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")]),
        "pps" | "ops" | "reqps" => format!("{} /s", short(value)),
        "dateTimeFromNow" => "now".into(),
        _ => short(value),
    }
}

fn short(value: f64) -> String {
    let digits = if value.abs() >= 100.0 || value.fract().abs() < f64::EPSILON { 0 } else { 2 };
    format!("{value:.digits$}")
}

fn escaped(text: &str, most: usize) -> String {
    let sign = |c: char| match c {
        '<' => "&lt;".to_owned(),
        '&' => "&amp;".to_owned(),
        c if c.is_control() => ' '.to_string(),
        c => c.to_string(),
    };
    text.chars().take(most).map(sign).collect()
}
