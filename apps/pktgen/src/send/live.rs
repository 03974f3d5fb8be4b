//! Sending live frames: packets made in the kernel, where there is no card.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use afx::Time;
use afx::control::interface::{Interface, driver_statistics};
use afx_redirect::traffic::{self, Handle, LENGTH_MAX, Pace, Source};

use crate::units::FCS;

use super::report::Outcome;
use super::{Engine, Job, Load, SendError};

/// Sources at work, each on a thread and a core of its own.
struct Live {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<Result<(), afx_redirect::Error>>>,
    ended: Arc<AtomicUsize>,
    wanted: Option<u64>,
    name: String,
    before: Taken,
}

/// What a veth says it has done with XDP frames.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    /// Queues that it counts for.
    queues: usize,
    sent: u64,
    /// Frames for which its peer had no room.
    full: u64,
}

impl Taken {
    fn read(interface: &str) -> Result<Self, SendError> {
        let statistics = driver_statistics(interface)
            .map_err(|error| SendError::because(&format!("the driver's counters of {interface}"), &error))?;
        let sum = |end: &str| {
            let of_queue = |name: &str| name.starts_with("tx_queue_") && name.ends_with(end);
            statistics.iter().filter(|(name, _)| of_queue(name)).map(|(_, count)| count).sum()
        };
        let of_queue = |name: &str| name.starts_with("tx_queue_") && name.ends_with("_xdp_xmit");
        let queues = statistics.iter().filter(|(name, _)| of_queue(name)).count();
        Ok(Self { queues, sent: sum("_xdp_xmit"), full: sum("_xdp_xmit_errors") })
    }
}

/// Whether the interface takes XDP frames, or the kernel cannot tell.
pub(super) fn takes_frames(interface: &Interface) -> bool {
    traffic::takes_frames(interface.index).unwrap_or(true)
}

/// Loads the sources and begins to send.
pub(super) fn start(job: &Job) -> Result<impl Engine + use<>, SendError> {
    let Load::Traffic(traffic) = &job.load else {
        return Err(SendError::usage("live frames are not made of captures"));
    };
    if job.longest > LENGTH_MAX {
        return Err(SendError::usage(format!(
            "frames of {} bytes: live frames have {} at most; say `--mode copy`",
            job.longest + FCS,
            LENGTH_MAX + FCS
        )));
    }
    let before = Taken::read(&job.name)?;
    if job.queues as usize > before.queues {
        // Two cores on one queue would count into one counter of the kernel's, unlocked, and lose counts.
        return Err(SendError::usage(format!(
            "--queues {}: {} has {}; say `ethtool -L {} rx N tx N`, and the same for its peer, for more",
            job.queues, job.name, before.queues, job.name
        )));
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if job.queues as usize > cores.len() {
        return Err(SendError::usage(format!(
            "--queues {}: live frames are sent by a core each, and there are {}",
            job.queues,
            cores.len()
        )));
    }
    let pace = Pace { rate: job.rate.map(|rate| rate / f64::from(job.queues)), burst: job.burst };
    let mut sources = Vec::new();
    for index in 0..job.queues {
        let mut flows = traffic.flows.clone();
        let first = index.wrapping_mul(flows.len() as u32);
        flows.iter_mut().for_each(|flow| flow.number = flow.number.wrapping_add(first));
        let source = Source::load(job.interface.index, &traffic.plan, pace, &flows, &traffic.order)
            .map_err(|error| SendError { status: 2, ..SendError::because("", &error) })?;
        sources.push(source);
    }
    let handles = sources.iter().map(Source::handle).collect::<Result<Vec<_>, _>>();
    let handles = handles.map_err(|error| SendError::because("", &error))?;
    let ended = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    for ((index, source), core) in (0..).zip(sources).zip(cores) {
        let (wanted, _) = job.share(index);
        let ended = ended.clone();
        threads.push(std::thread::spawn(move || {
            core_affinity::set_for_current(core);
            let result = source.run(wanted);
            ended.fetch_add(1, Ordering::Release);
            result
        }));
    }
    Ok(Live { handles, threads, ended, wanted: job.wanted, name: job.name.clone(), before })
}

impl Live {
    fn progress(&self) -> traffic::Progress {
        let mut sum = traffic::Progress::default();
        for progress in self.handles.iter().filter_map(|handle| handle.progress().ok()) {
            sum.packets += progress.packets;
            sum.bytes += progress.bytes;
            sum.failed += progress.failed;
        }
        sum
    }
}

impl Engine for Live {
    fn given(&self) -> (u64, u64) {
        let progress = self.progress();
        (progress.packets, progress.bytes)
    }

    fn began(&self) -> Option<Time> {
        let times = self.handles.iter().filter_map(|handle| handle.progress().ok()?.began);
        times.min().map(Time::from_nanos)
    }

    fn done(&self) -> bool {
        // A call into the kernel goes on for a while after its last packet.
        self.ended.load(Ordering::Acquire) == self.threads.len()
            || self.wanted.is_some_and(|wanted| self.given().0 >= wanted)
    }

    fn finish(mut self: Box<Self>) -> Result<Outcome, SendError> {
        for handle in &self.handles {
            handle.end().map_err(|error| SendError::because("", &error))?;
        }
        for thread in std::mem::take(&mut self.threads) {
            let result = thread.join().map_err(|_| SendError::failed("a sending thread panicked"))?;
            result.map_err(|error| SendError::because("", &error))?;
        }
        let progress = self.progress();
        let now = Taken::read(&self.name)?;
        let sent = now.sent.saturating_sub(self.before.sent).min(progress.packets);
        let full = now.full.saturating_sub(self.before.full).min(progress.packets - sent);
        let not_sent = vec![
            ("peer_full".into(), full),
            // Its peer went down, or lost its XDP program and GRO, meanwhile.
            ("refused_by_interface".into(), progress.packets - sent - full),
            ("not_made".into(), progress.failed),
        ];
        Ok(Outcome::new("live", progress.packets, progress.bytes, sent, not_sent))
    }
}
