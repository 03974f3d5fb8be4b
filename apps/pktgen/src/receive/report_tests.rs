use std::collections::BTreeSet;

use clap::Parser as _;

use super::super::collector::{Collector, Limits};
use super::*;
use crate::signature::Signature;

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
}

fn options(arguments: &str) -> Options {
    CommandLine::parse_from(["receive", "eth1"].into_iter().chain(arguments.split_whitespace())).options
}

/// Of packets of flow 0 with these sequences, one each millisecond, that arrive 5 µs after they were sent.
fn report(options: &Options, sequences: impl IntoIterator<Item = u32>) -> Report {
    report_every(1_000_000, options, sequences)
}

fn report_every(nanos: u64, options: &Options, sequences: impl IntoIterator<Item = u32>) -> Report {
    let mut collector = Collector::new(Limits { flows: options.flows_max as usize, window: options.window });
    for (index, sequence) in (1..).zip(sequences) {
        let time = index * nanos;
        collector.record(Signature { flow: 0, sequence, time }, time + 5000, 60);
    }
    let summary = Summary::of([collector.tally()]);
    let context = Context { interface: "eth1", mode: "copy", options, redirect: RedirectCounters::default() };
    Report::new(&context, &summary, &Stats::default())
}

#[test]
fn the_loss_that_is_allowed_is_a_percentage() {
    assert_eq!("0.01%".parse(), Ok(MaxLoss(0.0001)));
    assert_eq!("100 %".parse(), Ok(MaxLoss(1.0)));
    for wrong in ["0.01", "-1%", "101%", "%", "NaN%", "some"] {
        let error = wrong.parse::<MaxLoss>().unwrap_err();
        assert!(error.contains("such as 0.01%"), "{wrong}: {error}");
    }
}

#[test]
fn a_loss_fails_where_that_is_asked_for() {
    let expecting = options("--expect 200");
    // 99 lost between, 1 at the end.
    let lossy = report(&expecting, (0..199).step_by(2));
    assert_eq!((lossy.lost, lossy.lost_at_end, lossy.loss_ratio), (100, 1, Some(0.5)));
    let whole = report(&expecting, 0..200);
    let nothing = report(&options(""), []);
    let at_most = |percent: f64| Loss { fail: false, max: Some(MaxLoss(percent / 100.0)) };
    let none = Loss { fail: true, max: None };

    let asked = [Loss::default(), at_most(50.0), at_most(49.9), none];
    let said = |report: &Report| asked.map(|loss| report.failure(loss));
    let lost = "100 of 200 packets lost (50.00 %)";
    assert_eq!(
        said(&lossy),
        [
            None,
            None,
            Some(format!("{lost}, and at most 49.9 % was asked for")),
            Some(format!("{lost}, and no loss was asked for"))
        ]
    );
    assert_eq!(said(&whole), [None, None, None, None]);
    let unknown = Some("no packet of the generator came on eth1: loss cannot be told".to_owned());
    assert_eq!(said(&nothing), [None, unknown.clone(), unknown.clone(), unknown]);
    // Where it is known that some were sent, it can.
    let all = report(&expecting, []);
    assert_eq!(all.failure(none).unwrap(), "200 of 200 packets lost (100 %), and no loss was asked for");
}

#[test]
fn rates_are_those_between_the_first_and_the_last_packet() {
    let many = report(&options(""), 0..1001);
    assert_eq!((many.seconds, many.packets_per_second, many.bits_per_second), (1.0, 1000.0, 512_000.0));
    assert_eq!((many.packets, many.bytes), (1001, 1001 * 64));
    let one = report(&options(""), [0]);
    assert_eq!((one.seconds, one.packets_per_second), (0.0, 0.0));
}

#[test]
fn the_names_of_the_json_object_stay() {
    let json: serde_json::Value =
        serde_json::from_str(&report(&options("--per-flow 1"), [0, 2]).json().unwrap()).unwrap();
    let names = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let expected = |names: &str| names.split_whitespace().map(str::to_owned).collect();
    assert_eq!(
        names(&json),
        expected(
            "interface mode latency seconds packets bytes packets_per_second bits_per_second expected distinct \
             lost lost_at_end loss_ratio reordered reordering_extent duplicates too_late window flows \
             flows_joined flows_split restarts packets_beyond_flows_max flows_max latency_ns \
             latency_out_of_range unsigned malformed malformed_by_reason otherwise_dropped kernel_dropped \
             redirect workers per_flow ledger_balanced"
        )
    );
    let times = expected("count min p50 p90 p99 p99_9 max mean delay_variation");
    assert_eq!(names(&json["latency_ns"]), times);
    assert_eq!(
        names(&json["per_flow"][0]),
        expected("flow received lost reordered reordering_extent duplicates too_late")
    );
    assert_eq!((&json["latency"], &json["expected"]), (&"one-way".into(), &serde_json::Value::Null));
}

#[test]
fn notes_say_how_to_read_the_numbers() {
    let note = |report: &Report, said: &str| {
        let notes = report.notes();
        assert!(notes.iter().any(|note| note.contains(said)), "{said}: {notes:?}");
    };
    note(&report(&options(""), []), "no packet of the generator came: is it sending to the address of eth1?");
    note(&report(&options("--window 64"), [5000]), "1 flow was under way when this began");
    note(&report(&options("--window 64"), [0, 100, 1]), "1 packet came 64 packets late or later");
    let restarted = report_every(20_000_000, &options(""), (0..50).chain(0..50));
    note(&restarted, "the sender has started anew, 1 time seen");
    assert_eq!((restarted.lost, restarted.distinct), (0, 100));
    assert_eq!(report(&options(""), 0..10).notes(), Vec::<String>::new());
}

#[test]
fn the_table_is_aligned() {
    let text = report(&options("--per-flow 1 --expect 4"), [0, 2, 1, 2]).text(Style::PLAIN);
    assert_eq!(
        text,
        "\
eth1 (copy mode)
received           4  packets
bytes            256  with frame check sequences
time           0.003  s from the first packet to the last
mean rate      1,000  packets/s
               0.512  Mbit/s
expected           4  packets
lost               1  25.00 %
reordered          1  33.33 %
overtaken by       1  packets at most
duplicates         1  33.33 %
flows              1
unsigned           0  packets not of the generator
malformed          0  packets
kernel dropped     0  packets that this was too slow for

one-way latency  min  p50  p90  p99  p99.9  max  mean  p99.9 - min
µs               5.0  5.0  5.0  5.0    5.0  5.0   5.0          0.0

flow  received  lost  lost %  reordered  overtaken by  duplicates
0            4     0     0 %          1             1           1
"
    );
}
