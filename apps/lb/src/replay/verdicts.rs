//! What became of each packet, line by line, and the packets that were sent.

use std::collections::VecDeque;
use std::io::{BufWriter, Write};
use std::net::IpAddr;

use afx::port::{CaptureFormat, CaptureWriter};
use afx::stage::balancer::How;
use afx::{DropReason, Time};
use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::Names;
use super::files::Target;
use super::stage::{Event, Outcome, Passed, Replayed, Settled};
use super::summary::Summary;

/// Writes both files while the replay goes on.
pub(super) struct Verdicts {
    sent: Option<(Target, CaptureWriter)>,
    lines: Option<(Target, BufWriter<std::fs::File>)>,
    /// From the first packet on that is not settled yet: lines come in the order of the packets, and a packet that is
    /// held is settled after others that came later.
    open: VecDeque<Packet>,
    /// The number of the first of these.
    first: u64,
    summary: Summary,
}

/// A packet that is in no line yet.
struct Packet {
    timestamp: Time,
    line: Option<String>,
}

/// A line of the verdicts.
#[derive(Serialize)]
struct Line<'n> {
    index: u64,
    /// In seconds since 1970, to the nanosecond: a number in JSON would lose some of it.
    timestamp: String,
    verdict: &'static str,
    reason: Option<&'n str>,
    vip: Option<String>,
    real: Option<IpAddr>,
    how: Option<&'static str>,
    /// The numbers of the packets in the capture that is written.
    out: Vec<u64>,
}

impl Verdicts {
    pub(super) fn new(sent: Option<Target>, lines: Option<Target>) -> Result<Self> {
        let sent = sent.map(|target| {
            let writer = CaptureWriter::new(target.file()?, CaptureFormat::of(target.name()));
            let writer = writer.with_context(|| cannot_write(&target))?;
            anyhow::Ok((target, writer))
        });
        let lines = lines.map(|target| anyhow::Ok((BufWriter::new(target.file()?), target)));
        let lines = lines.transpose()?.map(|(writer, target)| (target, writer));
        let (open, first) = (VecDeque::new(), 0);
        Ok(Self { sent: sent.transpose()?, lines, open, first, summary: Summary::default() })
    }

    /// Takes over what the stage has noted.
    pub(super) fn take(&mut self, stage: &mut Replayed, names: &Names) -> Result<()> {
        for event in stage.events() {
            match event {
                Event::Came(timestamp) => {
                    self.summary.came(timestamp);
                    self.open.push_back(Packet { timestamp, line: None });
                }
                Event::Settled(settled) => self.settle(settled, names)?,
            }
        }
        while self.open.front().is_some_and(|packet| packet.line.is_some()) {
            let line = self.open.pop_front().and_then(|packet| packet.line).unwrap_or_default();
            self.first += 1;
            if let Some((target, writer)) = &mut self.lines {
                writeln!(writer, "{line}").with_context(|| cannot_write(target))?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, settled: Settled, names: &Names) -> Result<()> {
        let Settled { index, outcome, decision, sent } = settled;
        let mut out = Vec::new();
        for (at, bytes) in sent {
            out.push(self.summary.written);
            self.summary.written += 1;
            if let Some((target, writer)) = &mut self.sent {
                writer.write(at, &bytes).with_context(|| cannot_write(target))?;
            }
        }
        let (verdict, reason) = match outcome {
            Outcome::Sent => ("tx", None),
            Outcome::Dropped(reason) => ("drop", names.reasons.get(reason.index()).map(String::as_str)),
            Outcome::Passed(Passed::NotSteered) => ("pass", Some("not_steered")),
            Outcome::Passed(Passed::Oversize) => ("pass", Some("oversize")),
        };
        self.summary.settled(verdict, reason);
        let place = usize::try_from(index - self.first).ok().and_then(|place| self.open.get_mut(place));
        let packet = place.context("a packet was settled twice")?;
        let line = Line {
            index,
            timestamp: seconds(packet.timestamp),
            verdict,
            reason,
            vip: decision.map(|decision| decision.vip.to_string()),
            real: decision.and_then(|decision| names.reals.get(&decision.real?).copied()),
            how: decision.and_then(|decision| decision.how).map(How::name),
            out,
        };
        packet.line = Some(serde_json::to_string(&line)?);
        Ok(())
    }

    /// All packets have come: puts the files in their places.
    pub(super) fn finish(self, packets: u64, reasons: &[DropReason]) -> Result<Summary> {
        let settled = self.first;
        if settled != packets {
            bail!("{settled} packets of {packets} were settled: it is not known what became of the others");
        }
        // Written whole, both of them, before either is put in its place.
        let mut written = Vec::new();
        if let Some((target, mut writer)) = self.lines {
            writer.flush().with_context(|| cannot_write(&target))?;
            written.push(target);
        }
        if let Some((target, writer)) = self.sent {
            writer.finish().with_context(|| cannot_write(&target))?;
            written.push(target);
        }
        written.into_iter().try_for_each(Target::finish)?;
        let sentence = |name: &str| reasons.iter().find(|reason| reason.name == name);
        Ok(self.summary.explained(|name| sentence(name).map(|reason| reason.sentence.clone())))
    }
}

fn cannot_write(target: &Target) -> String {
    format!("cannot write {}", target.name().display())
}

fn seconds(time: Time) -> String {
    format!("{}.{:09}", time.as_nanos() / 1_000_000_000, time.as_nanos() % 1_000_000_000)
}
