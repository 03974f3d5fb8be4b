use super::*;

const LIMITS: Limits = Limits { flows: 4, window: 64 };

fn packet(flow: u32, sequence: u32) -> Signature {
    Signature { flow, sequence, time: 1000 }
}

fn collector(packets: &[(u32, u32)]) -> Collector {
    let mut collector = Collector::new(LIMITS);
    for (index, (flow, sequence)) in packets.iter().enumerate() {
        collector.record(packet(*flow, *sequence), 2000 + index as u64, 100);
    }
    collector
}

#[test]
fn flows_are_counted_each_for_itself_and_together() {
    let collector = collector(&[(0, 0), (3, 0), (0, 2), (3, 1), (3, 1), (0, 1), (3, 5)]);
    let summary = Summary::of([collector.tally()]);
    assert_eq!((summary.packets, summary.bytes, summary.distinct), (7, 700, 6));
    assert_eq!((summary.lost, summary.reordered, summary.duplicates), (3, 1, 1));
    assert_eq!((summary.first, summary.last), (2000, 2006));
    let flows: Vec<_> = summary.flows.iter().map(|(number, flow)| (*number, flow.lost())).collect();
    assert_eq!(flows, [(0, 0), (3, 3)]);
    assert_eq!(summary.worst(1)[0].0, 3);
    assert_eq!(summary.latency.percentiles().unwrap().min, 1000);
}

#[test]
fn packets_of_flows_beyond_the_limit_are_in_the_totals() {
    let collector = collector(&[(0, 0), (4, 0), (u32::MAX, 7)]);
    let summary = Summary::of([collector.tally()]);
    assert_eq!((summary.packets, summary.distinct, summary.beyond, summary.lost), (3, 3, 2, 0));
    assert_eq!(summary.latency.percentiles().unwrap().count, 3);
    assert_eq!(summary.lost_of(Some(5)), 2);
}

#[test]
fn a_loss_at_the_end_shows_by_what_was_sent() {
    let collector = collector(&[(0, 0), (0, 2)]);
    let summary = Summary::of([collector.tally()]);
    assert_eq!([None, Some(3), Some(10), Some(1)].map(|sent| summary.lost_of(sent)), [1, 1, 8, 1]);
}

#[test]
fn what_two_have_counted_of_a_flow_is_put_together() {
    let (one, other) = (collector(&[(1, 0), (1, 2), (2, 0)]), collector(&[(1, 1), (1, 4)]));
    let summary = Summary::of([one.tally(), other.tally()]);
    assert_eq!((summary.packets, summary.lost, summary.split, summary.flows.len()), (5, 1, 1, 2));
    assert_eq!(Summary::of([]).packets, 0);
}

#[test]
fn a_copy_in_steps_is_the_same() {
    let collector = collector(&[(0, 0), (1, 1), (2, 2), (1, 0)]);
    let mut copy = Tally::new(LIMITS.flows);
    let mut steps = 0;
    let mut at = Some(0);
    while let Some(from) = at {
        at = copy.copy_step(collector.tally(), from, 2);
        steps += 1;
    }
    assert_eq!(steps, 2);
    let (copied, own) = (Summary::of([&copy]), Summary::of([collector.tally()]));
    assert_eq!(copied.flows, own.flows);
    assert_eq!((copied.packets, copied.latency.percentiles()), (4, own.latency.percentiles()));
}

#[test]
fn after_clearing_it_is_as_new() {
    let mut cleared = collector(&[(0, 0), (3, 9)]);
    cleared.clear();
    cleared.record(packet(3, 9), 5000, 60);
    let summary = Summary::of([cleared.tally()]);
    assert_eq!((summary.packets, summary.distinct, summary.lost, summary.duplicates), (1, 1, 9, 0));
    assert_eq!(summary.first, 5000);
}
