//! What a reload changes, in words.

use super::*;

/// What changes from the right file to this one.
fn changes(text: &str) -> Vec<String> {
    let changes = diff(&valid(RIGHT), &valid(text));
    changes.iter().map(ToString::to_string).collect()
}

/// The sections that take a restart for it.
fn restarts(text: &str) -> Vec<String> {
    let changes = diff(&valid(RIGHT), &valid(text));
    changes.iter().filter_map(|change| change.needs_restart().map(str::to_owned)).collect()
}

#[test]
fn nothing_changes_between_equals() {
    assert_eq!(changes(RIGHT), [""; 0]);
    // Nor by another order.
    let real = "[[vip.real]]\naddress = \"10.0.0.12\"\n";
    let vip = "[[vip]]\naddress = \"198.51.100.9\"\nport = 1\nprotocol = \"udp\"\n[[vip.real]]\naddress = \"10.0.0.1\"\n";
    let one = valid(&format!("{RIGHT}{real}{vip}"));
    let mut other = one.clone();
    other.vips.reverse();
    other.vips[1].reals.reverse();
    assert_ne!(one, other);
    assert_eq!(diff(&one, &other), []);
}

#[test]
fn reals_change() {
    assert_eq!(
        changes(&with("weight = 200\nsources = [\"192.0.2.0/24\"]")),
        [
            "vip 198.51.100.10:443/tcp: real 10.0.0.11 sources [] -> [192.0.2.0/24]",
            "vip 198.51.100.10:443/tcp: real 10.0.0.11 weight 100 -> 200",
        ]
    );
    let old = valid(RIGHT);
    let drained =
        old.set_state(&key("198.51.100.10:443/tcp"), old.vips[0].reals[0].address, RealState::Drain);
    let lines: Vec<String> = diff(&old, &drained.unwrap()).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["vip 198.51.100.10:443/tcp: real 10.0.0.11 state up -> drain"]);
    assert_eq!(
        changes(&RIGHT.replace("10.0.0.11", "10.0.0.12")),
        [
            "vip 198.51.100.10:443/tcp: real 10.0.0.12 added, weight 100",
            "vip 198.51.100.10:443/tcp: real 10.0.0.11 removed"
        ]
    );
    assert_eq!(
        changes(&with("[[vip.real]]\naddress = \"10.0.0.12\"\nweight = 7\nstate = \"drain\"")),
        ["vip 198.51.100.10:443/tcp: real 10.0.0.12 added, weight 7, state drain"]
    );
    assert_eq!(
        changes(&with("next_hop = \"02:00:00:00:00:01\"")),
        ["vip 198.51.100.10:443/tcp: real 10.0.0.11 next_hop (none) -> 02:00:00:00:00:01"]
    );
}

#[test]
fn vips_change() {
    assert_eq!(
        changes(&RIGHT.replace("port = 443", "port = \"any\"")),
        ["vip 198.51.100.10:*/tcp: added, with 1 real", "vip 198.51.100.10:443/tcp: removed"]
    );
    assert_eq!(
        changes(&with_vip("hash = \"source\"\nping = true")),
        [
            "vip 198.51.100.10:443/tcp: hash 5-tuple -> source",
            "vip 198.51.100.10:443/tcp: ping false -> true"
        ]
    );
    let check = |lines: &str| with_vip(&format!("[vip.check]\n{lines}"));
    assert_eq!(changes(&check("type = \"tcp\"")), ["vip 198.51.100.10:443/tcp: check (none) -> tcp"]);
    let old = valid(&check("type = \"tcp\""));
    let new = valid(&check("type = \"http\"\nport = 80\ninterval = \"1m\""));
    let lines: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "vip 198.51.100.10:443/tcp: check interval 2s -> 1m",
            "vip 198.51.100.10:443/tcp: check path (none) -> /",
            "vip 198.51.100.10:443/tcp: check port 443 -> 80",
            "vip 198.51.100.10:443/tcp: check status (none) -> [200-399]",
            "vip 198.51.100.10:443/tcp: check type tcp -> http",
        ]
    );
    let lines: Vec<String> = diff(&new, &valid(RIGHT)).iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["vip 198.51.100.10:443/tcp: check http -> (none)"]);
}

#[test]
fn settings_change_without_a_restart_where_workers_can_take_them() {
    let text =
        with("[maglev]\nseed = 7\n[icmp]\ntoo_big = false\n[decapsulation]\naddresses = [\"fc00::1\"]")
            .replace("\"ipip\"", "\"gue\"\nclient_mtu = 1400");
    assert_eq!(
        changes(&text),
        [
            "[decapsulation] addresses [] -> [fc00::1]",
            "[forwarding] client_mtu (none) -> 1400",
            "[forwarding] gue_port (none) -> 6080",
            "[forwarding] method ipip -> gue",
            "[icmp] too_big true -> false",
            "[maglev] seed 0 -> 7",
        ]
    );
    assert_eq!(restarts(&text), [""; 0]);
    assert_eq!(restarts(&with("weight = 1")), [""; 0]);
}

#[test]
fn some_settings_take_a_restart() {
    let each = [
        (with("[workers]\nidle = \"adaptive\""), "[workers] idle busy -> adaptive", "[workers]"),
        (with("[workers]\ncores = [1, 2]"), "[workers] cores (none) -> [1, 2]", "[workers]"),
        (with("[connections]\nudp = \"30s\""), "[connections] udp 1m -> 30s", "[connections]"),
        (with("[control]\nsocket = \"none\""), "[control] socket /run/afx-lb.sock -> none", "[control]"),
        (
            with("[control]\nmetrics = \"127.0.0.1:9100\""),
            "[control] metrics none -> 127.0.0.1:9100",
            "[control]",
        ),
        (RIGHT.replace("\"eth1\"", "\"eth1\"\nqueues = 4"), "port eth1: queues all -> 4", "[[port]]"),
        (with("[[port]]\ninterface = \"eth2\""), "port eth2: added", "[[port]]"),
    ];
    for (text, line, section) in each {
        assert_eq!(changes(&text), [line]);
        assert_eq!(restarts(&text), [section]);
    }
    let other = RIGHT.replace("eth1", "eth2");
    assert_eq!(changes(&other), ["port eth2: added", "port eth1: removed"]);
    assert_eq!(restarts(&other), ["[[port]]", "[[port]]"]);
}

#[test]
fn the_order_of_ports_counts() {
    let two = |first: &str, second: &str| {
        let text = RIGHT.replace("\"eth1\"", &format!("\"{first}\"\n[[port]]\ninterface = \"{second}\""));
        valid(&text)
    };
    let changes = diff(&two("eth1", "eth2"), &two("eth2", "eth1"));
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].to_string(), "ports: order eth1, eth2 -> eth2, eth1");
    assert_eq!(changes[0].needs_restart(), Some("[[port]]"));
}
