//! The balancer's side of the demo: it runs, is reloaded twice, and is looked at all the while.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use afx::Stats;
use afx::stage::balancer::RealStats;
use anyhow::{Context as _, Result, bail};

use super::client::Load;
use super::live::View;
use super::network::{DRAINED, REALS, REALS_COUNT, WEIGHTS, Weights, config, vip};
use super::screen::Screen;
use crate::service::Service;

/// How often routes, the requests' progress and the screen are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What distinguishes a phase.
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) weights: Weights,
    /// The real that gets no new connections, by its place in [`REALS`].
    pub(super) drained: Option<usize>,
}

/// The phases, in order; each lasts for an equal part of the requests.
pub(super) const PHASES: [Phase; 3] = [
    Phase { name: "all serve", weights: WEIGHTS, drained: None },
    Phase { name: "real2 drained", weights: without(DRAINED), drained: Some(DRAINED) },
    Phase { name: "real2 is back", weights: WEIGHTS, drained: None },
];

const fn without(real: usize) -> Weights {
    let mut weights = WEIGHTS;
    weights[real] = 0;
    weights
}

impl Phase {
    /// The part of new connections that each real should get.
    pub(super) fn expected(&self) -> [f64; REALS_COUNT] {
        let sum: u32 = self.weights.iter().sum();
        self.weights.map(|weight| f64::from(weight) / f64::from(sum))
    }
}

/// What the balancer has counted since its start, as of one moment.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) stats: Stats,
    pub(super) reals: [RealStats; REALS_COUNT],
}

impl Sample {
    fn take(service: &Service) -> Self {
        let real = |address| {
            let id = service.directory().id(&vip(), &IpAddr::V4(address));
            id.map_or_else(RealStats::default, |id| service.monitor().real(id))
        };
        let reals = REALS.each_ref().map(|known| real(known.address));
        Self { at: Instant::now(), stats: service.running().stats(), reals }
    }

    /// By real: the connections that it was chosen for since `earlier`.
    pub(super) fn opened_since(&self, earlier: &Self) -> [u64; REALS_COUNT] {
        std::array::from_fn(|real| self.reals[real].opened - earlier.reals[real].opened)
    }
}

/// What the balancer has done in a phase.
pub(super) struct PhaseOutcome {
    pub(super) phase: &'static Phase,
    pub(super) time: Duration,
    /// By real: connections that it was chosen for.
    pub(super) opened: [u64; REALS_COUNT],
}

/// What the balancer has done.
pub(super) struct Outcome {
    pub(super) phases: Vec<PhaseOutcome>,
    /// How the port came up.
    pub(super) status: Vec<(String, String)>,
    /// All that was counted, when the balancer had stopped.
    pub(super) stats: Stats,
}

/// Runs the balancer, on this thread's host, until the requests are over; says `go` when they can begin.
pub(super) fn run(
    load: &Load,
    go: Sender<()>,
    screen: &mut Screen,
    interrupted: &AtomicBool,
) -> Result<Outcome> {
    let mut service = Service::start(config(&WEIGHTS)?).context("starting the balancer")?;
    let mut status: Vec<_> = service.running().status().into_iter().flat_map(|port| port.facts).collect();
    // Queues come up in any order.
    status.sort();
    screen.facts("The balancer is up on eth0:", &status)?;
    // Where each phase starts, and at the end the end.
    let mut starts = vec![Sample::take(&service)];
    let mut last = starts[0].clone();
    // Where the client is gone already, the load is over.
    let _ = go.send(());

    for (number, phase) in (1..).zip(&PHASES) {
        if number > 1 {
            let before = Sample::take(&service);
            service.reload(config(&phase.weights)?).context("reloading the balancer")?;
            // What is opened while workers take the new weights counts for the phase in which all reals serve.
            starts.push(if phase.drained.is_some() { Sample::take(&service) } else { before });
        }
        load.drained(phase.drained);
        loop {
            let over = load.is_over();
            // The last state of all is to be seen, too.
            if screen.is_due() || over {
                let now = Sample::take(&service);
                screen.draw(&View {
                    number,
                    phase,
                    load,
                    status: &status,
                    starts: &starts,
                    last: &last,
                    now: &now,
                })?;
                last = now;
            }
            if over || has_ended(load, number) {
                break;
            }
            if interrupted.load(Ordering::Relaxed) {
                // What is under way still needs the balancer.
                load.stop();
            }
            if service.ended() {
                service.stop().context("the balancer has failed")?;
                bail!("the balancer has ended by itself");
            }
            service.follow(LOOK_EVERY)?;
        }
        load.drained(None);
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    starts.push(Sample::take(&service));
    let stats = service.stop().context("the balancer has failed")?;
    let phases = PHASES.iter().zip(starts.windows(2)).map(|(phase, samples)| PhaseOutcome {
        phase,
        time: samples[1].at - samples[0].at,
        opened: samples[1].opened_since(&samples[0]),
    });
    Ok(Outcome { phases: phases.collect(), status, stats })
}

/// Whether the requests of this phase and those before it have ended. The last phase ends with the load.
fn has_ended(load: &Load, number: u64) -> bool {
    let phases = PHASES.len() as u64;
    number < phases && u64::from(load.ended()) >= u64::from(load.requests) * number / phases
}
