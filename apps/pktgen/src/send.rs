//! `afx-pktgen send`: makes packets and sends them, and counts what the interface really took.

mod live;
mod pace;
mod replay;
mod report;
mod stage;
mod target;
mod xdp;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afx::Time;
use afx::control::interface::Interface;
use afx::packet::{MacAddress, TcpFlags, VlanTag};
use clap::ValueEnum;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::traffic::{Kind, Order, Shape, Spec, Traffic, tcp_flags};
use crate::units::{AddressRange, FCS, PortRange, Rate, Sizes, duration};
use pace::Pace;
use replay::Recording;
use report::{Outcome, Report, Show};

/// Sends packets out of an interface.
///
/// Frame sizes count the frame check sequence (64 is the shortest frame of Ethernet). Without --count and --time it sends
/// until it is told to stop (Ctrl-C, SIGTERM). The exit status is 0 if all that was wanted was sent, 1 if not, 2 if it could
/// not even begin.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The interface to send on.
    #[arg(value_name = "INTERFACE")]
    interface: String,
    /// How packets get to the interface: auto is zero-copy where the card has it, live where it is a veth whose peer
    /// takes frames, else copy.
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Queues of the interface to send on, each by a core of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    queues: u32,

    /// How fast: packets as `1Mpps`, bits as `10Gbit/s`, per cent of the line as `50%`, or `max` [default: max; a capture's
    /// own pace with --replay].
    #[arg(long, help_heading = "How fast, how many")]
    rate: Option<Rate>,
    /// Packets that leave together, so that the rate is kept on the average.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "How fast, how many")]
    burst: u32,
    /// Ends after so many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "How fast, how many")]
    count: Option<u64>,
    /// Ends after so much time: `10s`, `1m 30s`.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "How fast, how many")]
    time: Option<Duration>,

    /// Destination addresses: `10.0.0.1`, `10.0.0.0/16`, `2001:db8::1-2001:db8::9`.
    #[arg(long, value_name = "ADDRESSES", required_unless_present = "replay", help_heading = "Packets")]
    destination: Option<AddressRange>,
    /// Source addresses [default: the interface's own; with --shape any].
    #[arg(long, value_name = "ADDRESSES", help_heading = "Packets")]
    source: Option<AddressRange>,
    /// Destination ports: `53`, `1000-2000` [default: 9, or 80 for TCP].
    #[arg(long, value_name = "PORTS", help_heading = "Packets")]
    destination_port: Option<PortRange>,
    /// Source ports; the identifiers of ICMP [default: 1024; with --shape any].
    #[arg(long, value_name = "PORTS", help_heading = "Packets")]
    source_port: Option<PortRange>,
    /// What is above IP [default: udp].
    #[arg(long, value_enum, conflicts_with = "shape", help_heading = "Packets")]
    protocol: Option<ProtocolName>,
    /// Flags of TCP [default: ack].
    #[arg(long, value_name = "FLAGS", value_parser = tcp_flags, help_heading = "Packets")]
    tcp_flags: Option<TcpFlags>,
    /// A VLAN tag; given twice, the outer one first.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(0..4096), help_heading = "Packets")]
    vlan: Vec<u16>,
    /// Frame sizes: `64`, `64-1518`, `imix`, `list 64:7,570:4,1518:1` [default: the shortest].
    #[arg(long, value_name = "SIZES", help_heading = "Packets")]
    size: Option<Sizes>,
    /// How many flows [default: as many as addresses and ports make; with --shape 65536].
    #[arg(long, value_name = "N", help_heading = "Packets")]
    flows: Option<u32>,
    /// How flows take turns: `walk`, `random`, `zipf:1.0` [default: walk].
    #[arg(long, help_heading = "Packets")]
    order: Option<Order>,
    /// An attack, from random sources.
    #[arg(long, value_enum, help_heading = "Packets")]
    shape: Option<Shape>,
    /// Leaves out the signature (flow, sequence number and time) that `receive` measures by. Attacks have none.
    #[arg(long, help_heading = "Packets")]
    no_signature: bool,
    /// What is random is the same for the same seed [default: 1].
    #[arg(long, value_name = "N", help_heading = "Packets")]
    seed: Option<u64>,
    /// The destination MAC address [default: the kernel's neighbour on the way to the destination].
    #[arg(long, value_name = "MAC", help_heading = "Packets")]
    to_mac: Option<MacAddress>,
    /// The source MAC address [default: the interface's].
    #[arg(long, value_name = "MAC", help_heading = "Packets")]
    from_mac: Option<MacAddress>,

    #[command(flatten)]
    replay: replay::Options,

    /// Prints what was sent as one JSON object.
    #[arg(long)]
    json: bool,
}

/// How packets get to the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Mode {
    /// The best there is.
    #[default]
    Auto,
    /// AF_XDP, the card reads packets from where they are written.
    ZeroCopy,
    /// AF_XDP, the kernel copies packets: works on every interface.
    Copy,
    /// Made in the kernel, as live XDP frames: veth only.
    Live,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    Udp,
    Tcp,
    Icmp,
}

/// Why nothing could be sent, or not to the end.
#[derive(Debug)]
pub(super) struct SendError {
    status: u8,
    what: String,
}

impl SendError {
    /// What was asked for cannot be: nothing was sent.
    fn usage(what: impl Into<String>) -> Self {
        Self { status: 2, what: what.into() }
    }

    /// It should have worked.
    fn failed(what: impl Into<String>) -> Self {
        Self { status: 1, what: what.into() }
    }

    /// With all causes, in one line.
    fn because(what: &str, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        let what = if what.is_empty() { causes.join(": ") } else { format!("{what}: {}", causes.join(": ")) };
        Self::failed(what)
    }
}

/// What is sent.
enum Load {
    Traffic(Arc<Traffic>),
    Replay(Arc<Recording>),
}

/// All that is settled before the first packet.
struct Job {
    interface: Interface,
    name: String,
    load: Load,
    /// Bytes of the longest packet.
    longest: usize,
    queues: u32,
    /// Packets per second, all queues together; None for no rate.
    rate: Option<f64>,
    burst: u32,
    /// A capture's own pace, so many times as fast.
    speed: Option<f64>,
    /// Packets to be sent in all; None for no end.
    wanted: Option<u64>,
    time: Option<Duration>,
}

impl Job {
    /// How much longer than the time it may go on: where a rate says how many packets that makes, all of them are to leave.
    fn grace(&self) -> Duration {
        if self.rate.is_some() { Duration::from_millis(100) } else { Duration::ZERO }
    }

    /// How many packets worker `index` sends, and when.
    fn share(&self, index: u32) -> (u64, Pace) {
        let queues = u64::from(self.queues);
        let wanted =
            self.wanted.map_or(u64::MAX, |all| all / queues + u64::from(u64::from(index) < all % queues));
        let pace = match (&self.load, self.speed, self.rate) {
            (Load::Replay(recording), Some(speed), _) => {
                Pace::capture(recording.times.iter().copied(), speed)
            }
            (_, _, Some(rate)) => Pace::rate(rate / queues as f64, self.burst),
            _ => Pace::Max,
        };
        (wanted, pace)
    }
}

/// Sends, and says what was sent.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match send(arguments) {
        Ok(report) => {
            if let Err(error) = report.print(arguments.json) {
                eprintln!("error: the result cannot be written: {error}");
                return ExitCode::FAILURE;
            }
            if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {}", error.what);
            ExitCode::from(error.status)
        }
    }
}

/// Packets at work in one of the modes.
trait Engine {
    /// What was given to the interface so far: packets and bytes.
    fn given(&self) -> (u64, u64);
    /// When the first packet left, by CLOCK_MONOTONIC.
    fn began(&self) -> Option<Time>;
    /// Whether all was sent, or it cannot go on.
    fn done(&self) -> bool;
    /// Ends it, and says what became of the packets.
    fn finish(self: Box<Self>) -> Result<Outcome, SendError>;
}

/// How often is looked whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn send(arguments: &Arguments) -> Result<Report, SendError> {
    let (job, mode) = arguments.job()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|error| SendError::because("waiting for signals", &error))?;
    }
    let engine: Box<dyn Engine> = match mode {
        Mode::Live => Box::new(live::start(&job)?),
        mode => Box::new(xdp::start(&job, mode)?),
    };
    let mut show = Show::new(Instant::now());
    let mut interrupted = false;
    // Time begins with the first packet.
    let passed = || engine.began().map_or(Duration::ZERO, |began| Time::monotonic() - began);
    while !engine.done() {
        interrupted = stop.load(Ordering::Relaxed);
        if interrupted || job.time.is_some_and(|time| passed() >= time + job.grace()) {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
        show.progress(engine.given());
    }
    let seconds = passed().as_secs_f64();
    show.clear();
    let outcome = engine.finish()?;
    Ok(Report {
        interface: job.name,
        seconds,
        interrupted,
        // What is wanted within some time is what there was time for.
        wanted: arguments.count.or(job.wanted.filter(|_| job.time.is_none())),
        rate_wanted: job.rate,
        outcome,
    })
}

impl Arguments {
    /// Settles what is sent and how.
    fn job(&self) -> Result<(Job, Mode), SendError> {
        let name = self.interface.clone();
        let interface = Interface::find(&name).map_err(|error| SendError::usage(error.to_string()))?;
        let load = match &self.replay.replay {
            Some(file) => Load::Replay(Arc::new(self.recording(file)?)),
            None => Load::Traffic(Arc::new(self.traffic(&interface)?)),
        };
        let (longest, mean, tags) = match &load {
            Load::Traffic(traffic) => {
                let tags = usize::from(traffic.plan.l3 - 14);
                (usize::from(traffic.sizes.longest()) - FCS, traffic.sizes.mean(), tags)
            }
            Load::Replay(recording) => {
                let bytes: usize = recording.packets.iter().map(Vec::len).sum();
                (recording.longest, bytes as f64 / recording.packets.len() as f64 + FCS as f64, 8)
            }
        };
        let room = interface.mtu as usize + 14 + tags;
        if longest > room {
            return Err(SendError::usage(format!(
                "frames of {} bytes do not fit {name}, whose MTU is {}: at most {}, or a larger MTU",
                longest + FCS,
                interface.mtu,
                room + FCS
            )));
        }
        let rate = match self.rate {
            None | Some(Rate::Max) => None,
            Some(rate) => rate
                .packets_per_second(mean, interface.speed)
                .map_err(|error| SendError::usage(error.to_string()))?,
        };
        let mode = self.settled_mode(&interface)?;
        let of_loops = match &load {
            Load::Replay(recording) if self.replay.loops > 0 => {
                Some(self.replay.loops.saturating_mul(recording.packets.len() as u64))
            }
            _ => None,
        };
        let of_time = rate.zip(self.time).map(|(rate, time)| ((rate * time.as_secs_f64()) as u64).max(1));
        let wanted = [self.count, of_loops, of_time].into_iter().flatten().min();
        let speed = (self.replay.replay.is_some() && self.rate.is_none()).then_some(self.replay.speed);
        let (burst, time, queues) = (self.burst, self.time, self.queues);
        Ok((Job { interface, name, load, longest, queues, rate, burst, speed, wanted, time }, mode))
    }

    fn recording(&self, file: &std::path::Path) -> Result<Recording, SendError> {
        if self.queues > 1 {
            return Err(SendError::usage(
                "--replay keeps the order of packets, which several queues do not: leave `--queues` out",
            ));
        }
        let speed = self.replay.speed;
        if !(speed.is_finite() && speed > 0.0) {
            return Err(SendError::usage(format!(
                "--speed {speed}: above 0; 2 is twice as fast as captured"
            )));
        }
        let recording = Recording::read(file, &self.replay)?;
        let is_instant = recording.times.iter().max() == recording.times.iter().min();
        if is_instant && self.replay.loops != 1 && self.rate.is_none() {
            return Err(SendError::usage(format!(
                "{}: its packets are all of one moment, which does not say when they are to come again: say a `--rate`",
                file.display()
            )));
        }
        Ok(recording)
    }

    fn traffic(&self, interface: &Interface) -> Result<Traffic, SendError> {
        let destination = self.destination.expect("clap asks for it");
        let spoofed = self.shape.is_some();
        let kind = match (self.shape, self.protocol) {
            (Some(shape), _) => shape.kind(),
            (None, Some(ProtocolName::Tcp)) => Kind::Tcp(self.tcp_flags.unwrap_or(TcpFlags::ACK)),
            (None, Some(ProtocolName::Icmp)) => Kind::Icmp,
            (None, Some(ProtocolName::Udp) | None) => Kind::Udp,
        };
        if self.tcp_flags.is_some() && self.protocol != Some(ProtocolName::Tcp) {
            return Err(SendError::usage("--tcp-flags are TCP's: say `--protocol tcp` too"));
        }
        if self.vlan.len() > 2 {
            return Err(SendError::usage(format!("{} VLAN tags: two at most", self.vlan.len())));
        }
        let target = target::find(self, interface, destination)?;
        let own_source = || match spoofed {
            true => Ok(Shape::sources(destination.is_ipv4())),
            false => target::own_address(&self.interface, interface, destination.is_ipv4()),
        };
        let ports = |text: &str| text.parse::<PortRange>().expect("ports as they are said");
        let spec = Spec {
            macs: (self.from_mac.unwrap_or(interface.mac), target),
            tags: self.vlan.iter().map(|id| VlanTag::from_id(*id)).collect(),
            kind,
            source: self.source.map_or_else(own_source, Ok)?,
            destination,
            source_ports: self.source_port.unwrap_or(if spoofed {
                ports("1024-65535")
            } else {
                PortRange::one(1024)
            }),
            destination_ports: self
                .destination_port
                .unwrap_or(PortRange::one(if matches!(kind, Kind::Tcp(_)) { 80 } else { 9 })),
            sizes: self.size.clone(),
            flows: self.flows,
            order: self.order.unwrap_or(Order::Walk),
            spoofed,
            signature: !self.no_signature && !spoofed,
            seed: self.seed.unwrap_or(1),
        };
        spec.prepare().map_err(|error| SendError::usage(error.to_string()))
    }

    /// The mode, where it is left to us, or demanded and there.
    fn settled_mode(&self, interface: &Interface) -> Result<Mode, SendError> {
        let name = &self.interface;
        let replay = self.replay.replay.is_some();
        match self.mode {
            Mode::Auto if !replay && interface.driver == "veth" && live::takes_frames(interface) => {
                Ok(Mode::Live)
            }
            Mode::Live if replay => Err(SendError::usage(
                "--replay goes over AF_XDP: say `--mode copy` or `--mode zero-copy`, or no mode",
            )),
            Mode::Live if interface.driver != "veth" => Err(SendError::usage(format!(
                "live frames are for veth, which counts them one by one, and {name} is none: say `--mode copy`"
            ))),
            Mode::Live if !live::takes_frames(interface) => Err(SendError::usage(format!(
                "{name} takes no XDP frames: its peer is down, or has neither an XDP program nor GRO; say \
                 `ethtool -K PEER gro on` where the peer is, or `--mode copy`"
            ))),
            mode => Ok(mode),
        }
    }
}
