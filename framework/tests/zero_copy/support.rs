//! What the tests share: hosts at a cable's ends, traffic from the far end, and what must hold in the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use afx::port::{Mode, ModeWanted, PortId, Steering, XdpPort};
use afx::{Batch, Idle, Running, Runtime, RuntimeBuilder, Stage, Stats};
use afx_testbed::{Host, Testbed, wait_for};

use crate::cable::{Cable, End, wait_for_link};
use crate::pump::{Plan, Progress, Pump};

/// How long to wait for what happens soon: the guest is slow, and its host may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Sends every packet back.
pub(crate) struct Mirror;

impl Stage for Mirror {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.swap_mac_addresses();
            packet.transmit(packet.ingress());
        }
    }
}

/// Sends what comes in on one of two ports out of the other.
pub(crate) struct Across;

impl Stage for Across {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.transmit(PortId::new(1 - packet.ingress().index()));
        }
    }
}

/// Two hosts: traffic comes from the far one, and the near one is what is tested.
pub(crate) struct Hosts {
    pub(crate) net: Testbed,
    pub(crate) near: Host,
    pub(crate) far: Host,
}

impl Hosts {
    pub(crate) fn new(name: &str) -> Self {
        let net = Testbed::new(name).unwrap();
        let (near, far) = (net.host("near").unwrap(), net.host("far").unwrap());
        Self { net, near, far }
    }

    /// Joins them by a cable; its ends have the same name.
    pub(crate) fn join(&self, cable: Cable, name: &str) {
        cable.plug(End::Near, &self.near, name);
        cable.plug(End::Far, &self.far, name);
        wait_for_link(&self.near, name);
        wait_for_link(&self.far, name);
    }

    /// Starts a runtime on the near host, on the first core unless it has workers for both.
    pub(crate) fn start<S: Stage + 'static>(
        &self,
        builder: impl FnOnce() -> RuntimeBuilder + Send,
        stage: fn() -> S,
    ) -> afx::Result<Running> {
        self.near.run(|| builder().pipeline(move |_| stage()).start()).unwrap()
    }

    /// Starts traffic on the far host: out of the first port, back on any of them.
    pub(crate) fn pump(&self, ports: &[&str], mode: ModeWanted, cable: Cable, plan: Plan) -> Traffic {
        let progress = Arc::new(Progress::default());
        let (shared, out) = (progress.clone(), ports[0].to_owned());
        let make = || {
            let port = |name: &&str| XdpPort::new(name, Steering::All).mode(mode).stall_limit(None);
            let builder = ports.iter().map(port).fold(Runtime::builder(), RuntimeBuilder::port);
            let builder = builder.workers(1).cores([1]).tick(Duration::from_micros(200));
            builder.pipeline(move |build| Pump::new(build, plan, &out, cable, shared.clone())).start()
        };
        let running = self.far.run(make).unwrap().unwrap();
        progress.go();
        Traffic { running, progress, plan }
    }
}

/// Traffic under way.
pub(crate) struct Traffic {
    running: Running,
    progress: Arc<Progress>,
    plan: Plan,
}

impl Traffic {
    /// Waits until so many packets more have come back.
    pub(crate) fn wait_for_more(&self, packets: u64) {
        self.wait_until(self.returned() + packets);
    }

    pub(crate) fn returned(&self) -> u64 {
        self.progress.returned()
    }

    /// How it stands, where a test fails.
    pub(crate) fn describe(&self) -> String {
        let (sent, returned, wrong) = (self.progress.sent(), self.returned(), self.progress.wrong());
        format!(
            "{sent} sent, {returned} came back, {wrong} wrong; {:?}; {:?}; {:?}",
            self.running.stats().workers,
            self.running.status(),
            self.running.redirect_counters("eth0"),
        )
    }

    fn wait_until(&self, returned: u64) {
        // As long as packets come back at all, there is hope.
        let mut last = self.returned();
        while last < returned {
            let moved = wait_for("packets that come back", PATIENCE, || self.returned() > last);
            assert!(moved.is_ok(), "{last} of {returned} came back: {}", self.describe());
            std::thread::sleep(Duration::from_millis(5));
            last = self.returned();
        }
    }

    /// Waits for all of the plan's packets, each of which must have come back once and whole; then ends.
    pub(crate) fn finish(self) {
        self.wait_until(self.plan.packets);
        self.end();
    }

    /// Ends it now.
    pub(crate) fn end(self) {
        assert_balanced(&self.end_on_bad_link());
    }

    /// Ends it where the card may have lost packets on their way out, and with them word that they were sent.
    pub(crate) fn end_on_bad_link(self) -> Stats {
        let (progress, stats) = (self.progress, self.running.stop().unwrap());
        assert_eq!(progress.wrong(), 0, "packets came back twice, or changed: {:?}", stats.drops());
        assert!(stats.balanced(), "{stats:?}");
        stats
    }
}

/// A port for all that comes, in one mode. However slow the guest is, its workers do not count as stalled.
pub(crate) fn port(name: &str, mode: Mode) -> XdpPort {
    XdpPort::new(name, Steering::All).mode(ModeWanted::Demand(mode)).stall_limit(None)
}

/// One port, for one worker.
pub(crate) fn one_port(mode: Mode, idle: Idle) -> RuntimeBuilder {
    Runtime::builder().port(port("eth0", mode)).workers(1).cores([0]).idle(idle)
}

/// Demands that every queue of every port came up in a mode, as the kernel says (`XDP_OPTIONS`).
pub(crate) fn assert_mode(running: &Running, mode: Mode) {
    for status in running.status() {
        let queues: Vec<_> = status.facts.iter().filter(|(name, _)| name.starts_with("queue ")).collect();
        assert!(!queues.is_empty(), "{status:?}");
        let wanted = format!("{mode},");
        assert!(queues.iter().all(|(_, value)| value.starts_with(&wanted)), "{mode} mode: {status:?}");
    }
}

/// Demands that no frame is missing, and that all that was to be sent has left.
pub(crate) fn assert_balanced(stats: &Stats) {
    assert!(stats.balanced(), "{stats:?}");
    for worker in &stats.workers {
        assert_eq!(worker.ledger.transmit.outside(), 0, "{worker:?}");
        assert_eq!(worker.ledger.held.outside(), 0, "{worker:?}");
    }
}

/// As [`assert_balanced`], of a runtime that makes no packets: all that came was sent or dropped. And the interfaces of
/// its host are as before.
pub(crate) fn assert_settled(stats: &Stats, host: &Host, interfaces: &[&str]) {
    assert_balanced(stats);
    assert_eq!(stats.received(), stats.sent() + stats.dropped_total(), "{:?}", stats.drops());
    for interface in interfaces {
        assert_eq!(host.xdp_program(interface).unwrap(), None);
    }
}

/// Packets none of which may be lost: a million, unless the guest is told otherwise.
pub(crate) fn many() -> Plan {
    let packets =
        std::env::var("AFX_GUEST_PACKETS").expect("AFX_GUEST_PACKETS: these tests run in the guest");
    Plan::whole(packets.parse().expect("a number"))
}

/// Sends packets of a plan to a mirror in a mode, and back.
pub(crate) fn echo(name: &str, cable: Cable, mode: Mode, idle: Idle, plan: Plan) {
    let hosts = Hosts::new(name);
    hosts.join(cable, "eth0");
    let mirror = hosts.start(|| one_port(mode, idle), || Mirror).unwrap();
    assert_mode(&mirror, mode);
    hosts.pump(&["eth0"], ModeWanted::Auto, cable, plan).finish();
    let stats = mirror.stop().unwrap();
    println!("{} packets echoed in {mode} mode", plan.packets);
    assert!(stats.sent() >= plan.packets, "{stats:?}");
    assert_eq!(stats.dropped_total(), 0, "{:?}", stats.drops());
    assert_settled(&stats, &hosts.near, &["eth0"]);
}

/// Sends packets of a plan through two ports of one worker, both in one mode.
pub(crate) fn forward(name: &str, mode: Mode, plan: Plan) {
    let hosts = Hosts::new(name);
    hosts.join(Cable::First, "left");
    hosts.join(Cable::Second, "right");
    let builder = || {
        let builder = Runtime::builder().port(port("left", mode)).port(port("right", mode));
        builder.workers(1).cores([0])
    };
    let cable = hosts.start(builder, || Across).unwrap();
    assert_mode(&cable, mode);
    hosts.pump(&["left", "right"], ModeWanted::Auto, Cable::First, plan).finish();
    let stats = cable.stop().unwrap();
    println!("{} packets forwarded in {mode} mode", plan.packets);
    assert_eq!(stats.dropped_total(), 0, "{:?}", stats.drops());
    // One memory for both: what came in on the one left by the other in the very frame.
    let ledger = stats.workers[0].ledger;
    assert!(ledger.receive.returned >= plan.packets && ledger.transmit.issued >= plan.packets, "{ledger:?}");
    assert_settled(&stats, &hosts.near, &["left", "right"]);
}

/// Has two workers echo, each on a queue of the same card.
pub(crate) fn two_queues(name: &str, mode: Mode) {
    let hosts = Hosts::new(name);
    hosts.join(Cable::TwoQueues, "eth0");
    let builder = || Runtime::builder().port(port("eth0", mode)).workers(2);
    let mirror = hosts.start(builder, || Mirror).unwrap();
    assert_mode(&mirror, mode);
    let traffic = hosts.pump(&["eth0"], ModeWanted::Auto, Cable::TwoQueues, Plan::endless().flows(64));
    traffic.wait_for_more(100_000);
    traffic.end();
    // Taps on a busy host may lose packets. Of those that came to the card none is lost.
    let came = || mirror.redirect_counters("eth0").unwrap().redirected;
    let all_counted = wait_for("all that came", PATIENCE, || mirror.stats().received() == came());
    assert!(all_counted.is_ok(), "{} came: {:?}", came(), mirror.stats().queues().collect::<Vec<_>>());
    let stats = mirror.stop().unwrap();
    assert_eq!(stats.dropped_total(), 0, "{:?}", stats.drops());
    let queues: Vec<_> = stats.workers.iter().flat_map(|worker| &worker.queues).collect();
    assert_eq!(queues.iter().map(|queue| queue.queue).collect::<Vec<_>>(), [0, 1]);
    for queue in queues {
        // 64 flows are dealt out by a hash: neither has almost none.
        assert!(queue.received > 5_000 && queue.sent > 5_000, "{:?}", stats.queues().collect::<Vec<_>>());
        assert_eq!(queue.kernel_dropped, 0, "queue {}", queue.queue);
    }
    assert_settled(&stats, &hosts.near, &["eth0"]);
}

/// A program of this workspace, as the guest was given it.
pub(crate) fn program(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("AFX_PROGRAMS").expect("AFX_PROGRAMS: these tests run in the guest"))
        .join(name)
}

/// An example of this crate, as the guest was given it.
pub(crate) fn example(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("AFX_EXAMPLES").expect("AFX_EXAMPLES: these tests run in the guest"))
        .join(name)
}
