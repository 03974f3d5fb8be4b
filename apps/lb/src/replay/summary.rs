//! What came of a replay, in a few lines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use afx::Time;

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Summary {
    packets: u64,
    /// The times of the first packet and of the latest.
    span: Option<(Time, Time)>,
    /// Packets that were written to the output.
    pub(super) written: u64,
    /// By verdict, then by reason.
    verdicts: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// What reasons mean.
    sentences: BTreeMap<String, String>,
}

/// How the reasons of passed packets are explained: they are none of the balancer's.
const PASSED: [(&str, &str); 2] = [
    ("not_steered", "Not for the balancer: the kernel's stack has it."),
    ("oversize", "It fits no frame: the kernel's stack has it."),
];

impl Summary {
    /// A packet came in.
    pub(super) fn came(&mut self, at: Time) {
        self.packets += 1;
        let (first, last) = self.span.unwrap_or((at, at));
        self.span = Some((first, last.max(at)));
    }

    pub(super) fn settled(&mut self, verdict: &'static str, reason: Option<&str>) {
        let reasons = self.verdicts.entry(verdict).or_default();
        *reasons.entry(reason.unwrap_or_default().to_owned()).or_default() += 1;
    }

    /// Says what the balancer's reasons mean.
    pub(super) fn explained(mut self, sentence: impl Fn(&str) -> Option<String>) -> Self {
        let own =
            |name: &str| PASSED.iter().find(|(own, _)| *own == name).map(|(_, text)| (*text).to_owned());
        let names = self.verdicts.values().flat_map(BTreeMap::keys).cloned();
        self.sentences =
            names.filter_map(|name| Some((name.clone(), own(&name).or_else(|| sentence(&name))?))).collect();
        self
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.span.map_or(Duration::ZERO, |(first, last)| last - first);
        writeln!(f, "{:<30} {:>12}   {:.3} s of traffic", "packets in", self.packets, span.as_secs_f64())?;
        for (verdict, reasons) in [("tx", "sent"), ("drop", "dropped"), ("pass", "passed")]
            .map(|(verdict, word)| ((verdict, word), self.verdicts.get(verdict).cloned().unwrap_or_default()))
        {
            let (verdict, word) = verdict;
            let total: u64 = reasons.values().sum();
            let more = if verdict == "tx" { format!("   {} written", self.written) } else { String::new() };
            writeln!(f, "  {:<28} {total:>12}{more}", format!("{verdict} ({word})"))?;
            for (reason, count) in reasons.iter().filter(|(reason, _)| !reason.is_empty()) {
                let sentence = self.sentences.get(reason).map_or("", String::as_str);
                writeln!(f, "    {reason:<26} {count:>12}   {sentence}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_is_in_the_table() {
        let mut summary = Summary { written: 3, ..Summary::default() };
        for second in [5, 6, 4, 8] {
            summary.came(Time::from_nanos(second * 1_000_000_000));
        }
        summary.settled("tx", None);
        summary.settled("tx", None);
        summary.settled("drop", Some("balancer.too_big"));
        summary.settled("pass", Some("not_steered"));
        let table =
            summary.explained(|name| (name == "balancer.too_big").then(|| "It is long.".into())).to_string();
        let expected = "\
packets in                                4   3.000 s of traffic
  tx (sent)                               2   3 written
  drop (dropped)                          1
    balancer.too_big                      1   It is long.
  pass (passed)                           1
    not_steered                           1   Not for the balancer: the kernel's stack has it.
";
        assert_eq!(table, expected);
    }
}
