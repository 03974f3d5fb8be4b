//! The report as a picture (SVG): throughput over frame size, beside what the line takes, and latency over load.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::report::{LatencyNs, LatencyRow, Report, Size};

/// Pixels of a panel, of the legend below it, and of the title above all.
const PANEL: (u32, u32) = (640, 420);
const LEGEND: u32 = 34;
const TITLE: u32 = 56;

/// Colours that people who do not tell red from green can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(0, 0, 0),
];
const LINE_COLOUR: RGBColor = RGBColor(150, 150, 150);
const FONT: &str = "sans-serif";

/// One curve.
struct Series {
    name: String,
    colour: RGBColor,
    /// A line without points: what is possible, not what was measured.
    plain: bool,
    points: Vec<(f64, f64)>,
}

/// What the x axis says.
enum Axis {
    /// Names at 0, 1, 2 …
    Names(Vec<String>),
    /// Per cent.
    Percent,
}

struct Panel {
    title: &'static str,
    x: (&'static str, Axis),
    y: &'static str,
    logarithmic: bool,
    series: Vec<Series>,
}

/// The report as SVG. None where nothing was measured that could be shown.
///
/// # Errors
/// What the drawing library says; none is known.
pub(super) fn svg(report: &Report) -> Result<Option<String>, String> {
    let panels = panels(report);
    if panels.is_empty() {
        return Ok(None);
    }
    let columns = panels.len().min(2);
    let rows = panels.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, TITLE + PANEL.1 * rows as u32);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&root, &panels, (rows, columns), report).map_err(|error| error.to_string())?;
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(Some(text))
}

fn panels(report: &Report) -> Vec<Panel> {
    let measured: Vec<&Size> = report.sizes.iter().filter(|size| size.throughput.is_some()).collect();
    let names = || Axis::Names(measured.iter().map(|size| size.frame.clone()).collect());
    let throughput = |value: fn(&Size, f64) -> f64| {
        let found = |size: &Size| size.throughput.as_ref().and_then(|found| found.pps);
        let of = |rate: &dyn Fn(&Size) -> Option<f64>| -> Vec<_> {
            let points = measured.iter().enumerate();
            points.filter_map(|(x, size)| Some((x as f64, value(size, rate(size)?)))).collect()
        };
        vec![
            Series {
                name: "line rate".into(),
                colour: LINE_COLOUR,
                plain: true,
                points: of(&|size| size.line_pps),
            },
            Series { name: "throughput".into(), colour: COLOURS[0], plain: false, points: of(&found) },
        ]
    };
    let by_size = |points: &dyn Fn(&Size) -> Vec<(f64, f64)>| -> Vec<Series> {
        let sizes = report.sizes.iter().zip(COLOURS.iter().cycle());
        sizes
            .map(|(size, colour)| Series {
                name: size.frame.clone(),
                colour: *colour,
                plain: false,
                points: points(size),
            })
            .collect()
    };
    let latency = |value: fn(&LatencyNs) -> u64| {
        let point =
            move |row: &LatencyRow| Some((row.load_percent, value(row.latency_ns.as_ref()?) as f64 / 1e3));
        by_size(&move |size: &Size| size.latency.iter().filter_map(point).collect())
    };
    let loss =
        by_size(&|size| size.loss.iter().map(|row| (row.load_percent, row.counted.loss_percent)).collect());
    let load = || ("load, % of the throughput", Axis::Percent);
    let all = [
        Panel {
            title: "Throughput in frames",
            x: ("frame size, bytes", names()),
            y: "Mpps",
            logarithmic: true,
            series: throughput(|_, pps| pps / 1e6),
        },
        Panel {
            title: "Throughput in bits",
            x: ("frame size, bytes", names()),
            y: "Gbit/s",
            logarithmic: true,
            series: throughput(|size, pps| pps * 8.0 * size.mean_bytes / 1e9),
        },
        Panel {
            title: "Latency, median",
            x: load(),
            y: "µs",
            logarithmic: true,
            series: latency(|times| times.p50),
        },
        Panel {
            title: "Latency, percentile 99.9",
            x: load(),
            y: "µs",
            logarithmic: true,
            series: latency(|times| times.p99_9),
        },
        Panel {
            title: "Frame loss rate",
            x: ("load, % of the highest rate", Axis::Percent),
            y: "lost, %",
            logarithmic: false,
            series: loss,
        },
    ];
    let is_measured =
        |panel: &Panel| panel.series.iter().any(|series| !series.plain && !series.points.is_empty());
    all.into_iter().filter(is_measured).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &Area<'_>, panels: &[Panel], grid: (usize, usize), report: &Report) -> Drawn {
    root.fill(&WHITE)?;
    let (title, rest) = root.split_vertically(TITLE);
    let mark = if report.complete { "" } else { " (incomplete)" };
    let heading = format!("RFC 2544: {} to {}{mark}", report.send, report.receive);
    title.draw(&Text::new(heading, (20, 10), (FONT, 22)))?;
    let below = format!(
        "trials of {} s, at most {} % lost, resolution {} %; {} and {} mode",
        report.trial_seconds,
        report.loss_allowed_percent,
        report.resolution_percent,
        report.send_mode,
        report.receive_mode
    );
    title.draw(&Text::new(below, (20, 36), (FONT, 14).into_font().color(&RGBColor(90, 90, 90))))?;
    for (area, panel) in rest.split_evenly(grid).iter().zip(panels) {
        let (chart, legend) = area.split_vertically(PANEL.1 - LEGEND);
        if panel.logarithmic {
            let range = decades(panel);
            chart_of(&chart, panel, range.clone(), |builder, x| {
                builder.build_cartesian_2d(x, range.log_scale())
            })?;
        } else {
            let range = 0.0..highest(panel).max(1.0) * 1.05;
            chart_of(&chart, panel, range.clone(), |builder, x| builder.build_cartesian_2d(x, range))?;
        }
        draw_legend(&legend, panel)?;
    }
    Ok(())
}

fn values(panel: &Panel) -> impl Iterator<Item = f64> {
    panel.series.iter().flat_map(|series| series.points.iter().map(|point| point.1))
}

fn highest(panel: &Panel) -> f64 {
    values(panel).fold(0.0, f64::max)
}

/// Whole decades around all values: at least one.
fn decades(panel: &Panel) -> std::ops::Range<f64> {
    let positive = || values(panel).filter(|value| *value > 0.0);
    let low = positive().fold(f64::INFINITY, f64::min).log10().floor();
    let high = positive().fold(0.0, f64::max).log10().ceil();
    if !low.is_finite() || !high.is_finite() {
        return 1.0..10.0;
    }
    // A little more, so that what lies on the ends is inside for the axis, too.
    0.9999 * 10f64.powf(low)..1.0001 * 10f64.powf(high.max(low + 1.0))
}

type Chart<'b, 'a, Y> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>;

fn chart_of<'b, 'a, Y>(
    area: &'b Area<'a>,
    panel: &Panel,
    range: std::ops::Range<f64>,
    build: impl FnOnce(
        &mut ChartBuilder<'b, '_, SVGBackend<'a>>,
        std::ops::Range<f64>,
    ) -> Result<Chart<'b, 'a, Y>, DrawingAreaErrorKind<std::io::Error>>,
) -> Drawn
where
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(panel.title, (FONT, 18))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(44)
        .y_label_area_size(64);
    let across = match &panel.x.1 {
        Axis::Names(names) => -0.5..names.len() as f64 - 0.5,
        Axis::Percent => 0.0..105.0,
    };
    let mut chart = build(&mut builder, across)?;
    let name = |x: &f64| match &panel.x.1 {
        Axis::Names(names) => {
            let is_whole = (x - x.round()).abs() < 1e-6 && *x > -0.25;
            names.get(x.round().max(0.0) as usize).filter(|_| is_whole).cloned().unwrap_or_default()
        }
        Axis::Percent => format!("{x:.0}"),
    };
    let labels = match &panel.x.1 {
        Axis::Names(names) => names.len() + 1,
        Axis::Percent => 11,
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(RGBColor(240, 240, 240))
        .bold_line_style(RGBColor(215, 215, 215))
        .x_desc(panel.x.0)
        .y_desc(panel.y)
        .axis_desc_style((FONT, 15))
        .label_style((FONT, 13))
        .x_labels(labels)
        .y_max_light_lines(if panel.logarithmic { 10 } else { 1 })
        .x_label_formatter(&name)
        .y_label_formatter(&|y: &f64| short(*y))
        .draw()?;
    for series in &panel.series {
        // A value of nothing has no place on a logarithmic axis: it lies on the bottom.
        let points = series.points.iter().map(|(x, y)| (*x, y.max(range.start)));
        let style = series.colour.stroke_width(2);
        chart.draw_series(LineSeries::new(points.clone(), style))?;
        if !series.plain {
            chart.draw_series(points.map(|point| Circle::new(point, 4, series.colour.filled())))?;
        }
    }
    Ok(())
}

/// A number on an axis, without digits that say nothing.
fn short(number: f64) -> String {
    if number >= 1000.0 {
        let digits = format!("{number:.0}");
        return crate::display::number(digits.parse().unwrap_or(u64::MAX));
    }
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn draw_legend(area: &Area<'_>, panel: &Panel) -> Drawn {
    let mut x = 76;
    let is_by_size = matches!(panel.x.1, Axis::Percent);
    if is_by_size {
        area.draw(&Text::new("bytes:", (x - 64, 5), (FONT, 13)))?;
    }
    for series in panel.series.iter().filter(|series| !series.points.is_empty()) {
        let y = 12;
        area.draw(&PathElement::new([(x, y), (x + 22, y)], series.colour.stroke_width(2)))?;
        if !series.plain {
            area.draw(&Circle::new((x + 11, y), 4, series.colour.filled()))?;
        }
        area.draw(&Text::new(series.name.clone(), (x + 28, y - 7), (FONT, 13)))?;
        // Letters of this size are about so wide.
        x += 28 + 8 * series.name.chars().count() as i32 + 18;
    }
    Ok(())
}

#[cfg(test)]
#[path = "plot_tests.rs"]
mod tests;
