//! A real dies under load: what of it clients may notice, and for how long.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use afx_testbed::Process;

use super::common::{Net, VIP4, vip};
use super::load::{Load, Plan, Report, Request};
use super::{HTTP, LOADING, REALS, head_for_many, nginx, plan};

/// How the reals are checked.
const CHECK: &str =
    "[vip.check]\ntype = \"tcp\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\nfall = 2\njitter = 10\n";
/// The longest time until a real that died is known to be: `fall` checks, each after an interval with its jitter, and the
/// last one's timeout.
const NOTICED: Duration = Duration::from_millis(2 * 550 + 500);
/// What a machine may add on whose two cores all of this runs.
const BUSY: Duration = Duration::from_millis(500);

/// A little less than the kernel waits for the answer to a first packet.
const SECOND: Duration = Duration::from_millis(900);

/// The place of the real that dies, among three.
const DEAD: usize = 1;

struct Scene {
    net: Net,
    servers: Vec<Process>,
}

impl Scene {
    fn new(name: &str) -> Self {
        let net = Net::new(name, 3, 1);
        net.decapsulate();
        let start = |(number, real)| nginx::start(net.bed.directory(), real, number, HTTP);
        let servers = (1..).zip(&net.reals).map(start).collect();
        Self { net, servers }
    }

    fn config(&self) -> String {
        let reals: Vec<_> = REALS[..3].iter().map(|real| (*real, 100)).collect();
        // The check goes before the reals, which are sections of their own.
        head_for_many()
            + &vip(VIP4, HTTP, "tcp", &reals).replacen("[[vip.real]]", &format!("{CHECK}[[vip.real]]"), 1)
    }

    /// Has the load run over a death. Returns what became of the requests, when it was, and who was sent to the dead real.
    fn run(&self, plan: Plan, die: impl FnOnce(), after: impl FnOnce(&Load)) -> (Report, Death) {
        let balancer = self.net.start(&self.config(), &[]);
        // First packets to the real that will die: outer and inner header have 20 bytes each, flags are TCP's 14th. At the
        // switch, whose first ports are the client's and the balancer's: the real's own is not there all the time.
        let port = format!("p{}", DEAD + 2);
        let capture = self.net.switch.as_host().capture(&port, "ip proto 4 and ip[53] & 2 != 0").unwrap();
        let load = Load::start(&self.net.client, plan);
        load.reach(Duration::from_secs(3));
        let begun = load.elapsed();
        die();
        let done = load.elapsed();
        after(&load);
        let report = load.finish();
        print!("{report}");
        let file = capture.stop().unwrap();
        let text = self.net.lb.command("tcpdump").args(["-n", "-t", "-r"]).arg(file).check().unwrap();
        balancer.stop();
        (report, Death { begun, done, clients: text.lines().map(client).collect() })
    }
}

/// The client in a line of tcpdump: `IP 10.0.0.2 > 10.0.0.12: IP 10.0.0.101.20000 > 198.51.100.10.80: Flags [S], ...`.
fn client(line: &str) -> SocketAddr {
    let inner = line.split(": IP ").nth(1).unwrap_or_else(|| panic!("{line}"));
    let (address, port) = inner.split(' ').next().and_then(|client| client.rsplit_once('.')).unwrap();
    SocketAddr::new(address.parse().unwrap(), port.parse().unwrap())
}

struct Death {
    begun: Duration,
    done: Duration,
    /// Those whose first packet the real has got.
    clients: BTreeSet<SocketAddr>,
}

/// That only such requests failed as may: sent to the real that died, and open then or begun before it was noticed.
fn only_those_of_the_dead_failed(report: &Report, death: &Death) {
    // First packets that are lost come again after a second (RFC 6298), and lead elsewhere by then.
    let noticed = |request: &Request| request.outcome.is_err() || request.ended - request.begun > SECOND;
    assert!(report.requests.iter().any(noticed), "a real died, and nobody noticed");
    for request in report.failures() {
        let was_open = request.ended >= death.begun;
        let was_early = request.begun <= death.done + NOTICED + BUSY;
        assert!(was_open && was_early, "{request:?}, a real died at {:?}\n{report}", death.begun);
        assert!(death.clients.contains(&request.source), "{request:?} was another real's\n{report}");
    }
}

#[test]
fn a_server_that_is_killed_takes_only_its_own_requests_with_it() {
    let _alone = LOADING.lock();
    let scene = Scene::new("lb-death");
    let die = || scene.servers[DEAD].kill();
    let after = |load: &Load| {
        // It is back, and known to be.
        load.reach(Duration::from_secs(7));
        nginx::start(scene.net.bed.directory(), &scene.net.reals[DEAD], DEAD as u8 + 1, HTTP);
    };
    let (report, death) = scene.run(plan(&scene.net, 12), die, after);
    only_those_of_the_dead_failed(&report, &death);
    let dead = DEAD as u8 + 1;
    assert!(report.served_by(dead, Duration::from_secs(7)..Duration::MAX) > 100, "it has not come back");
}

#[test]
fn a_server_that_is_cut_off_takes_only_its_own_requests_with_it() {
    let _alone = LOADING.lock();
    let scene = Scene::new("lb-cut");
    let plan = Plan { patience: Duration::from_secs(6), ..plan(&scene.net, 8) };
    let die = || drop(scene.net.reals[DEAD].ip("link set eth0 down").unwrap());
    let (report, death) = scene.run(plan, die, |_| {});
    only_those_of_the_dead_failed(&report, &death);
}
