//! Sending over AF_XDP, on the framework.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use afx::port::{Mode as SocketMode, ModeWanted, XdpPort};
use afx::{Idle, PortId, Running, Runtime, Time};

use crate::traffic::Writer;

use super::report::Outcome;
use super::stage::{Meter, Sender, Supply};
use super::{Engine, Job, Load, Mode, SendError};

/// Bytes of a frame that no packet gets: what XDP keeps free before it.
const HEADROOM: usize = 256;

/// Workers at work.
struct Xdp {
    running: Running,
    meters: Vec<Arc<Meter>>,
    name: String,
    mode: &'static str,
    /// What the interface had dropped before.
    dropped: u64,
}

/// Opens the queues and begins to send.
pub(super) fn start(job: &Job, mode: Mode) -> Result<impl Engine + use<>, SendError> {
    let wanted = match mode {
        Mode::ZeroCopy => ModeWanted::Demand(SocketMode::ZeroCopy),
        Mode::Copy => ModeWanted::Demand(SocketMode::Copy),
        Mode::Auto | Mode::Live => ModeWanted::Auto,
    };
    let frame_size = if job.longest > 2048 - HEADROOM { 4096 } else { 2048 };
    if job.longest > frame_size - HEADROOM {
        return Err(SendError::usage(format!(
            "frames of {} bytes: AF_XDP takes {} at most",
            job.longest + crate::units::FCS,
            4096 - HEADROOM + crate::units::FCS
        )));
    }
    let dropped = dropped_by(&job.name)?;
    let meters: Vec<Arc<Meter>> = (0..job.queues).map(|_| Arc::default()).collect();
    let shares: Vec<_> = (0..job.queues).map(|index| job.share(index)).collect();
    let load = match &job.load {
        Load::Traffic(traffic) => Load::Traffic(traffic.clone()),
        Load::Replay(recording) => Load::Replay(recording.clone()),
    };
    let build_meters = meters.clone();
    let running = Runtime::builder()
        .port(XdpPort::send_only(&job.name).queues(0..job.queues).mode(wanted))
        .workers(job.queues as usize)
        .idle(Idle::Busy)
        .frame_size(frame_size)
        .tick(Duration::ZERO)
        .pipeline(move |build| {
            let index = build.worker().index();
            let (wanted, pace) = shares[index].clone();
            Sender {
                supply: match &load {
                    Load::Traffic(traffic) => Supply::Traffic(Writer::new(traffic.clone(), index)),
                    Load::Replay(recording) => Supply::Replay { recording: recording.clone(), place: 0 },
                },
                pace,
                port: PortId::new(0),
                wanted,
                sent: 0,
                bytes: 0,
                meter: build_meters[index].clone(),
            }
        })
        .start();
    let running = running.map_err(|error| SendError { status: 2, ..SendError::because("", &error) })?;
    let facts = running.status().into_iter().flat_map(|status| status.facts);
    let zero_copy =
        facts.filter(|(name, _)| name.starts_with("queue ")).all(|(_, how)| how.starts_with("zero"));
    let mode = if zero_copy { "zero-copy" } else { "copy" };
    Ok(Xdp { running, meters, name: job.name.clone(), mode, dropped })
}

/// How long the interface may take for what is on its way.
const PATIENCE: Duration = Duration::from_secs(2);

impl Engine for Xdp {
    fn given(&self) -> (u64, u64) {
        let sum = |of: fn(&Meter) -> u64| self.meters.iter().map(|meter| of(meter)).sum();
        (sum(|meter| meter.packets.load(Ordering::Relaxed)), sum(|meter| meter.bytes.load(Ordering::Relaxed)))
    }

    fn began(&self) -> Option<Time> {
        let times = self.meters.iter().map(|meter| meter.began.load(Ordering::Relaxed));
        times.filter(|time| *time > 0).min().map(Time::from_nanos)
    }

    fn done(&self) -> bool {
        self.running.ended() || self.meters.iter().all(|meter| meter.done.load(Ordering::Acquire))
    }

    fn finish(self: Box<Self>) -> Result<Outcome, SendError> {
        self.meters.iter().for_each(|meter| meter.stop.store(true, Ordering::Relaxed));
        let deadline = Instant::now() + PATIENCE;
        while !self.done() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (packets, bytes) = self.given();
        let stats = self.running.stop().map_err(|error| SendError::because("", &error))?;
        let dropped = dropped_by(&self.name)?.saturating_sub(self.dropped);
        let completed: u64 = stats.workers.iter().map(|worker| worker.ledger.transmit.returned).sum();
        let pending: i64 = stats.workers.iter().map(|worker| worker.ledger.transmit.outside()).sum();
        let mut not_sent: Vec<(String, u64)> =
            stats.drops().into_iter().map(|(reason, count)| (reason.into(), count)).collect();
        not_sent.push(("dropped_by_interface".into(), dropped));
        not_sent.push(("not_completed".into(), pending.max(0) as u64));
        let sent = completed.saturating_sub(dropped);
        Ok(Outcome::new(self.mode, packets, bytes, sent, not_sent))
    }
}

/// How many packets an interface has dropped instead of sending them: the fourth of its counters for sending.
fn dropped_by(interface: &str) -> Result<u64, SendError> {
    let path = "/proc/thread-self/net/dev";
    let text = std::fs::read_to_string(path).map_err(|error| SendError::because(path, &error))?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().nth(11)?.parse().ok());
    number.ok_or_else(|| {
        let missing: io::Error = io::ErrorKind::NotFound.into();
        SendError::because(&format!("the counters of {interface} in {path}"), &missing)
    })
}
