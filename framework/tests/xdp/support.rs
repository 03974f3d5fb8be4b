//! What the tests share.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use afx::port::{Steering, XdpPort};
use afx::worker::Build;
use afx::{Batch, Pipeline, Running, Runtime, RuntimeBuilder, Stage, Stats};
use afx_testbed::{Host, Link, Testbed};

/// How long to wait for what happens at once on a quiet machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Two hosts on one link; `b` is where afx runs.
pub(crate) fn pair(name: &str, queues: u32) -> (Testbed, Host, Host) {
    let net = Testbed::new(name).unwrap();
    let (a, b) = (net.host("a").unwrap(), net.host("b").unwrap());
    let link = Link::between(a.end("eth0").address("10.0.0.1/24"), b.end("eth0").address("10.0.0.2/24"));
    net.link(link.queues(queues)).unwrap();
    (net, a, b)
}

/// Starts a runtime on a host.
pub(crate) fn start_on<P: Pipeline>(
    host: &Host,
    builder: impl FnOnce() -> RuntimeBuilder + Send,
    pipeline: impl Fn(&mut Build<'_>) -> P + Send + Sync + 'static,
) -> afx::Result<Running> {
    host.run(|| builder().pipeline(pipeline).start()).unwrap()
}

/// All packets of `eth0`.
pub(crate) fn all_of_eth0() -> RuntimeBuilder {
    Runtime::builder().port(XdpPort::new("eth0", Steering::All))
}

/// Demands what must hold at every end: no frame is missing, and all packets were settled.
pub(crate) fn assert_settled(stats: &Stats) {
    assert!(stats.balanced(), "{stats:?}");
    for worker in &stats.workers {
        assert_eq!(worker.ledger.transmit.outside(), 0, "{worker:?}");
        assert_eq!(worker.ledger.held.outside(), 0, "{worker:?}");
    }
    assert_eq!(stats.received(), stats.sent() + stats.dropped_total(), "{:?}", stats.drops());
}

/// Demands that the interface is as before.
pub(crate) fn assert_untouched(host: &Host, interface: &str) {
    assert_eq!(host.xdp_program(interface).unwrap(), None);
}

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

/// An example of this crate, built if need be; from the folder `AFX_EXAMPLES`, where there is no cargo.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    if let Some(folder) = std::env::var_os("AFX_EXAMPLES") {
        return PathBuf::from(folder).join(name);
    }
    // .../PROFILE/deps/xdp-HASH
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    BUILT.call_once(|| {
        let release = profile.ends_with("release").then_some("--release");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "afx", "--examples"])
            .args(release)
            .arg("--target-dir")
            .arg(profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(status.unwrap().success(), "the examples do not build");
    });
    profile.join("examples").join(name)
}
