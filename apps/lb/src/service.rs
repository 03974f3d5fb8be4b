//! The balancer at work: a configuration in force, on running workers.
//!
//! [`Service`] is driven by its owner's loop, which waits for [changes](Service::resolver_changes) and
//! [events](Service::health_events) and calls [`Service::turn`].

mod checks;
pub(crate) mod plan;
mod standing;
mod totals;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afx::control::health::{self, Checker, Event};
use afx::control::interface::Interface;
use afx::control::privileges::with_only;
use afx::control::resolver::{Resolutions, Resolver};
use afx::packet::HashSeed;
use afx::stage::balancer::{
    Balancer, Definition, Directory, Hop, Monitor, RealState, RealStats, Services, Vip,
};
use afx::{Running, Stats};
use anyhow::{Result, bail};
use crossbeam::channel::{Receiver, select};

use crate::config::{self, Change, Config};
use crate::privileges::{self, Kept};
pub(crate) use standing::{RealKey, Standing, Standings};
use totals::Totals;

/// What the health checks have found, by real.
pub(crate) type Health = BTreeMap<RealKey, health::Status<RealKey>>;

/// How long workers may take to pick up a configuration.
const CONFIGURE_WITHIN: Duration = Duration::from_secs(2);

/// How long workers that could not be told of a change are left alone.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A running balancer.
pub(crate) struct Service {
    running: Running,
    resolver: Resolver,
    checker: Checker<RealKey>,
    directory: Directory,
    monitor: Monitor,
    totals: Totals,
    config: Config,
    standings: Standings,
    interfaces: Vec<Interface>,
    /// The indices of the interfaces that ports are attached to.
    attached: Vec<u32>,
    /// What workers are to know.
    services: Arc<Services>,
    /// What flows are hashed with.
    hash_seed: u64,
    /// The last configuration published.
    published: Option<u64>,
    /// Something has changed that workers do not know yet.
    outdated: bool,
    /// When to try again to tell workers, where they could not be told.
    retry: Option<Instant>,
    /// When something will have changed without anybody's doing.
    next_change: Option<Instant>,
    /// What the log has said of reals that cannot be reached.
    unreachable: BTreeSet<String>,
}

impl Service {
    /// Starts balancing. Must be called in the network namespace whose interfaces are meant.
    pub(crate) fn start(config: Config) -> Result<Self> {
        let interfaces = ways::interfaces(&config)?;
        let resolver = Resolver::start()?;
        let kept = Kept::of(&config);
        let checker = match kept {
            None => Checker::start()?,
            Some(kept) => {
                let (checker, given_up) = with_only(kept.checker, Checker::start);
                privileges::report(given_up);
                checker?
            }
        };
        checker.set(checks::targets(&config))?;
        let resolutions = ways::resolve(&resolver, &config);
        let monitor = Monitor::new();
        let mut directory = Directory::new();
        let now = Instant::now();
        let standings = Standings::at_start(&config, now);
        let services = services(&mut directory, &config, &standings, &interfaces, &resolutions, now)?;
        let services = Arc::new(services);
        let hash_seed = RandomState::new().hash_one(());
        let running = start(&config, services.clone(), &monitor, hash_seed)?;
        let mut totals = Totals::default();
        totals.follow(&directory);
        let mut service = Self {
            running,
            resolver,
            checker,
            directory,
            monitor,
            totals,
            next_change: standings.next_change(&config, now),
            config,
            standings,
            attached: interfaces.iter().map(|interface| interface.index).collect(),
            interfaces,
            services,
            hash_seed,
            published: None,
            outdated: false,
            retry: None,
            unreachable: BTreeSet::new(),
        };
        service.report_unreachable(&resolutions);
        Ok(service)
    }

    /// Puts another configuration in force without losing flows, and says what that has changed. Where it cannot,
    /// nothing changes.
    pub(crate) fn reload(&mut self, config: Config) -> Result<Vec<Change>> {
        let changes = config::diff(&self.config, &config);
        if let Some(section) = changes.iter().find_map(Change::needs_restart) {
            bail!("a change of {section} takes a restart; nothing was changed");
        }
        let resolutions = ways::resolve(&self.resolver, &config);
        // Changes that were heard of meanwhile are in there.
        self.interfaces = ways::refreshed(&self.config, &self.interfaces);
        let now = Instant::now();
        let standings = self.standings.after(&config, now);
        // Steering first: it is what may fail, and the rules that stay are never away.
        let done = self
            .steer(&config)
            .and_then(|()| Ok(self.checker.set(checks::targets(&config))?))
            .and_then(|()| self.serve(&config, &standings, &resolutions, now));
        if let Err(error) = done {
            self.resolver.watch(ways::addresses(&self.config));
            self.outdated = true;
            let back = self
                .steer(&self.config)
                .and_then(|()| Ok(self.checker.set(checks::targets(&self.config))?));
            return Err(match back {
                Ok(()) => error.context("nothing was changed"),
                Err(back) => {
                    error.context(format!("what was in force could not be put back whole ({back:#})"))
                }
            });
        }
        self.config = config;
        self.standings = standings;
        self.next_change = self.standings.next_change(&self.config, now);
        self.resolver.watch(ways::addresses(&self.config));
        self.report_unreachable(&resolutions);
        Ok(changes)
    }

    /// Receives a message when routes or neighbours have changed: then [`turn`](Self::turn) is to be called.
    pub(crate) fn resolver_changes(&self) -> &Receiver<()> {
        self.resolver.changes()
    }

    /// Receives what health checks find; for [`checked`](Self::checked).
    pub(crate) fn health_events(&self) -> &Receiver<Event<RealKey>> {
        self.checker.events()
    }

    /// Routes or neighbours have changed.
    pub(crate) fn rerouted(&mut self) {
        self.outdated = true;
    }

    /// A health check has found something.
    pub(crate) fn checked(&mut self, event: &Event<RealKey>) {
        let (vip, real) = &event.key;
        if !self.standings.health(&event.key, event.to, Instant::now()) {
            return;
        }
        match (event.to, &event.why) {
            (health::State::Down, why) => {
                let why = why.as_deref().unwrap_or("its check failed");
                tracing::warn!(%vip, %real, "down: {why}");
            }
            (to, _) => tracing::info!(%vip, %real, "{}", health_word(to)),
        }
        self.outdated = true;
    }

    /// How long [`turn`](Self::turn) may be put off, but not longer than `most`.
    pub(crate) fn patience(&self, most: Duration) -> Duration {
        if self.outdated {
            return self
                .retry
                .map_or(Duration::ZERO, |retry| most.min(retry.saturating_duration_since(Instant::now())));
        }
        self.next_change.map_or(most, |next| most.min(next.saturating_duration_since(Instant::now())))
    }

    /// Does what has become due: tells workers what has changed, and lets go of what no worker holds any more.
    pub(crate) fn turn(&mut self) -> Result<()> {
        self.release();
        let now = Instant::now();
        if !self.outdated && self.next_change.is_none_or(|next| next > now) {
            return Ok(());
        }
        if self.retry.is_some_and(|retry| retry > now) {
            return Ok(());
        }
        self.outdated = true;
        // Until it has gone well: workers that are too busy to be told get some time.
        self.retry = Some(now + RETRY_AFTER);
        let resolutions = self.resolver.snapshot();
        self.interfaces = ways::refreshed(&self.config, &self.interfaces);
        let (config, standings) = (self.config.clone(), self.standings.clone());
        self.serve(&config, &standings, &resolutions, now)?;
        (self.outdated, self.retry) = (false, None);
        self.next_change = self.standings.next_change(&self.config, now);
        self.report_unreachable(&resolutions);
        Ok(())
    }

    /// Waits up to `within` for something to happen, and has workers follow it.
    pub(crate) fn follow(&mut self, within: Duration) -> Result<()> {
        let (changes, events) = (self.resolver.changes().clone(), self.checker.events().clone());
        select! {
            recv(changes) -> change => match change {
                Ok(()) => self.rerouted(),
                // The resolver's thread is gone: what is known stays.
                Err(_) => std::thread::sleep(within),
            },
            recv(events) -> event => match event {
                Ok(event) => self.checked(&event),
                Err(_) => std::thread::sleep(within),
            },
            default(self.patience(within)) => {}
        }
        self.turn()
    }

    /// Whether the workers have ended by themselves.
    pub(crate) fn ended(&self) -> bool {
        self.running.ended()
    }

    /// Keeps further traffic out, has what is queued finished, and takes everything down.
    pub(crate) fn stop(self) -> Result<Stats> {
        Ok(self.running.stop()?)
    }

    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    pub(crate) fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// How many reals get new flows, and how many there are.
    pub(crate) fn reals(&self) -> (usize, usize) {
        let now = Instant::now();
        let resolutions = self.resolver.snapshot();
        let reals = || self.config.vips.iter().flat_map(|vip| vip.reals.iter().map(move |real| (vip, real)));
        let serving = reals().filter(|(vip, real)| {
            let chosen = real.weight > 0 || !real.sources.is_empty() || !real.server_ids.is_empty();
            chosen
                && self.standings.now(vip, real, now).0 == RealState::Up
                && ways::hop(&self.config, real, &self.interfaces, &resolutions).is_some()
        });
        (serving.count(), reals().count())
    }

    /// How the reals stand.
    pub(crate) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// The state of each real now.
    pub(crate) fn states(&self) -> BTreeMap<(Vip, IpAddr), RealState> {
        let now = Instant::now();
        let of_vip = |vip: &config::Vip| -> Vec<_> {
            let state = |real: &config::Real| {
                ((plan::vip_of(vip), real.address), self.standings.now(vip, real, now).0)
            };
            vip.reals.iter().map(state).collect()
        };
        self.config.vips.iter().flat_map(of_vip).collect()
    }

    /// What the health checks have found.
    pub(crate) fn health(&self) -> Health {
        self.checker.states().into_iter().map(|status| (status.key, status)).collect()
    }

    /// What each VIP has had in all; it never falls, whatever reals come and go.
    pub(crate) fn totals(&self) -> BTreeMap<Vip, RealStats> {
        self.totals.all(&self.monitor)
    }

    /// What workers know, or are about to.
    pub(crate) fn services(&self) -> Arc<Services> {
        self.services.clone()
    }

    /// What flows are hashed with.
    pub(crate) fn hash_seed(&self) -> HashSeed {
        HashSeed(self.hash_seed)
    }

    /// Where a real's packets are sent.
    pub(crate) fn hop(&self, real: &config::Real) -> Option<Hop> {
        ways::hop(&self.config, real, &self.interfaces, &self.resolver.snapshot())
    }

    /// Why a real's packets cannot be sent, where they cannot.
    pub(crate) fn obstacle(&self, real: &config::Real) -> Option<String> {
        ways::obstacle(&self.config, real, &self.interfaces, &self.resolver.snapshot())
    }

    /// What an operator should know of, in sentences.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = self.obstacles(&self.resolver.snapshot()).into_iter().collect();
        let now = Instant::now();
        for vip in self.config.vips.iter().filter(|vip| !vip.reals.is_empty()) {
            let is_up = |real| self.standings.now(vip, real, now).0 == RealState::Up;
            if !vip.reals.iter().any(is_up) {
                warnings.push(format!("the VIP {} has no real that takes new flows", vip.key()));
            }
        }
        warnings
    }

    /// Sets when a real's drain ends. Whether that changed anything: not where the real is not draining.
    pub(crate) fn set_deadline(&mut self, real: &RealKey, deadline: Option<Instant>) -> bool {
        let changed = self.standings.set_deadline(real, deadline);
        if changed {
            self.next_change = self.standings.next_change(&self.config, Instant::now());
        }
        changed
    }

    /// Has workers balance by a configuration, and waits until they do.
    fn serve(
        &mut self,
        config: &Config,
        standings: &Standings,
        resolutions: &Resolutions,
        now: Instant,
    ) -> Result<()> {
        // On a copy: where workers cannot be told, their reals keep the identities that they have.
        let mut directory = self.directory.clone();
        let services = services(&mut directory, config, standings, &self.interfaces, resolutions, now)?;
        let services = Arc::new(services);
        let number = self.running.publish(services.clone())?;
        self.directory = directory;
        self.services = services;
        self.totals.follow(&self.directory);
        let deadline = Instant::now() + CONFIGURE_WITHIN;
        while !self.running.configured(number) && !self.running.ended() {
            if Instant::now() > deadline {
                tracing::warn!("a worker has not taken the configuration yet: is it stalled?");
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.published = Some(number);
        Ok(())
    }

    /// Lets identities go that no worker can hold any more.
    fn release(&mut self) {
        if self.published.is_some_and(|number| self.running.configured(number)) {
            let monitor = &self.monitor;
            let gone = self.directory.release(|id| monitor.real(id).connections > 0);
            self.totals.settle(gone, monitor);
        }
    }

    fn steer(&self, config: &Config) -> Result<()> {
        let steering = plan::steering(config)?;
        for port in &config.ports {
            self.running.steer(&port.interface, &steering)?;
        }
        Ok(())
    }

    /// What keeps packets from coming or from going to reals, in sentences.
    fn obstacles(&self, resolutions: &Resolutions) -> BTreeSet<String> {
        let reals = self.config.vips.iter().flat_map(|vip| &vip.reals);
        let unreachable = reals.filter_map(|real| {
            let why = ways::obstacle(&self.config, real, &self.interfaces, resolutions)?;
            Some(format!("the real {} is not reachable: {why}", real.address))
        });
        let gone = self.config.ports.iter().zip(&self.attached).filter_map(|(port, index)| {
            // One that is there again under its name is another one.
            let is_there = Interface::find(&port.interface).is_ok_and(|now| now.index == *index);
            let what = "is gone: nothing comes in by it until afx-lb is started anew";
            (!is_there).then(|| format!("the interface {} {what}", port.interface))
        });
        unreachable.chain(gone).collect()
    }

    /// Has the log say what keeps packets from reals, where it has not yet.
    fn report_unreachable(&mut self, resolutions: &Resolutions) {
        let obstacles = self.obstacles(resolutions);
        for obstacle in obstacles.difference(&self.unreachable) {
            tracing::warn!("{obstacle}");
        }
        self.unreachable = obstacles;
    }
}

fn health_word(state: health::State) -> &'static str {
    match state {
        health::State::Up => "up",
        health::State::Down => "down",
        health::State::Unknown => "not checked yet",
    }
}

/// What workers are to know.
fn services(
    directory: &mut Directory,
    config: &Config,
    standings: &Standings,
    interfaces: &[Interface],
    resolutions: &Resolutions,
    now: Instant,
) -> Result<Services> {
    let definition = |vip: &config::Vip| plan::definition(vip, |real| standings.now(vip, real, now));
    let definitions: Vec<Definition> = config.vips.iter().map(definition).collect();
    let reals = config.vips.iter().flat_map(|vip| {
        let name = plan::vip_of(vip);
        vip.reals.iter().map(move |real| ((name, real.address), real))
    });
    let reals: BTreeMap<_, _> = reals.collect();
    let way =
        |vip: &Vip, real: &IpAddr| ways::hop(config, reals.get(&(*vip, *real))?, interfaces, resolutions);
    Ok(directory.services(&definitions, &plan::settings(config), way)?)
}

fn start(config: &Config, services: Arc<Services>, monitor: &Monitor, hash_seed: u64) -> Result<Running> {
    let (options, monitor) = (plan::options(config), monitor.clone());
    let mut builder = plan::runtime(config)?.hash_seed(hash_seed);
    if let Some(kept) = Kept::of(config) {
        builder = builder.on_ready(move |_worker| privileges::keep(kept.worker));
    }
    let pipeline = builder.pipeline(move |build| Balancer::new(build, &options, services.clone(), &monitor));
    Ok(pipeline.start()?)
}
