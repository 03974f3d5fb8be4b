//! The report as tables for people, and as a table for spreadsheets.

use super::report::{Counted, LatencyNs, Report, Size};
use super::search::Limit;
use super::trial::RATE_TOLERANCE;
use crate::display::{Style, micros, number, percent, table};

/// The report as it is shown on a terminal.
pub(super) fn text(report: &Report, style: Style) -> String {
    let Report { send, receive, send_mode, receive_mode, .. } = report;
    let mut lines = vec![style.bold(&format!(
        "RFC 2544: {send} ({send_mode} mode) to {receive} ({receive_mode} mode), {} to {}",
        report.source, report.destination
    ))];
    lines.push(format!(
        "trials of {} s, {} for each rate; at most {} % lost; resolution {} %; frame sizes count the 4 bytes of the FCS",
        report.trial_seconds, report.repeats, report.loss_allowed_percent, report.resolution_percent
    ));
    if !report.complete {
        lines.push(style.red("INCOMPLETE: it was ended before all was measured"));
    }
    for (title, rows) in [
        ("Throughput (RFC 2544, 26.1)", throughput(report, style)),
        ("Latency in µs, at loads in per cent of the throughput (26.2)", latency(report, style)),
        ("Frame loss rate, at loads in per cent of the highest rate (26.3)", loss(report, style)),
        ("Back-to-back frames: the longest burst without loss (26.4, RFC 9004)", bursts(report, style)),
    ] {
        if let Some(rows) = rows {
            lines.push(String::new());
            lines.push(style.bold(title));
            lines.extend(rows);
        }
    }
    if report.sizes.iter().any(has_slow) {
        lines.push(String::new());
        lines.push(format!("{SLOW} slower than wanted: the sender was held up"));
    }
    let is_sender = |size: &Size| size.maximum_set_by == Limit::Sender;
    if report.sizes.iter().any(is_sender) {
        lines.push(String::new());
        lines.push(
            "At some sizes the sender does not reach the line rate: there, the highest rate is what it reaches."
                .to_owned(),
        );
    }
    lines.join("\n") + "\n"
}

/// Stands before a rate at which less was sent than wanted.
const SLOW: char = '*';

fn is_slow(wanted: f64, sent: f64) -> bool {
    sent < wanted * (1.0 - RATE_TOLERANCE)
}

fn has_slow(size: &Size) -> bool {
    size.latency.iter().any(|row| is_slow(row.wanted_pps, row.sent_pps))
        || size.loss.iter().any(|row| is_slow(row.wanted_pps, row.sent_pps))
        || size.back_to_back.iter().any(|row| is_slow(row.wanted_pps, row.sent_pps))
}

/// The rate that was sent, marked where it is not the one that was wanted.
fn sent(wanted: f64, sent: f64) -> String {
    if is_slow(wanted, sent) { format!("{SLOW} {}", mpps(sent)) } else { mpps(sent) }
}

fn mpps(pps: f64) -> String {
    format!("{:.4}", pps / 1e6)
}

fn throughput(report: &Report, style: Style) -> Option<Vec<String>> {
    let rows: Vec<_> = report
        .sizes
        .iter()
        .filter_map(|size| {
            let found = size.throughput.as_ref()?;
            let limit = match (found.pps, found.limit) {
                (None, _) => "nothing comes through",
                (_, None) => "device",
                (_, Some(Limit::Line)) => "line",
                (_, Some(Limit::Sender)) => "sender",
                (_, Some(Limit::Asked)) => "--max-rate",
            };
            Some(vec![
                size.frame.clone(),
                mpps(found.pps.unwrap_or(0.0)),
                format!("{:.4}", found.bits_per_second.unwrap_or(0.0) / 1e9),
                found.line_percent.map_or_else(|| "-".into(), |percent| format!("{percent:.2} %")),
                size.line_pps.map_or_else(|| "-".into(), mpps),
                found.failed_pps.map_or_else(|| "-".into(), mpps),
                number(found.trials.len() as u64),
                limit.to_owned(),
            ])
        })
        .collect();
    let headings =
        ["frame", "Mpps", "Gbit/s", "of line", "line Mpps", "fails at Mpps", "trials", "limited by"];
    (!rows.is_empty()).then(|| table(style, &headings, rows))
}

fn latency(report: &Report, style: Style) -> Option<Vec<String>> {
    let rows: Vec<_> = report
        .sizes
        .iter()
        .flat_map(|size| size.latency.iter().map(move |row| (size, row)))
        .map(|(size, row)| {
            let mut cells = vec![
                size.frame.clone(),
                format!("{} %", row.load_percent),
                sent(row.wanted_pps, row.sent_pps),
            ];
            match row.latency_ns {
                Some(LatencyNs { min, mean, p50, p90, p99, p99_9, max }) => {
                    let times =
                        [min as f64, mean, p50 as f64, p90 as f64, p99 as f64, p99_9 as f64, max as f64];
                    cells.extend(times.map(micros));
                }
                None => cells.extend(std::iter::repeat_n("-".to_owned(), 7)),
            }
            cells.push(percent(row.counted.lost, row.counted.offered));
            cells
        })
        .collect();
    let headings = ["frame", "load", "Mpps", "min", "mean", "p50", "p90", "p99", "p99.9", "max", "lost"];
    (!rows.is_empty()).then(|| table(style, &headings, rows))
}

fn loss(report: &Report, style: Style) -> Option<Vec<String>> {
    let rows: Vec<_> = report
        .sizes
        .iter()
        .flat_map(|size| size.loss.iter().map(move |row| (size, row)))
        .map(|(size, row)| {
            let Counted { offered, received, lost, .. } = row.counted;
            vec![
                size.frame.clone(),
                format!("{} %", row.load_percent),
                mpps(row.wanted_pps),
                sent(row.wanted_pps, row.sent_pps),
                number(offered),
                number(received),
                number(lost),
                percent(lost, offered),
            ]
        })
        .collect();
    let headings = ["frame", "load", "wanted Mpps", "sent Mpps", "offered", "received", "lost", "loss"];
    (!rows.is_empty()).then(|| table(style, &headings, rows))
}

fn bursts(report: &Report, style: Style) -> Option<Vec<String>> {
    let rows: Vec<_> = report
        .sizes
        .iter()
        .filter_map(|size| {
            let row = size.back_to_back.as_ref()?;
            let more = if row.at_least { "≥ " } else { "" };
            Some(vec![
                size.frame.clone(),
                mpps(row.wanted_pps),
                sent(row.wanted_pps, row.sent_pps),
                format!("{more}{}", number(row.frames_mean.round() as u64)),
                number(row.frames_min),
                number(row.frames_max),
                row.buffer_ns.map_or_else(|| "-".into(), micros),
            ])
        })
        .collect();
    let headings = ["frame", "wanted Mpps", "sent Mpps", "frames", "least", "most", "buffer µs"];
    (!rows.is_empty()).then(|| table(style, &headings, rows))
}

/// Columns of the CSV file.
const COLUMNS: [&str; 23] = [
    "test",
    "frame",
    "mean_bytes",
    "load_percent",
    "wanted_pps",
    "sent_pps",
    "bits_per_second",
    "offered",
    "received",
    "lost",
    "loss_percent",
    "reordered",
    "duplicates",
    "latency_min_ns",
    "latency_mean_ns",
    "latency_p50_ns",
    "latency_p90_ns",
    "latency_p99_ns",
    "latency_p99_9_ns",
    "latency_max_ns",
    "burst_frames",
    "buffer_ns",
    "limit",
];

/// The report as comma-separated values: a line for each result, empty where a column says nothing of it. Mixes of sizes
/// stand in quotes: their names may have commas.
pub(super) fn csv(report: &Report) -> String {
    let mut text = COLUMNS.join(",") + "\n";
    for size in &report.sizes {
        for line in lines_of(size) {
            text += &line;
            text.push('\n');
        }
    }
    text
}

fn lines_of(size: &Size) -> Vec<String> {
    let line = |test: &str, cells: &[(&str, String)]| {
        let frame = if size.frame.contains(',') { format!("\"{}\"", size.frame) } else { size.frame.clone() };
        let common =
            [("test", test.to_owned()), ("frame", frame), ("mean_bytes", size.mean_bytes.to_string())];
        let cell = |column: &&str| {
            let found = common.iter().chain(cells).find(|(name, _)| name == column);
            found.map_or("", |(_, value)| value.as_str()).to_owned()
        };
        COLUMNS.iter().map(cell).collect::<Vec<_>>().join(",")
    };
    let bits = |pps: f64| (pps * 8.0 * size.mean_bytes).to_string();
    let mut lines = Vec::new();
    if let Some(found) = &size.throughput {
        let rate = found.pps.unwrap_or(0.0);
        let mut cells = counted(&found.counted);
        cells.extend([("sent_pps", rate.to_string()), ("bits_per_second", bits(rate))]);
        cells.push(("limit", found.limit.map_or("device", Limit::name).to_owned()));
        lines.push(line("throughput", &cells));
    }
    for row in &size.latency {
        let mut cells = counted(&row.counted);
        cells.extend(load(row.load_percent, row.wanted_pps, row.sent_pps, bits(row.sent_pps)));
        if let Some(times) = row.latency_ns {
            cells.extend([
                ("latency_min_ns", times.min.to_string()),
                ("latency_mean_ns", times.mean.to_string()),
                ("latency_p50_ns", times.p50.to_string()),
                ("latency_p90_ns", times.p90.to_string()),
                ("latency_p99_ns", times.p99.to_string()),
                ("latency_p99_9_ns", times.p99_9.to_string()),
                ("latency_max_ns", times.max.to_string()),
            ]);
        }
        lines.push(line("latency", &cells));
    }
    for row in &size.loss {
        let mut cells = counted(&row.counted);
        cells.extend(load(row.load_percent, row.wanted_pps, row.sent_pps, bits(row.sent_pps)));
        lines.push(line("loss", &cells));
    }
    if let Some(row) = &size.back_to_back {
        let cells = [
            ("wanted_pps", row.wanted_pps.to_string()),
            ("sent_pps", row.sent_pps.to_string()),
            ("burst_frames", row.frames_mean.to_string()),
            ("buffer_ns", row.buffer_ns.map_or_else(String::new, |ns| ns.to_string())),
            ("limit", if row.at_least { "asked" } else { "device" }.to_owned()),
        ];
        lines.push(line("back-to-back", &cells));
    }
    lines
}

fn counted(counted: &Counted) -> Vec<(&'static str, String)> {
    vec![
        ("offered", counted.offered.to_string()),
        ("received", counted.received.to_string()),
        ("lost", counted.lost.to_string()),
        ("loss_percent", counted.loss_percent.to_string()),
        ("reordered", counted.reordered.to_string()),
        ("duplicates", counted.duplicates.to_string()),
    ]
}

fn load(percent: f64, wanted: f64, sent: f64, bits: String) -> [(&'static str, String); 4] {
    [
        ("load_percent", percent.to_string()),
        ("wanted_pps", wanted.to_string()),
        ("sent_pps", sent.to_string()),
        ("bits_per_second", bits),
    ]
}

#[cfg(test)]
#[path = "text_tests.rs"]
pub(super) mod tests;
