//! Statistics in the text format that Prometheus scrapes (OpenMetrics 1.0).
//!
//! Counters count from the runtime's start. What a worker has is told by its number (`worker`); queues by port and
//! queue, stages by their place in the pipeline and name.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `afx_received_packets_total` | `worker`, `port`, `queue` | packets taken from the RX ring |
//! | `afx_received_bytes_total` | `worker`, `port`, `queue` | their bytes |
//! | `afx_sent_packets_total` | `worker`, `port`, `queue` | packets put on the TX ring |
//! | `afx_sent_bytes_total` | `worker`, `port`, `queue` | their bytes |
//! | `afx_kernel_dropped_packets_total` | `worker`, `port`, `queue` | dropped by the kernel before they came here |
//! | `afx_wakeups_total` | `worker`, `port`, `queue` | system calls made to wake the kernel |
//! | `afx_dropped_packets_total` | `worker`, `reason` | packets dropped, by reason |
//! | `afx_handed_over_packets_total` | `worker` | packets handed over to other workers |
//! | `afx_taken_over_packets_total` | `worker` | packets taken over from other workers |
//! | `afx_not_created_packets_total` | `worker` | packets not created for want of a frame or slot |
//! | `afx_turns_total` | `worker` | turns of the loop |
//! | `afx_empty_turns_total` | `worker` | turns in which no packet came |
//! | `afx_sleeps_total` | `worker` | times that the worker went to sleep |
//! | `afx_busy_seconds_total` | `worker` | time spent on turns in which packets came |
//! | `afx_batches_total` | `worker`, `packets` | batches by size, up to `packets` and above the size before |
//! | `afx_configuration` | `worker` | number of the newest configuration taken |
//! | `afx_stage_batches_total` | `worker`, `place`, `stage` | batches that the stage was called with |
//! | `afx_stage_packets_total` | `worker`, `place`, `stage` | packets that came to the stage live |
//! | `afx_stage_seconds_total` | `worker`, `place`, `stage` | time in the stage's `process` |
//! | `afx_frames` | `worker`, `place` | frames: `free`, lent for `receive` and `transmit`, `held` by stages |
//! | `afx_frames_missing` | `worker` | frames that no one accounts for: 0 unless there is a bug |
//! | `afx_frames_issued_total` | `worker`, `border` | frames that have crossed a border of the pool outwards |
//! | `afx_frames_returned_total` | `worker`, `border` | and that came back |
//! | `afx_application_total` | `worker`, `counter` | the application's own counters, by name |

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Stats, WorkerStats};
use crate::mem::cycles_per_ns;

type Labels = Vec<(&'static str, String)>;

/// A counter's name and help text, and where it is found.
type Named<T> = (&'static str, &'static str, fn(&T) -> u64);

/// The statistics as text, to be served under `/metrics` as
/// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
///
/// ```
/// let text = afx::stats::metrics::render(&afx::Stats::default());
/// assert_eq!(text, "# EOF\n", "nothing has been counted by nobody");
/// ```
pub fn render(stats: &Stats) -> String {
    let mut registry = Registry::with_prefix("afx");
    let mut metrics = Metrics { registry: &mut registry, stats };
    metrics.queues();
    metrics.workers();
    metrics.stages();
    metrics.frames();
    metrics.named();
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes all that is written to it");
    text
}

struct Metrics<'a> {
    registry: &'a mut Registry,
    stats: &'a Stats,
}

impl Metrics<'_> {
    /// A counter with what `values` finds for each worker.
    fn counter(&mut self, name: &str, help: &str, values: impl Fn(&WorkerStats) -> Vec<(Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in self.of_each_worker(values) {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    fn seconds(&mut self, name: &str, help: &str, values: impl Fn(&WorkerStats) -> Vec<(Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in self.of_each_worker(values) {
            family.get_or_create(&labels).inc_by(value);
        }
        self.registry.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, values: impl Fn(&WorkerStats) -> Vec<(Labels, i64)>) {
        let family = Family::<Labels, Gauge<i64, AtomicI64>>::default();
        for (labels, value) in self.of_each_worker(values) {
            family.get_or_create(&labels).set(value);
        }
        self.registry.register(name, help, family);
    }

    fn of_each_worker<T>(&self, values: impl Fn(&WorkerStats) -> Vec<(Labels, T)>) -> Vec<(Labels, T)> {
        let of_worker = |(number, worker): (usize, &WorkerStats)| {
            let label = ("worker", number.to_string());
            let with_label =
                move |(labels, value)| (std::iter::once(label.clone()).chain(labels).collect(), value);
            values(worker).into_iter().map(with_label).collect::<Vec<(Labels, T)>>()
        };
        self.stats.workers.iter().enumerate().flat_map(of_worker).collect()
    }

    fn queues(&mut self) {
        use super::QueueStats as Queue;
        let counters: [Named<Queue>; 6] = [
            ("received_packets", "Packets taken from the RX ring", |queue| queue.received),
            ("received_bytes", "Bytes of the packets received", |queue| queue.received_bytes),
            ("sent_packets", "Packets put on the TX ring", |queue| queue.sent),
            ("sent_bytes", "Bytes of the packets sent", |queue| queue.sent_bytes),
            ("kernel_dropped_packets", "Packets that the kernel dropped before they came here", |queue| {
                queue.kernel_dropped
            }),
            ("wakeups", "System calls made to wake the kernel", |queue| queue.wakeups),
        ];
        for (name, help, value) in counters {
            self.counter(name, help, |worker| {
                let labels =
                    |queue: &Queue| vec![("port", queue.port.clone()), ("queue", queue.queue.to_string())];
                worker.queues.iter().map(|queue| (labels(queue), value(queue))).collect()
            });
        }
    }

    fn workers(&mut self) {
        let counters: [Named<WorkerStats>; 6] = [
            ("handed_over_packets", "Packets handed over to other workers", |worker| worker.handed_over),
            ("taken_over_packets", "Packets taken over from other workers", |worker| worker.taken_over),
            ("not_created_packets", "Packets not created for want of a frame or slot", |worker| {
                worker.not_created
            }),
            ("turns", "Turns of the loop", |worker| worker.turns),
            ("empty_turns", "Turns in which no packet came", |worker| worker.empty_turns),
            ("sleeps", "Times that the worker went to sleep", |worker| worker.sleeps),
        ];
        for (name, help, value) in counters {
            self.counter(name, help, |worker| vec![(vec![], value(worker))]);
        }
        self.seconds("busy_seconds", "Time spent on turns in which packets came", |worker| {
            vec![(vec![], worker.busy.as_secs_f64())]
        });
        self.counter("batches", "Batches by size", |worker| {
            let sizes = worker.batch_sizes.iter().enumerate();
            sizes.map(|(log2, count)| (vec![("packets", (1 << log2).to_string())], *count)).collect()
        });
        self.gauge("configuration", "Number of the newest configuration taken", |worker| {
            vec![(vec![], worker.generation as i64)]
        });
    }

    fn stages(&mut self) {
        fn of_stages<T>(
            worker: &WorkerStats,
            value: impl Fn(&crate::stage::StageCounters) -> T,
        ) -> Vec<(Labels, T)> {
            let stages = worker.stages.iter().enumerate();
            let labels =
                |place: usize, name: &str| vec![("place", place.to_string()), ("stage", name.to_owned())];
            stages.map(|(place, (name, counters))| (labels(place, name), value(counters))).collect()
        }
        self.counter("stage_batches", "Batches that the stage was called with", |worker| {
            of_stages(worker, |stage| stage.batches)
        });
        self.counter("stage_packets", "Packets that came to the stage live", |worker| {
            of_stages(worker, |stage| stage.packets)
        });
        self.seconds("stage_seconds", "Time in the stage", |worker| {
            of_stages(worker, |stage| stage.cycles as f64 / cycles_per_ns() / 1e9)
        });
    }

    fn frames(&mut self) {
        let borders = |worker: &WorkerStats| {
            let ledger = worker.ledger;
            [("receive", ledger.receive), ("transmit", ledger.transmit), ("held", ledger.held)]
        };
        self.gauge("frames", "Frames by where they are", |worker| {
            let outside = borders(worker).map(|(name, border)| (name, border.outside()));
            let places = outside.into_iter().chain([("free", worker.ledger.free as i64)]);
            places.map(|(name, count)| (vec![("place", name.to_owned())], count)).collect()
        });
        self.gauge("frames_missing", "Frames that no one accounts for", |worker| {
            vec![(vec![], worker.ledger.missing())]
        });
        let border = |name: &str| vec![("border", name.to_owned())];
        self.counter("frames_issued", "Frames that have left the pool", |worker| {
            borders(worker).into_iter().map(|(name, counts)| (border(name), counts.issued)).collect()
        });
        self.counter("frames_returned", "Frames that have come back to the pool", |worker| {
            borders(worker).into_iter().map(|(name, counts)| (border(name), counts.returned)).collect()
        });
    }

    fn named(&mut self) {
        let reasons = &self.stats.reasons;
        self.counter("dropped_packets", "Packets dropped, by reason", |worker| {
            let counts = reasons.iter().zip(&worker.drops);
            counts.map(|(reason, count)| (vec![("reason", reason.name.clone())], *count)).collect()
        });
        self.counter("application", "The application's own counters", |worker| {
            worker.counters.iter().map(|(name, count)| (vec![("counter", name.clone())], *count)).collect()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Batch, MemoryPort, Runtime, Stage};

    struct DropAll(crate::Reason, crate::stats::Counter);

    impl Stage for DropAll {
        fn process(&mut self, batch: &mut Batch) {
            batch.count(self.1, 5);
            for slot in batch.live() {
                batch.packet(slot).drop(self.0);
            }
        }
    }

    /// The samples of the text by name and labels; each must belong to a metric with a type and a help text.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        let (mut samples, mut types, mut helped) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, sentence) = help.split_once(' ').unwrap();
                assert!(sentence.ends_with('.'), "{line}");
                helped.push(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} is there once");
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let metric = name.split('{').next().unwrap();
                let family = metric.strip_suffix("_total").unwrap_or(metric);
                assert!(helped.iter().any(|name| name == family), "no help for {line}");
                let kind = if metric.ends_with("_total") { "counter" } else { "gauge" };
                assert_eq!(types[family], kind, "{line}");
                assert_eq!(
                    samples.insert(name.to_owned(), value.parse().unwrap()),
                    None,
                    "{line} is there once"
                );
            }
        }
        samples
    }

    /// What a worker has counted that has dropped three packets.
    fn counted() -> Stats {
        let (port, mut peers) = MemoryPort::with_queues("cable \"7\"", 1, 64);
        let mut worker = Runtime::builder()
            .port(port)
            .frames_per_queue(100)
            .pipeline(|build| DropAll(build.drop_reason("test.all", "All of them."), build.counter("fives")))
            .inline()
            .unwrap();
        worker.turn();
        for _ in 0..3 {
            assert!(peers[0].send(&[7; 60]));
        }
        worker.turn();
        worker.stats()
    }

    #[test]
    fn everything_that_is_counted_is_there_in_its_form() {
        let samples = parse(&render(&counted()));
        let queue = r#"{worker="0",port="cable \"7\"",queue="0"}"#;
        for (name, value) in [
            (format!("afx_received_packets_total{queue}"), 3.0),
            (format!("afx_received_bytes_total{queue}"), 180.0),
            (format!("afx_sent_packets_total{queue}"), 0.0),
            (r#"afx_dropped_packets_total{worker="0",reason="test.all"}"#.into(), 3.0),
            (r#"afx_dropped_packets_total{worker="0",reason="no_verdict"}"#.into(), 0.0),
            (r#"afx_application_total{worker="0",counter="fives"}"#.into(), 5.0),
            (r#"afx_batches_total{worker="0",packets="4"}"#.into(), 1.0),
            (r#"afx_stage_packets_total{worker="0",place="0",stage="DropAll"}"#.into(), 3.0),
            (r#"afx_turns_total{worker="0"}"#.into(), 2.0),
            (r#"afx_frames{worker="0",place="receive"}"#.into(), 61.0),
            (r#"afx_frames{worker="0",place="free"}"#.into(), 39.0),
            (r#"afx_frames_issued_total{worker="0",border="receive"}"#.into(), 64.0),
            (r#"afx_frames_missing{worker="0"}"#.into(), 0.0),
        ] {
            assert_eq!(samples.get(&name), Some(&value), "{name} in {samples:#?}");
        }
        assert!(samples[r#"afx_busy_seconds_total{worker="0"}"#] > 0.0);
        assert!(samples[r#"afx_stage_seconds_total{worker="0",place="0",stage="DropAll"}"#] > 0.0);
    }

    #[test]
    fn every_metric_is_in_the_table_above() {
        let table = include_str!("metrics.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let mut documented: Vec<_> = table.map(|line| line.split('`').next().unwrap()).collect();
        let text = render(&counted());
        let mut rendered: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.replace(" counter", "_total").replace(" gauge", ""))
            .collect();
        documented.sort_unstable();
        rendered.sort_unstable();
        assert_eq!(documented, rendered);
    }
}
