//! What there is to measure.

use anyhow::{Result, bail};

use crate::row::{Row, Target};
use crate::run::Run;
use crate::{balance, idle, lookups, memory, nftables, rings, transmit, veth};

/// One measurement, and its row.
pub(crate) struct Measurement {
    pub(crate) name: &'static str,
    pub(crate) measure: fn(&Run<'_>) -> Result<Row>,
    pub(crate) target: Target,
    /// Figures of one round.
    figures: u16,
    /// Seconds that a figure takes beside the time for which it is measured: programs are started and ended.
    around: f64,
    /// Seconds before the first.
    before: f64,
}

impl Measurement {
    /// Seconds that it will take, about.
    pub(crate) fn expected(&self, rounds: usize, seconds: f64) -> f64 {
        self.before + rounds as f64 * f64::from(self.figures) * (seconds + self.around)
    }
}

/// On veth the kernel's copy path is most of the time, and the interval decides.
const ON_VETH: Target = Target::RatioWithin { median: 1.0, low: 0.95 };

/// All, in the order in which they run: what needs a quiet cache first, what starts other programs last.
pub(crate) const ALL: [Measurement; 18] = [
    of("forward-memory-vs-testpmd-null", memory::forward_memory, Target::Ratio(1.0), 4, 0.2, 3.0),
    of("pipeline-static-vs-dyn", memory::static_vs_dyn, Target::Open, 4, 0.0, 0.0),
    of("ring-native-vs-xsk-rs", rings::native_vs_xsk_rs, Target::Ratio(2.0), 4, 0.0, 1.0),
    of("connection-table-64k-vs-rte-hash", lookups::connections_64k, Target::Ratio(1.5), 4, 0.0, 4.0),
    of("connection-table-1m-vs-rte-hash", lookups::connections_1m, Target::Ratio(1.5), 4, 0.0, 5.0),
    of("longest-prefix-vs-rte-fib", lookups::longest_prefix, Target::Ratio(1.0), 4, 0.0, 12.0),
    of("workers-2-vs-1", memory::two_workers, Target::Limit(1.9), 6, 0.0, 0.0),
    of("memory-per-connection", balance::memory_per_connection, Target::Limit(64.0), 2, -0.8, 0.0),
    of("balance-memory-1k", balance::flows_1k, Target::Limit(25.0), 4, 0.0, 0.0),
    // Between the neighbours, on a logarithmic scale of flows.
    of("balance-memory-100k", balance::flows_100k, Target::Limit(41.7), 4, 0.0, 0.0),
    of("balance-memory-1m", balance::flows_1m, Target::Limit(50.0), 4, 0.0, 0.5),
    of("balance-memory-8m", balance::flows_8m, Target::Open, 4, 0.0, 4.0),
    of("rx-drop-veth-vs-testpmd", veth::rx_drop, ON_VETH, 4, 2.5, 1.0),
    of("echo-veth-vs-testpmd", veth::echo, ON_VETH, 4, 2.5, 1.0),
    of("forward-veth-vs-testpmd", veth::forward, ON_VETH, 4, 2.5, 1.0),
    of("send-veth-vs-testpmd-txonly", transmit::send, ON_VETH, 4, 2.5, 1.0),
    of("balance-veth-vs-nftables", nftables::balance, Target::Open, 4, 2.0, 1.0),
    of("idle-cpu", idle::cpu, Target::Limit(2.0), 2, 2.5, 1.0),
];

const fn of(
    name: &'static str,
    measure: fn(&Run<'_>) -> Result<Row>,
    target: Target,
    figures: u16,
    around: f64,
    before: f64,
) -> Measurement {
    Measurement { name, measure, target, figures, around, before }
}

/// Those of these names, in their order of running; all if there is no name. A name may hold several, separated by
/// spaces.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static Measurement>> {
    let names: Vec<&str> = names.iter().flat_map(|names| names.split_whitespace()).collect();
    for name in &names {
        if !ALL.iter().any(|known| known.name == *name) {
            let known: Vec<_> = ALL.iter().map(|known| known.name).collect();
            bail!("there is no measurement {name:?}; there are\n  {}", known.join("\n  "));
        }
    }
    Ok(ALL.iter().filter(|known| names.is_empty() || names.contains(&known.name)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_found_exactly_and_in_the_order_of_running() {
        let names = |names: &[&str]| -> Result<Vec<&str>> {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            Ok(named(&names)?.iter().map(|measurement| measurement.name).collect())
        };
        assert_eq!(names(&[]).unwrap().len(), ALL.len());
        let two = ["ring-native-vs-xsk-rs", "idle-cpu"];
        assert_eq!(names(&["idle-cpu", "ring-native-vs-xsk-rs"]).unwrap(), two);
        assert_eq!(names(&["idle-cpu ring-native-vs-xsk-rs"]).unwrap(), two);
        let error = names(&["idle"]).unwrap_err().to_string();
        assert!(error.contains("\"idle\"") && error.contains("\n  idle-cpu"), "{error}");
        assert_eq!(ALL.iter().map(|known| known.name).collect::<HashSet<_>>().len(), ALL.len());
    }

    #[test]
    fn all_of_it_and_the_build_take_less_than_25_minutes() {
        let (rounds, seconds) = crate::DEFAULT;
        let expected: f64 = ALL.iter().map(|known| known.expected(rounds.into(), seconds)).sum();
        // A release build of the workspace on two cores takes 8.
        assert!(expected < 16.0 * 60.0, "{expected} s");
    }
}
