use super::super::campaign::{Plan, Test, View, run};
use super::super::report::Report;
use super::super::search::Limit;
use super::super::simulated::{Simulated, frames, settings};
use super::super::trial::{Frames, Stop};
use super::*;

/// A report of all tests on a simulated device.
pub(in crate::rfc2544) fn report(device: &mut Simulated, sizes: &[u16]) -> (Report, Result<(), Stop>) {
    let line = 10_000_000_000;
    let mut frames: Vec<Frames> = sizes.iter().map(|size| frames(*size)).collect();
    frames.extend(Frames::of(&crate::units::Sizes::imix()));
    let plan = Plan {
        highest: frames.iter().map(|frames| (frames.line_rate(line), Limit::Line)).collect(),
        frames,
        tests: vec![Test::Throughput, Test::Latency, Test::Loss, Test::BackToBack],
        settings: settings(),
        line: Some(line),
        between: std::time::Duration::ZERO,
    };
    let mut report = Report {
        send: "eth0".into(),
        receive: "eth1".into(),
        send_mode: "copy".into(),
        receive_mode: "copy".into(),
        trial_seconds: 10.0,
        resolution_percent: 1.0,
        repeats: 1,
        line_bits_per_second: Some(line),
        ..Report::default()
    };
    let mut view = View::new(&plan, true);
    let result = run(&plan, device, &mut view, &mut report);
    report.totals = view.totals;
    (report, result)
}

#[test]
fn every_size_is_in_every_table() {
    let mut device = Simulated { buffer: 500.0, ..Simulated::new(1e6) };
    let (report, result) = report(&mut device, &[64, 512, 1518]);
    result.unwrap();
    assert!(report.complete);
    assert_eq!(report.totals.trials, u64::from(device.trials));
    let text = text(&report, Style::PLAIN);
    for title in ["Throughput", "Latency", "Frame loss rate", "Back-to-back"] {
        let table = text.split("\n\n").find(|part| part.starts_with(title)).unwrap();
        for frame in ["64 ", "512 ", "1518 ", "imix "] {
            assert!(table.lines().any(|line| line.starts_with(frame)), "{frame} in {table}");
        }
    }
    // 1518 bytes go at the line's rate, 64 do not.
    let row = |frame: &str| text.lines().find(|line| line.starts_with(frame)).unwrap();
    assert!(row("1518 ").ends_with("line") && row("1518 ").contains("100.00 %"), "{text}");
    assert!(row("64 ").ends_with("device"), "{text}");
    assert!(!text.contains("INCOMPLETE"));
}

#[test]
fn what_was_measured_before_an_interruption_is_reported_and_marked() {
    let mut device = Simulated { interrupted_after: 20, ..Simulated::new(1e6) };
    let (report, result) = report(&mut device, &[64, 128]);
    assert!(matches!(result, Err(Stop::Interrupted)));
    assert!(!report.complete && report.sizes[0].throughput.is_some());
    let text = text(&report, Style::PLAIN);
    assert!(text.contains("INCOMPLETE") && text.contains("Throughput"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert_eq!(json["complete"], false);
}

#[test]
fn a_device_that_forwards_nothing_is_said_to() {
    let (report, result) = report(&mut Simulated::new(0.0), &[64]);
    result.unwrap();
    let text = text(&report, Style::PLAIN);
    assert!(
        text.lines().any(|line| line.starts_with("64 ") && line.ends_with("nothing comes through")),
        "{text}"
    );
    assert!(report.sizes[0].latency.is_empty());
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert!(json["sizes"][0]["throughput"]["pps"].is_null());
}

#[test]
fn csv_has_a_line_for_each_result_and_the_json_says_the_same() {
    let (report, _) = report(&mut Simulated::new(1e6), &[64, 1518]);
    let csv = csv(&report);
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == COLUMNS.len()), "{csv}");
    let results: usize = report.sizes.iter().map(|size| 2 + size.latency.len() + size.loss.len()).sum();
    assert_eq!(rows.len(), 1 + results);
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let column = |name: &str| COLUMNS.iter().position(|column| *column == name).unwrap();
    for size in json["sizes"].as_array().unwrap() {
        let of = |row: &&Vec<&str>| row[0] == "throughput" && row[1] == size["frame"];
        let row = rows.iter().find(of).unwrap();
        // The last digit of a number may change on its way through the parser.
        let [said, parsed] =
            [row[column("sent_pps")].parse::<f64>().unwrap(), size["throughput"]["pps"].as_f64().unwrap()];
        assert!((said / parsed - 1.0).abs() < 1e-12, "{said} and {parsed}");
        assert_eq!(
            row[column("offered")].parse::<u64>().unwrap(),
            size["throughput"]["offered"].as_u64().unwrap()
        );
    }
}

#[test]
fn names_with_commas_are_quoted() {
    let sizes: crate::units::Sizes = "list 64:1,1518:1".parse().unwrap();
    let (mut report, _) = report(&mut Simulated::new(1e6), &[64]);
    report.sizes[0].frame = sizes.to_string();
    assert!(csv(&report).lines().nth(1).unwrap().starts_with("throughput,\"list 64:1,1518:1\",64,"));
}
