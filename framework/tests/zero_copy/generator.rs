//! `afx-pktgen` as its users have it: what one end sends, the other counts.

use afx::port::Mode;
use serde_json::Value;

use crate::cable::{Cable, End};
use crate::probe::Probes;
use crate::support::*;

const PACKETS: u64 = 30_000;

/// Sends to a receiver, both in a mode that they are told.
pub(crate) fn counts_agree(name: &str, mode: Mode) {
    let hosts = Hosts::new(name);
    hosts.join(Cable::First, "eth0");
    let probes = Probes::new();
    let (mode, packets) = (mode.to_string(), PACKETS.to_string());
    let receive =
        hosts.near.command(program("afx-pktgen")).args(["receive", "eth0", "--mode", &mode, "--json"]);
    // It ends when it has all; the time is for a sender that is kept from sending.
    let receive = receive.args(["--count", &packets, "--expect", &packets, "--idle-end", "10s"]);
    let receiver = receive.spawn().unwrap();
    receiver.wait_for_output("receiving on eth0", PATIENCE).unwrap();

    let mac = Cable::First.mac(End::Near).map(|byte| format!("{byte:02x}")).join(":");
    let send = hosts.far.command(program("afx-pktgen")).args(["send", "eth0", "--mode", &mode, "--json"]);
    let send = send.args(["--source", "10.0.0.1", "--destination", "10.0.0.2", "--to-mac", &mac]);
    // Slow enough for a receiver that is not scheduled for a while: its ring holds 2048 packets.
    let send =
        send.args(["--flows", "16", "--source-port", "1024-1039", "--count", &packets, "--rate", "8kpps"]);
    let sent: Value = serde_json::from_str(&send.check().unwrap()).unwrap();
    assert_eq!(
        (&sent["mode"], sent["sent_packets"].as_u64()),
        (&mode.as_str().into(), Some(PACKETS)),
        "{sent}"
    );

    let status = receiver.wait_within(PATIENCE).unwrap();
    let received: Value = serde_json::from_str(&receiver.stdout()).unwrap();
    assert_eq!(status.code(), Some(0), "{received}");
    assert_eq!(received["mode"], mode.as_str(), "{received}");
    assert_eq!(received["ledger_balanced"], true, "{received}");
    let count = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {received}"));
    let [distinct, lost, duplicates, full, flows] =
        ["distinct", "lost", "duplicates", "kernel_dropped", "flows"].map(|name| count(&received[name]));
    let stalled = count(&received["redirect"]["passed_stalled"]);
    // A receiver that a busy machine keeps from working finds its ring full, or counts as stalled: it tells of each.
    assert_eq!((distinct + lost, duplicates, flows), (PACKETS, 0, 16), "{received}");
    assert_eq!(lost, full + stalled, "{received}");
    assert!(lost < PACKETS / 2, "{received}");
    println!(
        "{PACKETS} packets sent by afx-pktgen in {mode} mode, {distinct} received, {full} too many for the ring"
    );
    for host in [&hosts.near, &hosts.far] {
        assert_eq!(host.xdp_program("eth0").unwrap(), None);
    }
    let hits = probes.hits();
    if mode == Mode::ZeroCopy.to_string() {
        assert_eq!(hits, [0, 0]);
    } else {
        assert!(hits[0] >= distinct && hits[1] >= PACKETS, "{hits:?}");
    }
}
