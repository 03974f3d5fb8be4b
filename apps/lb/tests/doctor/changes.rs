//! What is changed, by trying, by mending, and by looking: what it says, and nothing else.

use crate::PROGRAM;
use crate::lab::{Net, Report};

#[test]
fn trying_leaves_everything_as_it_was() {
    let net = Net::as_it_comes("doctor-try");
    let settings = || [&net.host, &net.other].map(|host| Net::settings_on(host, "eth0"));
    let before = settings();
    let report = net.report(&["--try"], 1);
    for (name, verdict) in [
        ("native XDP, tried", "good"),
        ("generic XDP, tried", "good"),
        ("zero-copy, tried", "could_be_better"),
        ("copy, tried", "good"),
    ] {
        assert_eq!(report.verdict(name), verdict, "{name}");
    }
    assert_eq!(settings(), before);
    assert_eq!(net.host.xdp_program("eth0").unwrap(), None);
    // The queue is free, too.
    assert_eq!(net.report(&["--try"], 1).verdict("copy, tried"), "good");
}

#[test]
fn looking_changes_nothing() {
    let net = Net::as_it_comes("doctor-look");
    let before = net.settings("eth0");
    net.report(&[], 1);
    assert_eq!(net.settings("eth0"), before);
}

#[test]
fn mending_changes_what_it_says_and_nothing_else() {
    let net = Net::new("doctor-fix", 1);
    // A bridge has no XDP of its own: generic XDP is what it gets, which GRO comes before.
    net.host.ip("link add br0 type bridge").unwrap();
    net.host.ip("link set br0 up").unwrap();
    let before = net.settings("br0");
    let others = net.settings("eth0");
    let report = Report::of(&net.doctor(&["br0", "--fix", "--json"]), 0);
    let fixed = report.0["fixed"].as_array().unwrap();
    let said: Vec<_> = fixed
        .iter()
        .map(|fixed| (fixed["command"].as_str().unwrap(), fixed["before"].as_str().unwrap()))
        .collect();
    assert_eq!(
        said,
        [
            ("ethtool -K br0 gro off", "rx-gro on"),
            (
                "echo 2 > /sys/class/net/br0/napi_defer_hard_irqs && \
                 echo 200000 > /sys/class/net/br0/gro_flush_timeout",
                "napi_defer_hard_irqs 0, gro_flush_timeout 0"
            ),
        ]
    );
    assert_eq!((report.verdict("GRO"), report.verdict("busy polling")), ("good", "good"));
    let changed: Vec<_> = net.settings("br0").into_iter().filter(|line| !before.contains(line)).collect();
    let expected = ["generic-receive-offload: off", "napi_defer_hard_irqs 2", "gro_flush_timeout 200000"];
    assert_eq!(changed, expected);
    assert_eq!(net.settings("eth0"), others);
    // The commands do the same as the option: undone and done by hand.
    net.host.command("ethtool").args(["-K", "br0", "gro", "on"]).check().unwrap();
    assert_eq!(Report::of(&net.doctor(&["br0", "--json"]), 0).verdict("GRO"), "could_be_better");
    net.host.command("sh").args(["-c", "ethtool -K br0 gro off"]).check().unwrap();
    let again = net.doctor(&["br0", "--fix"]);
    assert_eq!(again.status.code(), Some(0));
    assert!(again.stdout.starts_with("There is nothing that may be mended at once.\n"), "{}", again.stdout);
}

#[test]
fn mending_without_the_right_to_says_so_and_changes_nothing() {
    let net = Net::new("doctor-unfix", 1);
    net.host.ip("link add br0 type bridge").unwrap();
    let before = net.settings("br0");
    let command = net.host.command("setpriv").args(["--bounding-set=-all", PROGRAM]);
    let output = command.args(["doctor", "br0", "--fix", "--json"]).output().unwrap();
    let report = Report::of(&output, 1);
    let fixed = report.0["fixed"].as_array().unwrap();
    assert_eq!(fixed.len(), 2);
    for fixed in fixed {
        let error = fixed["error"].as_str().unwrap_or_else(|| panic!("{fixed}"));
        assert!(error.contains("not permitted") || error.contains("denied"), "{error}");
    }
    assert_eq!(net.settings("br0"), before);
}
