//! The memory that a configuration takes on this machine, for people.

use std::fmt::{self, Display, Formatter};

use afx::HugePages;
use afx::stage::balancer::Balancer;
use afx::stage::balancer::connections::Connections;
use anyhow::Result;

use super::summary::row;
use crate::config::Config;
use crate::service::plan;
use crate::text::number;

/// What the workers have for packets and connections; or why that cannot be told: it depends on the interfaces.
pub(super) struct Memory(Result<Facts>);

struct Facts {
    /// What each worker's frames come of; workers whose ports have more queues than others' have more.
    packets: Vec<String>,
    /// Bytes of each worker's table.
    table: usize,
    huge_pages: String,
}

impl Memory {
    /// By the interfaces of this network namespace.
    pub(super) fn of(config: &Config) -> Self {
        Self(facts(config))
    }
}

fn facts(config: &Config) -> Result<Facts> {
    let planned = plan::runtime(config)?.memory(Balancer::HOLDS)?;
    let table = Connections::bytes_for(plan::options(config).capacity);
    let blocks = planned.iter().flat_map(|worker| [worker.bytes, table]);
    let huge_pages = HugePages::provision(blocks);
    let packets = planned.iter().map(|worker| {
        format!("{} frames, {}: {}", number(worker.frames as u64), mebibytes(worker.bytes), worker.reckoning)
    });
    Ok(Facts { packets: packets.collect(), table, huge_pages })
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl Display for Memory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory of {}", if self.0.is_ok() { "each worker" } else { "the workers" })?;
        let Facts { packets, table, huge_pages } = match &self.0 {
            Ok(facts) => facts,
            Err(why) => return row(f, "packets", &format!("cannot be told here: {why:#}")),
        };
        match packets.as_slice() {
            [first, others @ ..] if others.iter().all(|other| other == first) => row(f, "packets", first)?,
            all => {
                for (worker, packets) in all.iter().enumerate() {
                    row(f, &format!("packets, {worker}"), packets)?;
                }
            }
        }
        row(f, "connections", &mebibytes(*table))?;
        row(f, "all workers", &format!("take {huge_pages}"))
    }
}
