//! What the user sees: progress while it sends, and what was sent.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::display;
use crate::units::FCS;

/// What became of all packets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) mode: &'static str,
    /// Packets that were made.
    pub(super) given: u64,
    /// Packets that the interface took.
    pub(super) sent: u64,
    /// Their bytes, frame check sequences counted.
    pub(super) bytes: u64,
    /// Packets that it did not take, by reason.
    pub(super) not_sent: Vec<(String, u64)>,
}

impl Outcome {
    /// Of `given` packets of so many `bytes` together, frame check sequences not counted, `sent` were taken. Where some
    /// were not, and sizes differ, the bytes are those of the mean size.
    pub(super) fn new(
        mode: &'static str,
        given: u64,
        bytes: u64,
        sent: u64,
        not_sent: Vec<(String, u64)>,
    ) -> Self {
        let share = u128::from(bytes) * u128::from(sent) / u128::from(given.max(1));
        let bytes = share as u64 + sent * FCS as u64;
        let not_sent = not_sent.into_iter().filter(|(_, count)| *count > 0).collect();
        Self { mode, given, sent, bytes, not_sent }
    }
}

/// What is said at the end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    pub(super) interface: String,
    pub(super) seconds: f64,
    /// By a signal, before all was sent.
    pub(super) interrupted: bool,
    pub(super) wanted: Option<u64>,
    /// Packets per second.
    pub(super) rate_wanted: Option<f64>,
    pub(super) outcome: Outcome,
}

impl Report {
    /// Whether all packets were sent that were wanted.
    pub(super) fn is_complete(&self) -> bool {
        self.outcome.not_sent.is_empty() && self.wanted.is_none_or(|wanted| self.outcome.sent >= wanted)
    }

    pub(super) fn print(&self, json: bool) -> std::io::Result<()> {
        let text = if json { format!("{}\n", self.json()) } else { self.table() };
        display::print(&text)
    }

    fn packets_per_second(&self) -> f64 {
        self.outcome.sent as f64 / self.seconds.max(1e-9)
    }

    fn bits_per_second(&self) -> f64 {
        self.outcome.bytes as f64 * 8.0 / self.seconds.max(1e-9)
    }

    fn json(&self) -> Value {
        let outcome = &self.outcome;
        let not_sent: Map<String, Value> =
            outcome.not_sent.iter().map(|(reason, count)| (reason.clone(), json!(count))).collect();
        json!({
            "interface": self.interface,
            "mode": outcome.mode,
            "sent_packets": outcome.sent,
            "sent_bytes": outcome.bytes,
            "made_packets": outcome.given,
            "wanted_packets": self.wanted,
            "not_sent": not_sent,
            "seconds": self.seconds,
            "packets_per_second": self.packets_per_second(),
            "bits_per_second": self.bits_per_second(),
            "wanted_packets_per_second": self.rate_wanted,
            "interrupted": self.interrupted,
            "complete": self.is_complete(),
        })
    }

    fn table(&self) -> String {
        let outcome = &self.outcome;
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let rate = match self.rate_wanted {
            Some(wanted) => format!("{} of {} wanted", pps(self.packets_per_second()), pps(wanted)),
            None => pps(self.packets_per_second()),
        };
        let sent = match self.wanted {
            Some(wanted) => format!("{} packets of {} wanted", grouped(outcome.sent), grouped(wanted)),
            None => format!("{} packets", grouped(outcome.sent)),
        };
        let mut rows = vec![
            ("interface".to_owned(), format!("{}, mode {}", self.interface, outcome.mode)),
            ("sent".to_owned(), sent),
            ("bytes".to_owned(), format!("{} (frame check sequences counted)", grouped(outcome.bytes))),
            (
                "time".to_owned(),
                format!("{:.3} s{}", self.seconds, if self.interrupted { ", interrupted" } else { "" }),
            ),
            ("rate".to_owned(), format!("{rate}, {}", bits(self.bits_per_second()))),
        ];
        if outcome.not_sent.is_empty() {
            rows.push(("not sent".to_owned(), "0 packets".to_owned()));
        }
        for (reason, count) in &outcome.not_sent {
            rows.push(("not sent".to_owned(), format!("{} packets: {}", grouped(*count), sentence(reason))));
        }
        for (name, value) in rows {
            table.add_row([name, value]);
        }
        if let Some(column) = table.column_mut(0) {
            column.set_padding((0, 1));
            column.set_cell_alignment(CellAlignment::Left);
        }
        table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// A reason in words.
fn sentence(reason: &str) -> String {
    let words = match reason {
        "dropped_by_interface" => "dropped by the interface instead of being sent (tx_dropped)",
        "not_completed" => "given to the kernel, which has not said that they left",
        "peer_full" => "the ring of the veth's peer was full",
        "refused_by_interface" => "the interface took no XDP frames",
        "not_made" => "could not be made",
        other => other,
    };
    words.to_owned()
}

fn pps(rate: f64) -> String {
    match rate {
        1e6.. => format!("{:.3} Mpps", rate / 1e6),
        1e3.. => format!("{:.3} kpps", rate / 1e3),
        _ => format!("{rate:.1} pps"),
    }
}

fn bits(rate: f64) -> String {
    match rate {
        1e9.. => format!("{:.3} Gbit/s", rate / 1e9),
        1e6.. => format!("{:.3} Mbit/s", rate / 1e6),
        _ => format!("{:.3} kbit/s", rate / 1e3),
    }
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// The line that tells how far it is: on a terminal, on the standard error.
pub(super) struct Show {
    terminal: bool,
    next: Instant,
    last: (Instant, u64, u64),
    width: usize,
}

const SHOW_EVERY: Duration = Duration::from_secs(1);

impl Show {
    pub(super) fn new(start: Instant) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, next: start + SHOW_EVERY, last: (start, 0, 0), width: 0 }
    }

    /// Shows what was given to the interface so far, once a second.
    pub(super) fn progress(&mut self, (packets, bytes): (u64, u64)) {
        let now = Instant::now();
        if !self.terminal || now < self.next {
            return;
        }
        let seconds = (now - self.last.0).as_secs_f64();
        let (more, bytes_more) = (packets - self.last.1, bytes - self.last.2);
        let frame_bits = 8.0 * (bytes_more + more * FCS as u64) as f64;
        let line = format!(
            "{}, {}, {} packets so far",
            pps(more as f64 / seconds),
            bits(frame_bits / seconds),
            grouped(packets)
        );
        eprint!("\r{line:<width$}", width = self.width);
        (self.width, self.last, self.next) = (line.len(), (now, packets, bytes), now + SHOW_EVERY);
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if self.width > 0 {
            eprint!("\r{:width$}\r", "", width = self.width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            interface: "eth0".into(),
            seconds: 2.0,
            interrupted: false,
            wanted: Some(2_000_000),
            rate_wanted: Some(1e6),
            outcome: Outcome::new("live", 2_000_000, 120_000_000, 2_000_000, vec![("peer_full".into(), 0)]),
        }
    }

    #[test]
    fn what_was_sent_is_said_in_words_and_in_json() {
        assert_eq!(
            report().table(),
            "interface  eth0, mode live\n\
             sent       2,000,000 packets of 2,000,000 wanted\n\
             bytes      128,000,000 (frame check sequences counted)\n\
             time       2.000 s\n\
             rate       1.000 Mpps of 1.000 Mpps wanted, 512.000 Mbit/s\n\
             not sent   0 packets\n"
        );
        assert!(report().is_complete());
        assert_eq!(report().json()["sent_bytes"], 128_000_000);
        assert_eq!(report().json()["not_sent"], json!({}));
    }

    #[test]
    fn what_was_not_sent_has_its_reason() {
        let outcome = Outcome::new("live", 10, 600, 7, vec![("peer_full".into(), 3)]);
        let report = Report { outcome, wanted: None, ..report() };
        assert!(!report.is_complete());
        assert_eq!(report.outcome.bytes, 7 * 64);
        assert!(
            report.table().contains("not sent   3 packets: the ring of the veth's peer was full\n"),
            "{}",
            report.table()
        );
        assert_eq!(report.json()["not_sent"], json!({"peer_full": 3}));
    }

    #[test]
    fn too_few_are_not_all() {
        let outcome = Outcome::new("copy", 10, 600, 10, Vec::new());
        assert!(!Report { outcome: outcome.clone(), wanted: Some(11), ..report() }.is_complete());
        assert!(Report { outcome, wanted: None, ..report() }.is_complete());
    }
}
