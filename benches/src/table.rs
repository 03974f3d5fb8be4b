//! Rows as Markdown tables.

use std::fmt::Write;

use crate::row::Row;

/// The rows, and what is aimed at.
pub(crate) fn results(rows: &[Row]) -> String {
    let mut lines = vec![
        ["measurement", "afx", "peer", "unit", "ratio", "95 % interval", "aim", "reached", "peer is"]
            .map(String::from),
    ];
    for row in rows {
        let interval = match (row.ratio_low, row.ratio_high) {
            (Some(low), Some(high)) => format!("{low:.2} to {high:.2}"),
            _ => NONE.to_owned(),
        };
        let aim = match (row.wanted, row.wanted_low, row.limit) {
            (Some(wanted), Some(low), _) => format!("ratio ≥ {wanted:.1}, low end ≥ {low:.2}"),
            (Some(wanted), None, _) => format!("ratio ≥ {wanted:.1}"),
            (None, _, Some(limit)) if row.higher_is_better => format!("≥ {limit}"),
            (None, _, Some(limit)) => format!("≤ {limit}"),
            _ => NONE.to_owned(),
        };
        let reached = row.reached().map_or(NONE, |reached| if reached { "yes" } else { "no" });
        let peer = match (&row.peer_name, &row.peer_version) {
            (Some(name), Some(version)) => format!("{name} {version}"),
            (Some(name), None) => format!("{name} (not installed)"),
            _ => NONE.to_owned(),
        };
        let peer =
            [figure(Some(row.ours)), figure(row.peer), row.unit.clone(), figure(row.ratio), interval, aim]
                .into_iter()
                .chain([reached.to_owned(), peer]);
        let mut line = [const { String::new() }; 9];
        line.iter_mut().zip(std::iter::once(row.name.clone()).chain(peer)).for_each(|(to, cell)| *to = cell);
        lines.push(line);
        if let Some(cpu) = row.our_cpu {
            let ratio = row.peer_cpu.map(|peer| peer / cpu);
            let mut line = [const { NONE }; 9].map(String::from);
            line[0] = format!("{}: CPU", row.name);
            (line[1], line[2], line[4]) = (figure(Some(cpu)), figure(row.peer_cpu), figure(ratio));
            line[3] = "s/million packets".to_owned();
            lines.push(line);
        }
    }
    aligned(&lines)
}

/// What a packet costs the balancer, by how many flows there are.
pub(crate) fn by_flows(rows: &[Row]) -> String {
    let mut lines = vec![["random flows", "ns/packet", "aim"].map(String::from)];
    lines.extend(rows.iter().filter(|row| row.peer_name.is_none()).filter_map(|row| {
        let aim = row.limit.map_or(NONE.to_owned(), |limit| format!("≤ {limit}"));
        Some([grouped(row.flows?), format!("{:.1}", row.ours), aim])
    }));
    aligned(&lines)
}

/// What both sides were set to.
pub(crate) fn settings(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let _ =
            writeln!(text, "- **{}**, {} rounds. afx: {}.", row.name, row.rounds, code(&row.our_settings));
        if let (Some(name), Some(settings)) = (&row.peer_name, &row.peer_settings) {
            let _ = writeln!(text, "  {name}: {}.", code(settings));
        }
    }
    text
}

const NONE: &str = "–";

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn figure(value: Option<f64>) -> String {
    value.map_or(NONE.to_owned(), |value| format!("{value:.2}"))
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Lines under a head, in aligned columns.
fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell}{} ", " ".repeat(width - cell.chars().count()));
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paired::{Better, Paired};
    use crate::row::{Peer, Target};

    fn rows() -> Vec<Row> {
        let peer = || Peer { name: "other", version: Some("1.2".into()), settings: Some("--fast".into()) };
        let result = Paired { ours: 9.75, peer: 10.72, ratio: 1.1, low: 1.03, high: 1.17, rounds: 5 };
        let mut with_cpu =
            Row::new("nat", "Mpps", Better::More, "x").beside(peer()).paired(&result).aimed(Target::Open);
        (with_cpu.our_cpu, with_cpu.peer_cpu) = (Some(1.0), Some(2.5));
        let mut flows = Row::new("balance", "ns/packet", Better::Less, "z").alone(&[20.0, 30.0]);
        flows.flows = Some(1_000_000);
        vec![
            Row::new("mirror", "ns", Better::Less, "y")
                .beside(peer())
                .paired(&result)
                .aimed(Target::Ratio(1.0)),
            with_cpu,
            Row::new("idle", "%", Better::Less, "z").alone(&[3.0, 3.0]).aimed(Target::Limit(2.0)),
            Row::new("absent", "ns", Better::Less, "z")
                .beside(Peer { name: "gone", version: None, settings: None })
                .alone(&[1.0, 1.0])
                .aimed(Target::RatioWithin { median: 1.0, low: 0.95 }),
            flows.aimed(Target::Limit(50.0)),
        ]
    }

    #[test]
    fn every_row_is_a_line_and_columns_are_aligned() {
        let text = results(&rows());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2 + 5 + 1);
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
        let cells = |line: usize| -> Vec<&str> { lines[line].split('|').map(str::trim).collect() };
        assert_eq!(
            cells(2)[1..10],
            ["mirror", "9.75", "10.72", "ns", "1.10", "1.03 to 1.17", "ratio ≥ 1.0", "yes", "other 1.2"]
        );
        assert_eq!(cells(4)[1..6], ["nat: CPU", "1.00", "2.50", "s/million packets", "2.50"]);
        assert_eq!(cells(5)[7..9], ["≤ 2", "no"]);
        assert_eq!(cells(6)[2..4], ["1.00", "–"]);
        assert_eq!(cells(6)[7..10], ["ratio ≥ 1.0, low end ≥ 0.95", "–", "gone (not installed)"]);
    }

    #[test]
    fn flows_have_a_table_of_their_own_and_settings_a_list() {
        let text = by_flows(&rows());
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("| 1,000,000    | 25.0      | ≤ 50 |"), "{text}");
        let text = settings(&rows());
        assert!(text.contains("- **mirror**, 5 rounds. afx: `y`.\n  other: `--fast`.\n"), "{text}");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            [0, 999, 1000, 65_536, 8_000_000].map(grouped),
            ["0", "999", "1,000", "65,536", "8,000,000"]
        );
    }
}
