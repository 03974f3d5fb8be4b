//! What came of a replay, in a few lines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use afx::Time;

use crate::text::number;

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
    ("oversize", "It is longer than the port takes: the kernel's stack has it."),
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
        let span = format!("{:.3} s of traffic", span.as_secs_f64());
        line(f, "packets in", self.packets, &span)?;
        for (verdict, name) in
            [("tx", "  tx (sent)"), ("drop", "  drop (dropped)"), ("pass", "  pass (passed)")]
        {
            let reasons = self.verdicts.get(verdict);
            let total = reasons.map_or(0, |reasons| reasons.values().sum());
            let written = format!("{} written", number(self.written));
            line(f, name, total, if verdict == "tx" { &written } else { "" })?;
            let named = reasons.into_iter().flatten().filter(|(reason, _)| !reason.is_empty());
            for (reason, count) in named {
                let sentence = self.sentences.get(reason).map_or("", String::as_str);
                line(f, &format!("    {reason}"), *count, sentence)?;
            }
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, count: u64, more: &str) -> fmt::Result {
    let line = format!("{name:<30} {:>13}   {more}", number(count));
    writeln!(f, "{}", line.trim_end())
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
packets in                                 4   3.000 s of traffic
  tx (sent)                                2   3 written
  drop (dropped)                           1
    balancer.too_big                       1   It is long.
  pass (passed)                            1
    not_steered                            1   Not for the balancer: the kernel's stack has it.
";
        assert_eq!(table, expected);
    }
}
