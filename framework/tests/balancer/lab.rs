//! A balancer on a memory port, driven by hand.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use afx::packet::{MacAddress, Protocol};
use afx::stage::balancer::connections::Timeouts;
use afx::stage::balancer::maglev::TableSize;
use afx::stage::balancer::{
    Balancer, Decision, Definition, Directory, Forwarding, Hop, Monitor, Options, RealDefinition, RealState,
    Services, Settings, TooBig, Vip, VipOptions,
};
use afx::{Batch, Inline, MemoryPeer, MemoryPort, PortId, Runtime, Snapshot, Stage, Stats};
use ipnet::IpNet;

/// What a balancer is told, as a test puts it down.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) vips: Vec<Served>,
    pub(crate) forwarding: Forwarding,
    pub(crate) table_size: u32,
    pub(crate) seed: u64,
    pub(crate) too_big: TooBig,
    pub(crate) client_mtu: Option<u32>,
    pub(crate) decapsulate: Vec<IpAddr>,
}

/// A VIP and its reals.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) vip: Vip,
    pub(crate) options: VipOptions,
    pub(crate) reals: Vec<Real>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Real {
    pub(crate) address: IpAddr,
    pub(crate) weight: u32,
    /// The longest IP packet on the way there; no way if none.
    pub(crate) mtu: Option<u32>,
    pub(crate) state: RealState,
    pub(crate) sources: Vec<IpNet>,
    pub(crate) server_ids: Vec<u32>,
}

impl Real {
    pub(crate) fn new(address: &str) -> Self {
        Self::at(address.parse().unwrap())
    }

    pub(crate) fn at(address: IpAddr) -> Self {
        let (state, sources, server_ids) = Default::default();
        Self { address, weight: 1, mtu: Some(1500), state, sources, server_ids }
    }

    pub(crate) fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    pub(crate) fn source(mut self, network: &str) -> Self {
        self.sources.push(network.parse().unwrap());
        self
    }

    pub(crate) fn server_id(mut self, id: u32) -> Self {
        self.server_ids.push(id);
        self
    }

    fn definition(&self) -> RealDefinition {
        let Self { address, weight, state, .. } = *self;
        RealDefinition {
            address,
            weight,
            state,
            sources: self.sources.clone(),
            server_ids: self.server_ids.clone(),
        }
    }
}

/// The balancer's own addresses.
pub(crate) const OWN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xfe]);
pub(crate) const OWN_V4: &str = "10.0.0.2";
pub(crate) const OWN_V6: &str = "fd00::2";

/// The MAC address of a real's next hop.
pub(crate) fn mac_of(real: &IpAddr) -> MacAddress {
    let [a, b, c] = match real {
        IpAddr::V4(address) => *address.octets().last_chunk().unwrap(),
        IpAddr::V6(address) => *address.octets().last_chunk().unwrap(),
    };
    MacAddress([2, if real.is_ipv4() { 4 } else { 6 }, 0, a, b, c])
}

pub(crate) fn vip(text: &str, protocol: Protocol) -> Vip {
    let address: std::net::SocketAddr = text.parse().unwrap();
    Vip::host(address.ip(), address.port(), protocol)
}

pub(crate) const IPIP: Forwarding = Forwarding::Ipip { source_v4: None, source_v6: None };

impl Setup {
    pub(crate) fn new(vips: impl IntoIterator<Item = (Vip, Vec<Real>)>) -> Self {
        let served = |(vip, reals)| Served { vip, options: VipOptions::default(), reals };
        Self {
            vips: vips.into_iter().map(served).collect(),
            forwarding: IPIP,
            table_size: 251,
            seed: 7,
            too_big: TooBig::default(),
            client_mtu: None,
            decapsulate: Vec::new(),
        }
    }

    /// The same with these options for all VIPs.
    pub(crate) fn options(mut self, options: VipOptions) -> Self {
        self.vips.iter_mut().for_each(|served| served.options = options);
        self
    }

    pub(crate) fn services(&self, directory: &mut Directory) -> Services {
        let definition = |served: &Served| Definition {
            vip: served.vip,
            options: served.options,
            reals: served.reals.iter().map(Real::definition).collect(),
        };
        let definitions: Vec<_> = self.vips.iter().map(definition).collect();
        let way = |vip: &Vip, address: &IpAddr| {
            let reals = &self.vips.iter().find(|served| served.vip == *vip)?.reals;
            let mtu = reals.iter().find(|real| real.address == *address)?.mtu?;
            let own = if address.is_ipv4() { OWN_V4 } else { OWN_V6 };
            Some(Hop {
                port: PortId::new(0),
                source_mac: OWN_MAC,
                destination_mac: mac_of(address),
                source: own.parse().ok(),
                mtu,
            })
        };
        let settings = Settings {
            forwarding: self.forwarding,
            table_size: TableSize::new(self.table_size).unwrap(),
            seed: self.seed,
            too_big: self.too_big,
            client_mtu: self.client_mtu,
            decapsulate: self.decapsulate.clone(),
        };
        directory.services(&definitions, &settings, way).unwrap()
    }
}

/// Timeouts that nothing in a test outlasts.
pub(crate) fn options(capacity: usize) -> Options {
    let hour = Duration::from_secs(60 * 60);
    let timeouts = Timeouts { opening: hour, established: hour, closing: hour, datagram: hour };
    Options { capacity, timeouts, hasher: None }
}

/// A balancer whose decisions on each packet are written down.
pub(crate) struct Watched {
    pub(crate) balancer: Balancer,
    decisions: Vec<Option<Decision>>,
}

impl Stage for Watched {
    fn process(&mut self, batch: &mut Batch) {
        let came = batch.live();
        self.balancer.process(batch);
        self.decisions.extend(came.map(|slot| self.balancer.decision(slot)));
    }
    fn tick(&mut self, batch: &mut Batch) {
        self.balancer.tick(batch);
    }
    fn configure(&mut self, snapshot: &Snapshot) {
        self.balancer.configure(snapshot);
    }
    fn drain(&mut self, batch: &mut Batch) -> bool {
        self.balancer.drain(batch)
    }
    fn creates(&self) -> usize {
        self.balancer.creates()
    }
}

/// One worker with a balancer, its port's other end, and the control side's book.
pub(crate) struct Lab {
    pub(crate) worker: Inline<Watched>,
    pub(crate) peer: MemoryPeer,
    pub(crate) directory: Directory,
    pub(crate) monitor: Monitor,
    /// What is in force.
    pub(crate) services: Arc<Services>,
}

/// What flows are hashed with.
pub(crate) const HASH_SEED: u64 = 99;

impl Lab {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self::with_capacity(setup, 4096)
    }

    pub(crate) fn with_capacity(setup: &Setup, capacity: usize) -> Self {
        let (port, mut peers) = MemoryPort::with_queues("port", 1, 256);
        let mut directory = Directory::new();
        let services = Arc::new(setup.services(&mut directory));
        let monitor = Monitor::new();
        let (options, first, counted) = (options(capacity), services.clone(), monitor.clone());
        let pipeline = Runtime::builder().port(port).frames_per_queue(1024).hash_seed(HASH_SEED).pipeline(
            move |build| Watched {
                balancer: Balancer::new(build, &options, first.clone(), &counted),
                decisions: Vec::new(),
            },
        );
        let mut worker = pipeline.inline().unwrap();
        worker.turn();
        Self { worker, peer: peers.remove(0), directory, monitor, services }
    }

    pub(crate) fn reload(&mut self, setup: &Setup) {
        self.services = Arc::new(setup.services(&mut self.directory));
        self.worker.configure(self.services.clone());
    }

    /// Sends packets to the balancer, up to 64 of them at a time, and returns what comes out.
    pub(crate) fn exchange<P: AsRef<[u8]>>(&mut self, packets: impl IntoIterator<Item = P>) -> Vec<Vec<u8>> {
        self.worker.pipeline().decisions.clear();
        let mut out = Vec::new();
        let mut waiting = 0;
        for packet in packets {
            assert!(self.peer.send(packet.as_ref()), "the port takes 64 packets");
            waiting += 1;
            if waiting == 64 {
                self.collect(&mut out);
                waiting = 0;
            }
        }
        self.collect(&mut out);
        out
    }

    /// What was made of each packet of the last exchange.
    pub(crate) fn decisions(&mut self) -> Vec<Option<Decision>> {
        self.worker.pipeline().decisions.clone()
    }

    fn collect(&mut self, out: &mut Vec<Vec<u8>>) {
        while self.worker.turn() > 0 {}
        out.extend(std::iter::from_fn(|| self.peer.receive()));
        // Takes back what was sent.
        self.worker.turn();
    }

    /// Ends, and returns the counts, which add up: what was made beside what came are answers.
    pub(crate) fn finish(mut self) -> Stats {
        self.worker.drain();
        let stats = self.worker.stats();
        assert!(stats.balanced(), "{:?}", stats.workers[0].ledger);
        let answers = self.monitor.work().too_big_answers;
        assert_eq!(stats.received() + answers, stats.sent() + stats.dropped_total(), "{:?}", stats.drops());
        stats
    }
}
