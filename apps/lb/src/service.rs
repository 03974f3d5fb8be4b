//! The balancer at work: a configuration in force, on running workers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afx::control::interface::Interface;
use afx::control::resolver::{Resolution, Resolutions, Resolver};
use afx::packet::{MacAddress, Protocol as IpProtocol};
use afx::port::{AttachMode, Mode, ModeWanted, PortId, Protocol as SteeredProtocol, Rule, Steering, XdpPort};
use afx::stage::balancer::{
    Balancer, Definition, Directory, Forwarding, Hop, Monitor, Options, RealDefinition, Services, Settings,
    Vip,
};
use afx::{Idle, Running, Runtime, Stats};
use anyhow::{Context as _, Result, bail};

use crate::config::{self, Config};

/// How long the ways to the reals may take to be found before traffic is let in without them.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);

/// How long workers may take to pick up a configuration.
const CONFIGURE_WITHIN: Duration = Duration::from_secs(2);

/// A running balancer.
pub(crate) struct Service {
    running: Running,
    resolver: Resolver,
    directory: Directory,
    monitor: Monitor,
    config: Config,
    interfaces: Vec<Interface>,
    /// The last configuration published.
    published: Option<u64>,
    /// Routes or neighbours have changed, and workers do not know yet.
    outdated: bool,
}

impl Service {
    /// Starts balancing. Must be called in the network namespace whose interfaces are meant.
    pub(crate) fn start(config: Config) -> Result<Self> {
        let interfaces = config
            .ports
            .iter()
            .map(|port| Interface::find(&port.interface).with_context(|| format!("port {}", port.interface)))
            .collect::<Result<Vec<_>>>()?;
        let resolver = Resolver::start()?;
        let resolutions = resolve(&resolver, &config);
        let monitor = Monitor::new();
        let mut directory = Directory::new();
        let services = Arc::new(make_services(&mut directory, &config, &interfaces, &resolutions)?);
        let running = start(&config, services, &monitor)?;
        let service = Self {
            running,
            resolver,
            directory,
            monitor,
            config,
            interfaces,
            published: None,
            outdated: false,
        };
        service.report_unreachable(&resolutions);
        Ok(service)
    }

    /// Puts another configuration in force without losing flows. Where it cannot, nothing changes.
    pub(crate) fn reload(&mut self, config: Config) -> Result<()> {
        if let Some(section) = needs_restart(&self.config, &config) {
            bail!("a change of {section} takes a restart; nothing was changed");
        }
        let resolutions = resolve(&self.resolver, &config);
        // Steering first: it is what may fail, and the rules that stay are never away.
        if let Err(error) = self.steer(&config).and_then(|()| self.serve(&config, &resolutions)) {
            self.watch();
            self.outdated = true;
            return Err(match self.steer(&self.config) {
                Ok(()) => error.context("nothing was changed"),
                Err(back) => error.context(format!("the old steering could not be put back ({back:#})")),
            });
        }
        self.config = config;
        self.watch();
        self.report_unreachable(&resolutions);
        Ok(())
    }

    /// Waits up to `within` for routes or neighbours to change, and has workers follow them.
    pub(crate) fn follow(&mut self, within: Duration) -> Result<()> {
        self.release();
        match self.resolver.changes().recv_timeout(within) {
            Ok(()) => self.outdated = true,
            // The resolver's thread is gone: what is known stays.
            Err(error) if error.is_disconnected() => std::thread::sleep(within),
            Err(_) => {}
        }
        // Still so where workers could not be told the last time.
        if self.outdated {
            let resolutions = self.resolver.snapshot();
            self.interfaces = self
                .config
                .ports
                .iter()
                .zip(&self.interfaces)
                .map(|(port, old)| Interface::find(&port.interface).unwrap_or_else(|_| old.clone()))
                .collect();
            let config = self.config.clone();
            self.serve(&config, &resolutions)?;
            self.outdated = false;
            self.report_unreachable(&resolutions);
        }
        Ok(())
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

    /// Has workers balance by a configuration, and waits until they do.
    fn serve(&mut self, config: &Config, resolutions: &Resolutions) -> Result<()> {
        // On a copy: where workers cannot be told, their reals keep the identities that they have.
        let mut directory = self.directory.clone();
        let services = make_services(&mut directory, config, &self.interfaces, resolutions)?;
        let number = self.running.publish(Arc::new(services))?;
        self.directory = directory;
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
            self.directory.release(|id| monitor.real(id).connections > 0);
        }
    }

    fn steer(&self, config: &Config) -> Result<()> {
        let steering = steering(config)?;
        for port in &config.ports {
            self.running.steer(&port.interface, &steering)?;
        }
        Ok(())
    }

    fn watch(&self) {
        self.resolver.watch(addresses(&self.config));
    }

    fn report_unreachable(&self, resolutions: &Resolutions) {
        for address in unrouted(&self.config) {
            let why = match resolutions.get(&address) {
                Some(Resolution::Unresolved(why)) => why.to_string(),
                Some(Resolution::Resolved(hop)) if position(&self.interfaces, hop.interface).is_none() => {
                    "its route leads to an interface that has no [[port]]".to_owned()
                }
                _ => continue,
            };
            tracing::warn!(real = %address, "not reachable: {why}");
        }
    }
}

/// The section that cannot change while workers run, if one does.
fn needs_restart(old: &Config, new: &Config) -> Option<String> {
    config::diff(old, new).iter().find_map(|change| change.needs_restart().map(str::to_owned))
}

/// Looks for the ways to a configuration's reals, and those to the reals so far.
fn resolve(resolver: &Resolver, config: &Config) -> Arc<Resolutions> {
    let wanted = addresses(config);
    let needed = unrouted(config);
    let known = resolver.snapshot();
    resolver.watch(known.keys().copied().chain(wanted.iter().copied()));
    let deadline = Instant::now() + RESOLVE_WITHIN;
    loop {
        let resolutions = resolver.snapshot();
        let found = |address: &IpAddr| resolutions.get(address).is_some_and(|way| way.next_hop().is_some());
        if needed.iter().all(found) || Instant::now() > deadline {
            return resolutions;
        }
        let _ = resolver.changes().recv_timeout(Duration::from_millis(20));
    }
}

fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    config.vips.iter().flat_map(|vip| &vip.reals).map(|real| real.address).collect()
}

/// The reals whose next hop is not given: the kernel must know it.
fn unrouted(config: &Config) -> BTreeSet<IpAddr> {
    let reals = config.vips.iter().flat_map(|vip| &vip.reals);
    reals.filter(|real| real.next_hop.is_none()).map(|real| real.address).collect()
}

fn vip_of(vip: &config::Vip) -> Vip {
    let protocol = match vip.protocol {
        config::Protocol::Tcp => IpProtocol::TCP,
        config::Protocol::Udp => IpProtocol::UDP,
    };
    Vip { network: vip.network, port: vip.port, protocol }
}

fn make_services(
    directory: &mut Directory,
    config: &Config,
    interfaces: &[Interface],
    resolutions: &Resolutions,
) -> Result<Services> {
    let real = |real: &config::Real| RealDefinition::new(real.address, real.weight);
    let definitions: Vec<_> = config
        .vips
        .iter()
        .map(|vip| Definition::new(vip_of(vip), vip.reals.iter().map(real).collect()))
        .collect();
    let forwarding = match config.forwarding {
        config::Forwarding::Ipip { source_v4, source_v6 } => Forwarding::Ipip { source_v4, source_v6 },
        config::Forwarding::Gue { source_v4, source_v6, port } => {
            Forwarding::Gue { source_v4, source_v6, port }
        }
        config::Forwarding::L2Dsr => Forwarding::L2Dsr,
    };
    let given: BTreeMap<(Vip, IpAddr), MacAddress> = config
        .vips
        .iter()
        .flat_map(|vip| vip.reals.iter().map(move |real| (vip_of(vip), real)))
        .filter_map(|(vip, real)| Some(((vip, real.address), MacAddress(real.next_hop?.0))))
        .collect();
    let way = |vip: &Vip, real: &IpAddr| {
        hop(given.get(&(*vip, *real)).copied(), *real, interfaces, resolutions.get(real))
    };
    let Config { maglev, .. } = config;
    let settings = Settings { table_size: maglev.table_size, seed: maglev.seed, ..Settings::new(forwarding) };
    Ok(directory.services(&definitions, &settings, way)?)
}

/// The next hop to a real: the one given, or what the kernel says.
fn hop(
    given: Option<MacAddress>,
    real: IpAddr,
    interfaces: &[Interface],
    resolution: Option<&Resolution>,
) -> Option<Hop> {
    let kernel = resolution.and_then(Resolution::next_hop);
    let index = kernel.and_then(|hop| position(interfaces, hop.interface));
    match given {
        Some(destination_mac) => {
            // Where the kernel knows no way, the first port is as good as any: mostly there is one.
            let index = index.unwrap_or(0);
            let own = interfaces.get(index)?;
            let same_family = |address: &&IpAddr| address.is_ipv4() == real.is_ipv4();
            Some(Hop {
                port: PortId::new(index),
                source_mac: own.mac,
                destination_mac,
                source: own.addresses.iter().find(same_family).copied(),
                mtu: own.mtu,
            })
        }
        None => {
            let hop = kernel?;
            Some(Hop {
                port: PortId::new(index?),
                source_mac: MacAddress(hop.source_mac),
                destination_mac: MacAddress(hop.destination_mac),
                source: hop.source,
                mtu: hop.mtu,
            })
        }
    }
}

/// The port that has the interface of this index.
fn position(interfaces: &[Interface], index: u32) -> Option<usize> {
    interfaces.iter().position(|own| own.index == index)
}

fn steering(config: &Config) -> Result<Steering> {
    let rule = |vip: &config::Vip| {
        let protocol = match vip.protocol {
            config::Protocol::Tcp => SteeredProtocol::TCP,
            config::Protocol::Udp => SteeredProtocol::UDP,
        };
        Ok(Rule::new(vip.network, vip.port, Some(protocol))?)
    };
    Ok(Steering::Match(config.vips.iter().map(rule).collect::<Result<_>>()?))
}

fn start(config: &Config, services: Arc<Services>, monitor: &Monitor) -> Result<Running> {
    let mut builder = Runtime::builder().idle(match config.idle {
        config::Idle::Busy => Idle::Busy,
        config::Idle::Adaptive => Idle::ADAPTIVE,
    });
    builder = match &config.workers {
        config::Workers::Auto => builder,
        config::Workers::Count(count) => builder.workers(usize::from(count.get())),
        config::Workers::Cores(cores) => builder.cores(cores.iter().copied().map(usize::from)),
    };
    let steering = steering(config)?;
    for port in &config.ports {
        builder = builder.port(xdp_port(port, &steering));
    }
    let options = Options {
        capacity: config.connections.capacity,
        timeouts: config.connections.timeouts,
        hasher: None,
    };
    let monitor = monitor.clone();
    let pipeline = builder.pipeline(move |build| Balancer::new(build, &options, services.clone(), &monitor));
    Ok(pipeline.start()?)
}

fn xdp_port(port: &config::Port, steering: &Steering) -> XdpPort {
    let xdp = XdpPort::new(&port.interface, steering.clone())
        .mode(match port.mode {
            config::Mode::Auto => ModeWanted::Auto,
            config::Mode::ZeroCopy => ModeWanted::Demand(Mode::ZeroCopy),
            config::Mode::Copy => ModeWanted::Demand(Mode::Copy),
        })
        .attach_mode(match port.attach {
            config::Attach::Auto => AttachMode::Auto,
            config::Attach::Native => AttachMode::Native,
            config::Attach::Generic => AttachMode::Generic,
        });
    match port.queues {
        config::Queues::All => xdp,
        config::Queues::First(count) => xdp.queues(0..u32::from(count.get())),
    }
}
