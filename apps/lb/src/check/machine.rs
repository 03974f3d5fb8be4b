//! What a configuration comes to on this machine: who works on which queues and where, and the memory that it takes.

use std::fmt::{self, Display, Formatter};

use afx::HugePages;
use afx::stage::balancer::Balancer;
use afx::stage::balancer::connections::Connections;
use anyhow::Result;
use serde::Serialize;

use super::summary::row;
use crate::config::Config;
use crate::service::plan;
use crate::text::number;

/// Workers and their memory; or why that cannot be told: it depends on the interfaces.
pub(super) struct Machine(Result<Facts>);

/// As it is, or why it cannot be told.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told {
    Unknown(String),
    #[serde(untagged)]
    Facts(Facts),
}

#[derive(Serialize)]
pub(super) struct Facts {
    workers: Vec<Worker>,
    /// Bytes of each worker's table of connections.
    table_bytes: usize,
    /// How many huge pages all workers take, and what provides them.
    huge_pages: String,
}

#[derive(Serialize)]
struct Worker {
    /// Core and queues in a line.
    #[serde(skip)]
    line: String,
    core: Option<usize>,
    /// Why it is that core, or none.
    why: String,
    /// Those of each port: `eth0:1`.
    queues: Vec<String>,
    frames: usize,
    packet_bytes: usize,
    /// What the number of frames comes of.
    reckoning: String,
}

impl Machine {
    /// By the interfaces of this network namespace.
    pub(super) fn of(config: &Config) -> Self {
        Self(facts(config))
    }

    /// The same for programs.
    pub(super) fn told(self) -> Told {
        self.0.map_or_else(|why| Told::Unknown(format!("{why:#}")), Told::Facts)
    }
}

fn facts(config: &Config) -> Result<Facts> {
    let runtime = plan::runtime(config)?;
    let (planned, memory) = (runtime.plan()?, runtime.memory(Balancer::HOLDS)?);
    let table_bytes = Connections::bytes_for(plan::options(config).capacity);
    let blocks = memory.iter().flat_map(|worker| [worker.bytes, table_bytes]);
    let huge_pages = HugePages::provision(blocks);
    let workers = planned.into_iter().zip(memory).map(|(worker, memory)| Worker {
        line: format!("{worker}: {}", worker.why),
        core: worker.core,
        why: worker.why,
        queues: worker.queues.iter().map(|(port, queue)| format!("{port}:{queue}")).collect(),
        frames: memory.frames,
        packet_bytes: memory.bytes,
        reckoning: memory.reckoning,
    });
    Ok(Facts { workers: workers.collect(), table_bytes, huge_pages })
}

impl Worker {
    /// Its frames. Workers whose ports have more queues than others' have more.
    fn packets(&self) -> String {
        let Self { frames, packet_bytes, reckoning, .. } = self;
        format!("{} frames, {}: {reckoning}", number(*frames as u64), mebibytes(*packet_bytes))
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Facts { workers, table_bytes, huge_pages } = match &self.0 {
            Ok(facts) => facts,
            Err(why) => {
                f.write_str("plan and memory of the workers\n")?;
                return row(f, "on this machine", &format!("cannot be told here: {why:#}"));
            }
        };
        f.write_str("plan of the workers\n")?;
        for (number, worker) in workers.iter().enumerate() {
            row(f, &format!("worker {number}"), &worker.line)?;
        }
        f.write_str("memory of each worker\n")?;
        let packets: Vec<_> = workers.iter().map(Worker::packets).collect();
        match packets.as_slice() {
            [first, others @ ..] if others.iter().all(|other| other == first) => row(f, "packets", first)?,
            all => {
                for (worker, packets) in all.iter().enumerate() {
                    row(f, &format!("packets, {worker}"), packets)?;
                }
            }
        }
        row(f, "connections", &mebibytes(*table_bytes))?;
        row(f, "all workers", &format!("take {huge_pages}"))
    }
}
