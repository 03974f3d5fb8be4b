//! What a measurement has found, and how it is told.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::paired::Paired;

/// One line of the summary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Median over the rounds, in `unit`.
    pub(crate) ours: f64,
    pub(crate) our_settings: String,
    /// As `ours`; null where there is no peer, or it is not installed.
    pub(crate) peer: Option<f64>,
    pub(crate) peer_name: Option<String>,
    pub(crate) peer_version: Option<String>,
    pub(crate) peer_settings: Option<String>,
    pub(crate) unit: String,
    /// Median of the rounds' ratios; above 1 afx is better, whatever the unit.
    pub(crate) ratio: Option<f64>,
    /// The 95 % interval of the mean log ratio.
    pub(crate) ratio_low: Option<f64>,
    pub(crate) ratio_high: Option<f64>,
    pub(crate) rounds: usize,
}

impl Row {
    /// Fills in what paired rounds have found.
    pub(crate) fn fill(&mut self, result: &Paired) {
        self.ours = result.ours;
        self.peer = Some(result.peer);
        self.ratio = Some(result.ratio);
        self.ratio_low = Some(result.low);
        self.ratio_high = Some(result.high);
    }
}

/// The rows as a Markdown table with aligned columns.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = ["measurement", "afx", "peer", "unit", "ratio", "95 % interval", "peer is"].map(String::from);
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
    let lines: Vec<[String; 7]> = std::iter::once(head)
        .chain(rows.iter().map(|row| {
            let interval = match (row.ratio_low, row.ratio_high) {
                (Some(low), Some(high)) => format!("{low:.2} to {high:.2}"),
                _ => "–".to_owned(),
            };
            let peer = match (&row.peer_name, &row.peer_version) {
                (Some(name), Some(version)) => format!("{name} {version}"),
                (Some(name), None) => format!("{name} (not installed)"),
                _ => "–".to_owned(),
            };
            let (ours, theirs) = (number(Some(row.ours)), number(row.peer));
            [row.name.clone(), ours, theirs, row.unit.clone(), number(row.ratio), interval, peer]
        }))
        .collect();
    let widths: Vec<usize> = (0..7)
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
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
