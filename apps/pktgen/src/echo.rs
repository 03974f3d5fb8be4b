//! `afx-pktgen echo`: sends packets back to where they came from, for measuring round trips.

use std::collections::BTreeMap;
use std::time::Instant;

use afx::packet::rewrite;
use afx::stage::Malformed;
use afx::worker::Build;
use afx::{Batch, Reason, Stage, Stats};
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::display::{FCS, Live, Rate, Style, complain, number, print, table};
use crate::receive::source::{End, Source, Until};

/// The options of `echo`.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    until: Until,
    /// What changes places beside the MAC addresses: nothing, the IP addresses, or these and the TCP or UDP ports.
    /// Checksums stay right.
    #[arg(long, value_enum, default_value_t, value_name = "LAYER")]
    swap: Swap,
    /// Shows nothing while it runs.
    #[arg(long, short)]
    quiet: bool,
    /// Prints the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Up to which layer source and destination change places.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
enum Swap {
    /// MAC addresses only.
    #[default]
    Mac,
    /// IP addresses as well; what is no IP packet is dropped.
    L3,
    /// TCP and UDP ports as well, where there are some.
    L4,
}

/// Sends packets back.
struct Echo {
    swap: Swap,
    group: Reason,
    not_ip: Reason,
    malformed: Malformed,
}

impl Echo {
    fn new(build: &mut Build<'_>, swap: Swap) -> Self {
        Self {
            swap,
            group: build.drop_reason(
                "echo.group",
                "The packet was sent to a broadcast or multicast address, which no packet can come from.",
            ),
            not_ip: build.drop_reason("echo.not_ip", "The packet has no IP addresses to change places."),
            malformed: Malformed::new(build),
        }
    }

    /// Why a packet with these bytes is not sent back, once what was to change places has.
    #[inline(always)]
    fn turn_round(&self, packet: &mut afx::Packet<'_>) -> Option<Reason> {
        // The group bit of the destination (IEEE 802, section 8.2.2).
        if packet.bytes().first().is_some_and(|byte| byte & 1 != 0) {
            return Some(self.group);
        }
        if self.swap != Swap::Mac {
            let parsed = match packet.parsed() {
                Ok(parsed) => parsed,
                Err(error) => return Some(self.malformed.reason(error)),
            };
            // Both sums over addresses and ports are the same in either order.
            if !rewrite::swap_ip_addresses(packet.bytes_mut(), &parsed) {
                return Some(self.not_ip);
            }
            if self.swap == Swap::L4 {
                rewrite::swap_ports(packet.bytes_mut(), &parsed);
            }
        }
        packet.swap_mac_addresses();
        None
    }
}

impl Stage for Echo {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            match self.turn_round(&mut packet) {
                None => packet.transmit(packet.ingress()),
                Some(reason) => packet.drop(reason),
            }
        }
    }
}

/// Sends packets back until the end that the options ask for.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let mut end = End::new(&options.until, None).context("cannot receive signals")?;
    let swap = options.swap;
    let running = options.source.runtime().pipeline(move |build| Echo::new(build, swap)).start()?;
    let (line, mode) = Source::describe(&running);
    let interface = options.source.interface.as_str();
    if !options.quiet {
        complain(format_args!("echoing on {interface} ({line})"));
    }
    end.begin();
    let mut live = Live::new(options.quiet);
    let started = Instant::now();
    let mut last = (started, [0; 4]);
    let stats = running.run_until(|running| {
        if live.is_due() {
            let (now, counts) = (Instant::now(), counts(&running.stats()));
            let view = View { interface, seconds: (now - last.0).as_secs_f64(), counts, before: last.1 };
            let elapsed = (now - started).as_secs_f64();
            live.show(&view.lines(Style::on_stderr(), elapsed), &view.line(elapsed));
            last = (now, counts);
        }
        end.is_due(running.stats().received())
    });
    live.clear();
    let stats = stats.context("echoing has failed")?;
    let report = Report::new(interface, &mode, started.elapsed().as_secs_f64(), &stats);
    let text = if options.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() };
    print(&text).context("cannot write the result")?;
    if !report.ledger_balanced {
        complain("afx-pktgen: frames are missing: this is a bug of afx, and the counts may be wrong");
    }
    Ok(report.ledger_balanced)
}

/// Packets and bytes received, and sent back.
fn counts(stats: &Stats) -> [u64; 4] {
    let bytes = |of: fn(&afx::stats::QueueStats) -> u64| stats.queues().map(of).sum();
    let (received, sent) = (bytes(|queue| queue.received_bytes), bytes(|queue| queue.sent_bytes));
    [stats.received(), received, stats.sent(), sent]
}

/// How it stands while packets come.
struct View<'a> {
    interface: &'a str,
    /// Since the last display.
    seconds: f64,
    counts: [u64; 4],
    before: [u64; 4],
}

impl View<'_> {
    fn rates(&self) -> [Rate; 2] {
        let new = |index: usize| self.counts[index] - self.before[index];
        [Rate::of(new(0), new(1), self.seconds), Rate::of(new(2), new(3), self.seconds)]
    }

    fn lines(&self, style: Style, elapsed: f64) -> Vec<String> {
        let rows = ["in", "out"].iter().zip(self.rates()).zip([self.counts[0], self.counts[2]]);
        let rows =
            rows.map(|((name, rate), all)| vec![(*name).to_owned(), rate.mpps(), rate.gbits(), number(all)]);
        let mut lines = vec![style.bold(&format!("{}, {elapsed:.0} s", self.interface))];
        lines.extend(table(style, &["", "Mpps", "Gbit/s", "packets"], rows));
        lines
    }

    fn line(&self, elapsed: f64) -> String {
        let [received, sent] = self.rates();
        format!(
            "{elapsed:>6.1} s  in {} Mpps, {} Gbit/s  out {} Mpps, {} Gbit/s  {} in, {} out",
            received.mpps(),
            received.gbits(),
            sent.mpps(),
            sent.gbits(),
            number(self.counts[0]),
            number(self.counts[2])
        )
    }
}

/// The result. The names are those of the JSON object, which scripts rely on: docs/pktgen.md says what each means.
#[derive(Serialize, Debug)]
struct Report {
    interface: String,
    mode: String,
    seconds: f64,
    received: u64,
    received_bytes: u64,
    sent: u64,
    sent_bytes: u64,
    dropped: u64,
    dropped_by_reason: BTreeMap<String, u64>,
    kernel_dropped: u64,
    ledger_balanced: bool,
}

impl Report {
    fn new(interface: &str, mode: &str, seconds: f64, stats: &Stats) -> Self {
        let [received, received_bytes, sent, sent_bytes] = counts(stats);
        let dropped = stats.dropped_total();
        Self {
            interface: interface.to_owned(),
            mode: mode.to_owned(),
            seconds,
            received,
            received_bytes: received_bytes + FCS * received,
            sent,
            sent_bytes: sent_bytes + FCS * sent,
            dropped,
            dropped_by_reason: stats
                .drops()
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            kernel_dropped: stats.queues().map(|queue| queue.kernel_dropped).sum(),
            // Every frame is accounted for, and every packet was sent or dropped.
            ledger_balanced: stats.balanced() && received == sent + dropped,
        }
    }

    fn text(&self) -> String {
        let style = Style::on_stdout();
        let mut rows = vec![
            vec!["received".to_owned(), number(self.received), number(self.received_bytes)],
            vec!["sent back".to_owned(), number(self.sent), number(self.sent_bytes)],
            vec!["dropped".to_owned(), number(self.dropped), String::new()],
        ];
        let reasons = self.dropped_by_reason.iter();
        rows.extend(reasons.map(|(name, count)| vec![format!("  {name}"), number(*count), String::new()]));
        rows.push(vec!["kernel dropped".to_owned(), number(self.kernel_dropped), String::new()]);
        let heading = format!("{} ({} mode, {:.1} s)", self.interface, self.mode, self.seconds);
        let mut lines = vec![style.bold(&heading)];
        lines.extend(table(style, &["", "packets", "bytes"], rows));
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use afx::packet::{Builder, MacAddress, TcpFlags, checksum, flow_key, parse};
    use afx::{MemoryPort, Runtime};

    use super::*;

    const HERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const THERE: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    /// What comes back of a packet, and what was dropped.
    fn echoed(swap: Swap, packet: &[u8]) -> (Option<Vec<u8>>, Vec<(String, u64)>) {
        let (port, mut peer) = MemoryPort::new("cable");
        let mut worker =
            Runtime::builder().port(port).pipeline(move |build| Echo::new(build, swap)).inline().unwrap();
        worker.turn();
        assert!(peer.send(packet));
        worker.turn();
        let stats = worker.stats();
        assert!(Report::new("cable", "memory", 1.0, &stats).ledger_balanced);
        let drops = stats.drops().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        (peer.receive(), drops)
    }

    fn written(builder: Builder) -> Vec<u8> {
        let mut bytes = vec![0; 200];
        let len = builder.macs(HERE, THERE).write(&mut bytes, b"payload").unwrap();
        bytes.truncate(len);
        bytes
    }

    fn ends() -> [(SocketAddr, SocketAddr); 2] {
        let end = |text: &str| text.parse().unwrap();
        [
            (end("192.0.2.1:4000"), end("198.51.100.7:53")),
            (end("[2001:db8::1]:4000"), end("[2001:db8::2]:53")),
        ]
    }

    #[test]
    fn what_is_asked_for_changes_places_and_sums_stay_right() {
        for (from, to) in ends() {
            for make in [Builder::udp, |from, to| Builder::tcp(from, to).flags(TcpFlags::SYN)] {
                let packet = written(make(from, to));
                let back = |ends: (SocketAddr, SocketAddr)| written(make(ends.0, ends.1).macs(THERE, HERE));
                let with_macs = |mut bytes: Vec<u8>| {
                    bytes[..12].copy_from_slice(&[HERE.0, THERE.0].concat());
                    bytes
                };
                let ports_stay =
                    (SocketAddr::new(to.ip(), from.port()), SocketAddr::new(from.ip(), to.port()));
                for (swap, ends) in [(Swap::Mac, (from, to)), (Swap::L3, ports_stay), (Swap::L4, (to, from))]
                {
                    let (answer, drops) = echoed(swap, &packet);
                    let answer = answer.unwrap();
                    assert_eq!(answer, with_macs(back(ends)), "{swap:?}");
                    assert_eq!(drops, []);
                    let parsed = parse(&answer).unwrap();
                    assert!(parsed.is_ipv6() || checksum::verify_ipv4(&answer, &parsed));
                    assert_eq!(checksum::verify_transport(&answer, &parsed), Some(true));
                }
            }
        }
    }

    #[test]
    fn a_packet_without_ports_changes_its_addresses() {
        for (from, to) in ends() {
            let (answer, _) = echoed(Swap::L4, &written(Builder::echo(from.ip(), to.ip(), 1, 2)));
            let answer = answer.unwrap();
            let key = flow_key(&answer, &parse(&answer).unwrap()).unwrap();
            assert_eq!((key.source(), key.destination()), (to.ip(), from.ip()));
        }
    }

    #[test]
    fn what_cannot_go_back_is_dropped_and_counted() {
        let (from, to) = ends()[0];
        let mut group = written(Builder::udp(from, to));
        group[..6].fill(0xff);
        let mut arp = written(Builder::udp(from, to));
        arp[12..14].copy_from_slice(&[8, 6]);
        let mut cut = written(Builder::udp(from, to));
        cut.truncate(20);
        let one = |name: &str| vec![(name.to_owned(), 1)];
        for swap in [Swap::Mac, Swap::L3, Swap::L4] {
            assert_eq!(echoed(swap, &group), (None, one("echo.group")));
        }
        assert_eq!(echoed(Swap::L3, &arp), (None, one("echo.not_ip")));
        assert_eq!(echoed(Swap::L4, &cut), (None, one("parse.ipv4_truncated")));
        assert!(echoed(Swap::Mac, &arp).0.is_some() && echoed(Swap::Mac, &cut).0.is_some());
    }
}
