//! Results as pictures, in SVG: ratios with their intervals, and the balancer's costs by flows.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::row::Row;
use crate::table::grouped;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(215, 215, 215);
const GOOD: RGBColor = RGBColor(0, 114, 178);
const BAD: RGBColor = RGBColor(213, 94, 0);

/// Pixels.
const WIDTH: u32 = 900;
const LINE: u32 = 34;

/// A dot for each median ratio, with its interval as a whisker, around the line at 1. None where there is no ratio.
pub(crate) fn ratios(rows: &[Row]) -> Result<Option<String>> {
    let found: Vec<_> =
        rows.iter().filter_map(|row| Some((row, row.ratio?, row.ratio_low?, row.ratio_high?))).collect();
    if found.is_empty() {
        return Ok(None);
    }
    let least = found.iter().map(|(_, _, low, _)| *low).fold(1.0, f64::min);
    let most = found.iter().map(|(_, _, _, high)| *high).fold(1.0, f64::max);
    let range = least.min(0.8) / 1.1..most.max(1.25) * 1.1;
    let height = LINE * found.len() as u32 + 130;
    let draw = |svg: &mut String| -> Result<(), DrawingError> {
        let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        title(&root, "afx beside its peers: ratio, above 1 afx is better")?;
        let (left, right, top) = (300, WIDTH as i32 - 90, 50);
        let bottom = height as i32 - 70;
        let axis: LogCoord<f64> = range.clone().log_scale().into();
        let at = |value: f64| axis.map(&value, (left, right));
        for tick in ticks(&range) {
            let colour = if tick == 1.0 { INK } else { FAINT };
            line(&root, (at(tick), top), (at(tick), bottom), colour, 1)?;
            text(&root, &format!("{tick}"), (at(tick), bottom + 14), HPos::Center, 14)?;
        }
        text(&root, "ratio to the peer (logarithmic)", ((left + right) / 2, bottom + 40), HPos::Center, 14)?;
        for (number, (row, ratio, low, high)) in (0..).zip(&found) {
            let y = top + LINE as i32 * number + LINE as i32 / 2;
            let colour = if *ratio >= 1.0 { GOOD } else { BAD };
            text(&root, &row.name, (left - 12, y), HPos::Right, 14)?;
            line(&root, (at(*low), y), (at(*high), y), colour, 2)?;
            for end in [low, high] {
                line(&root, (at(*end), y - 5), (at(*end), y + 5), colour, 2)?;
            }
            root.draw(&Circle::new((at(*ratio), y), 5, colour.filled()))?;
            if let Some(wanted) = row.wanted.filter(|wanted| *wanted != 1.0 && range.contains(wanted)) {
                line(&root, (at(wanted), y - 10), (at(wanted), y + 10), INK, 1)?;
            }
            text(&root, &format!("{ratio:.2}"), (right + 12, y), HPos::Left, 14)?;
        }
        let legend =
            "dot: median of the rounds; whisker: 95 % interval; short upright line: aim, where it is not 1";
        text(&root, legend, (WIDTH as i32 / 2, height as i32 - 12), HPos::Center, 12)?;
        root.present()
    };
    finish(draw).map(Some)
}

/// What a packet costs the balancer over how many flows there are. None where that was not measured.
pub(crate) fn flows(rows: &[Row]) -> Result<Option<String>> {
    let found: Vec<(f64, &Row)> = rows
        .iter()
        .filter(|row| row.peer_name.is_none())
        .filter_map(|row| Some((row.flows? as f64, row)))
        .collect();
    let Some((first, last)) = found.first().zip(found.last()) else { return Ok(None) };
    let range = first.0 / 1.5..last.0 * 1.5;
    let most = found.iter().map(|(_, row)| row.ours.max(row.limit.unwrap_or(0.0))).fold(0.0, f64::max);
    let step = step(most);
    let height = 420;
    let draw = |svg: &mut String| -> Result<(), DrawingError> {
        let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        title(&root, "The balancer over a memory port, one core, IPIP, 64-byte packets of known flows")?;
        let (left, right, top, bottom) = (80, WIDTH as i32 - 40, 60, height as i32 - 80);
        let axis: LogCoord<f64> = range.clone().log_scale().into();
        let x = |flows: f64| axis.map(&flows, (left, right));
        let end = (most / step).ceil() * step;
        let y = |nanos: f64| bottom - (f64::from(bottom - top) * nanos / end) as i32;
        for number in 0..=(end / step) as i32 {
            let value = f64::from(number) * step;
            line(&root, (left, y(value)), (right, y(value)), FAINT, 1)?;
            text(&root, &format!("{value}"), (left - 10, y(value)), HPos::Right, 14)?;
        }
        text(&root, "ns/packet", (left - 10, top - 18), HPos::Center, 14)?;
        text(&root, "random flows (logarithmic)", ((left + right) / 2, bottom + 40), HPos::Center, 14)?;
        let points: Vec<_> = found.iter().map(|(flows, row)| (x(*flows), y(row.ours))).collect();
        root.draw(&PathElement::new(points.clone(), GOOD.stroke_width(2)))?;
        for (point, (flows, row)) in points.into_iter().zip(&found) {
            text(&root, &grouped(*flows as u64), (point.0, bottom + 16), HPos::Center, 14)?;
            root.draw(&Circle::new(point, 5, GOOD.filled()))?;
            text(&root, &format!("{:.1}", row.ours), (point.0, point.1 + 18), HPos::Center, 14)?;
            if let Some(limit) = row.limit {
                line(&root, (point.0 - 18, y(limit)), (point.0 + 18, y(limit)), INK, 2)?;
            }
        }
        let legend = "dot: median of the rounds; short level line: aim (at most)";
        text(&root, legend, (WIDTH as i32 / 2, height as i32 - 12), HPos::Center, 12)?;
        root.present()
    };
    finish(draw).map(Some)
}

type Area<'s> = DrawingArea<SVGBackend<'s>, plotters::coord::Shift>;
type DrawingError = DrawingAreaErrorKind<std::io::Error>;

fn finish(draw: impl Fn(&mut String) -> Result<(), DrawingError>) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg).map_err(|error| anyhow!("drawing a plot: {error}"))?;
    Ok(svg)
}

fn title(root: &Area<'_>, what: &str) -> Result<(), DrawingError> {
    text(root, what, (WIDTH as i32 / 2, 24), HPos::Center, 17)
}

fn text(root: &Area<'_>, what: &str, at: (i32, i32), anchor: HPos, size: i32) -> Result<(), DrawingError> {
    let style = (FONT, size).into_font().color(&INK).pos(Pos::new(anchor, VPos::Center));
    root.draw(&Text::new(what, at, style))
}

fn line(
    root: &Area<'_>,
    from: (i32, i32),
    to: (i32, i32),
    colour: RGBColor,
    width: u32,
) -> Result<(), DrawingError> {
    root.draw(&PathElement::new(vec![from, to], colour.stroke_width(width)))
}

/// Round numbers within a range, 1 among them where it is.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let all = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0];
    all.into_iter().filter(|tick| range.contains(tick)).collect()
}

/// From one level line to the next: at most eight of them.
fn step(most: f64) -> f64 {
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
        .into_iter()
        .find(|step| most / step <= 8.0)
        .unwrap_or(1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paired::{Better, Paired};
    use crate::row::{Peer, Target};

    fn row(name: &str, ratio: f64) -> Row {
        let peer = Peer { name: "other", version: None, settings: None };
        let result = Paired { ours: 1.0, peer: 1.0, ratio, low: ratio * 0.9, high: ratio * 1.1, rounds: 2 };
        Row::new(name, "ns", Better::Less, "").beside(peer).paired(&result).aimed(Target::Ratio(1.5))
    }

    #[test]
    fn every_ratio_has_its_dot_and_its_name() {
        let svg = ratios(&[row("one", 0.5), row("two", 4.8)]).unwrap().unwrap();
        assert_eq!(svg.matches("<circle").count(), 2);
        for name in ["one", "two", "0.50", "4.80"] {
            assert!(svg.contains(&format!("\n{name}\n")), "{name}: {svg}");
        }
        // The same each time, so that the repository's can be compared.
        assert_eq!(ratios(&[row("one", 0.5), row("two", 4.8)]).unwrap().unwrap(), svg);
        assert_eq!(ratios(&[Row::new("x", "ns", Better::Less, "").alone(&[1.0, 1.0])]).unwrap(), None);
    }

    #[test]
    fn costs_by_flows_are_dots_on_a_line() {
        let of = |flows: u64, cost: f64| {
            let mut row = Row::new("x", "ns", Better::Less, "").alone(&[cost, cost]);
            row.flows = Some(flows);
            row.aimed(Target::Limit(50.0))
        };
        let svg = flows(&[of(1000, 20.0), of(1_000_000, 80.0)]).unwrap().unwrap();
        assert_eq!((svg.matches("<circle").count(), svg.matches("\n1,000,000\n").count()), (2, 1));
        assert_eq!(flows(&[row("one", 1.0)]).unwrap(), None);
    }

    #[test]
    fn lines_are_at_round_numbers() {
        assert_eq!(ticks(&(0.8..2.2)), [1.0, 1.5, 2.0]);
        assert_eq!([step(8.0), step(8.1), step(120.0), step(5000.0)], [1.0, 2.0, 20.0, 1000.0]);
    }
}
