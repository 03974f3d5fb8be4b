//! What a configuration means to the framework: ports, steering, and what the balancer is told of all VIPs.

use afx::packet::Protocol as IpProtocol;
use afx::port::{
    AttachMode, Coexist, Mode, ModeWanted, MultiBuffer, Protocol as SteeredProtocol, Rule, Steering, XdpPort,
};
use afx::settings::Want;
use afx::stage::balancer::{
    Definition, Forwarding, Fragments, HashOn, Options, RealDefinition, RealState, ServerIdIn, Settings,
    TooBig, Vip, VipOptions,
};
use afx::{HugePages, Idle, Runtime, RuntimeBuilder};
use anyhow::Result;
use ipnet::IpNet;

use crate::config::{self, Config};

/// The packets that the balancer wants: of its VIPs, pings that it answers, and tunnels that it takes apart. What is sent
/// to a VIP and might be anything is dropped by the balancer rather than left to a stack that does not have the VIP.
pub(crate) fn steering(config: &Config) -> Result<Steering> {
    let mut rules = Vec::new();
    for vip in &config.vips {
        rules.push(Rule::new(vip.network, vip.port, Some(SteeredProtocol(vip_of(vip).protocol.0)))?);
        rules.push(Rule::flowless(vip.network));
        if vip.ping {
            let icmp =
                if vip.network.addr().is_ipv4() { SteeredProtocol::ICMP } else { SteeredProtocol::ICMPV6 };
            rules.push(Rule::new(vip.network, None, Some(icmp))?);
        }
    }
    for address in &config.decapsulate {
        for protocol in [IpProtocol::IPV4, IpProtocol::IPV6] {
            rules.push(Rule::new(IpNet::from(*address), None, Some(SteeredProtocol(protocol.0)))?);
        }
        rules.push(Rule::new(
            IpNet::from(*address),
            Some(settings(config).forwarding.gue_port()),
            Some(SteeredProtocol::UDP),
        )?);
    }
    // VIPs of one address ask for the same, in part.
    rules.sort_unstable();
    rules.dedup();
    Ok(Steering::Match(rules))
}

/// A runtime with the configuration's ports and workers; what is missing is its pipeline.
pub(crate) fn runtime(config: &Config) -> Result<RuntimeBuilder> {
    let mut builder = Runtime::builder().idle(match config.idle {
        config::Idle::Busy => Idle::Busy,
        config::Idle::Adaptive => Idle::ADAPTIVE,
    });
    builder = builder.huge_pages(match config.huge_pages {
        config::HugePages::Auto => HugePages::Auto,
        config::HugePages::Required => HugePages::Demand,
    });
    builder = match &config.workers {
        config::Workers::Auto => builder,
        config::Workers::Count(count) => builder.workers(usize::from(count.get())),
        config::Workers::Cores(cores) => builder.cores(cores.iter().copied().map(usize::from)),
    };
    let steering = steering(config)?;
    for port in &config.ports {
        builder = builder.port(xdp_port(port, config.idle, &steering));
    }
    Ok(builder)
}

fn xdp_port(port: &config::Port, idle: config::Idle, steering: &Steering) -> XdpPort {
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
        })
        .multi_buffer(multi_buffer(port))
        .coexist(match port.coexist {
            config::Coexist::Refuse => Coexist::Refuse,
            config::Coexist::Replace => Coexist::Replace,
            config::Coexist::Chain => Coexist::Chain,
        });
    let xdp = xdp.settings(settings_of(port, idle));
    match port.queues {
        config::Queues::All => xdp,
        config::Queues::First(count) => xdp.queues(0..u32::from(count.get())),
    }
}

/// Bytes of a frame of packet memory, where no card needs larger ones.
pub(crate) const FRAME_SIZE: usize = 2048;

/// Whether a port takes packets longer than a frame.
pub(crate) fn multi_buffer(port: &config::Port) -> MultiBuffer {
    match port.multi_buffer {
        config::MultiBuffer::Auto => MultiBuffer::Auto,
        config::MultiBuffer::On => MultiBuffer::On,
        config::MultiBuffer::Off => MultiBuffer::Off,
    }
}

/// Which settings of the interface are to be changed.
pub(crate) fn settings_of(port: &config::Port, idle: config::Idle) -> afx::settings::Settings {
    let want = |want: &config::Want| match want {
        config::Want::Off => Want::Off,
        config::Want::Auto => Want::Auto,
        config::Want::Required => Want::Required,
    };
    let config::Settings { channels, spread, rss_key, interrupts, defer } = &port.settings;
    // A worker that sleeps is woken by interrupts.
    let is_off = *defer == config::Want::Auto && idle == config::Idle::Adaptive;
    let mut settings = afx::settings::Settings::new()
        .spread(want(spread))
        .interrupts(want(interrupts))
        .defer(if is_off { Want::Off } else { want(defer) });
    if let Some(count) = channels {
        settings = settings.channels(u32::from(count.get()));
    }
    if let Some(key) = rss_key {
        settings = settings.rss_key(key.bytes());
    }
    settings
}

/// What balancers are made with.
pub(crate) fn options(config: &Config) -> Options {
    Options { capacity: config.connections.capacity, timeouts: config.connections.timeouts, hasher: None }
}

/// What is true of all VIPs.
pub(crate) fn settings(config: &Config) -> Settings {
    let forwarding = match config.forwarding {
        config::Forwarding::Ipip { source_v4, source_v6 } => Forwarding::Ipip { source_v4, source_v6 },
        config::Forwarding::Gue { source_v4, source_v6, port } => {
            Forwarding::Gue { source_v4, source_v6, port }
        }
        config::Forwarding::L2Dsr => Forwarding::L2Dsr,
    };
    Settings {
        table_size: config.maglev.table_size,
        seed: config.maglev.seed,
        too_big: TooBig { answer: config.icmp.too_big, per_second: config.icmp.per_second },
        client_mtu: config.client_mtu,
        decapsulate: config.decapsulate.clone(),
        ..Settings::new(forwarding)
    }
}

/// The VIP, as the balancer knows it.
pub(crate) fn vip_of(vip: &config::Vip) -> Vip {
    let protocol = match vip.protocol {
        config::Protocol::Tcp => IpProtocol::TCP,
        config::Protocol::Udp => IpProtocol::UDP,
    };
    Vip { network: vip.network, port: vip.port, protocol }
}

/// A VIP with its reals, of each of which `standing` says the state and the weight at present.
pub(crate) fn definition(
    vip: &config::Vip,
    mut standing: impl FnMut(&config::Real) -> (RealState, u32),
) -> Definition {
    let options = VipOptions {
        hash: match vip.hash {
            config::HashOn::FiveTuple => HashOn::FiveTuple,
            config::HashOn::Source => HashOn::Source,
            config::HashOn::DestinationPort => HashOn::DestinationPort,
        },
        server_id: match vip.server_id {
            config::ServerIdIn::None => None,
            config::ServerIdIn::Quic => Some(ServerIdIn::Quic),
            config::ServerIdIn::TcpOption => Some(ServerIdIn::TcpOption),
            config::ServerIdIn::UdpHeader => Some(ServerIdIn::UdpHeader),
        },
        answer_echo: vip.ping,
        fragments: match vip.fragments {
            config::Fragments::Drop => Fragments::Drop,
            config::Fragments::Together => Fragments::Together,
        },
        udp_leaves_down: vip.udp_leaves_down,
    };
    let reals = vip.reals.iter().map(|real| {
        let (state, weight) = standing(real);
        RealDefinition {
            address: real.address,
            weight,
            state,
            sources: real.sources.clone(),
            server_ids: real.server_ids.clone(),
        }
    });
    Definition { vip: vip_of(vip), options, reals: reals.collect() }
}
