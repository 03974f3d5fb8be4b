//! An operator at work: `afx-lb status`, `ctl` and `explain` on a balancer that serves, over its command socket.

mod common;

use std::collections::BTreeSet;

use afx_testbed::wait_for;
use common::download::{Download, Server};
use common::{Net, PATIENCE, VIP4, head, vip, web};
use serde_json::Value;

const REALS: [(&str, u32); 2] = [("10.0.0.11", 100), ("10.0.0.12", 100)];
const NAME: &str = "198.51.100.10:80/tcp";

fn net(name: &str) -> (Net, Vec<Server>) {
    let net = Net::new(name, 2, 1);
    net.decapsulate();
    let servers = (1..).zip(&net.reals).map(|(number, real)| Server::start(real, number, VIP4, 80)).collect();
    (net, servers)
}

fn json(net: &Net, arguments: &[&str]) -> Value {
    let said = net.ask(&[arguments, &["--json"]].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// Downloads until both reals have one.
fn on_both(net: &Net) -> Vec<Download> {
    let mut downloads: Vec<Download> = Vec::new();
    while downloads.iter().map(Download::real).collect::<BTreeSet<_>>().len() < 2 {
        assert!(downloads.len() < 60, "one of two reals is never chosen");
        downloads.push(Download::start(&net.client, VIP4, 80));
    }
    downloads
}

/// Which real serves a new connection.
fn newcomer(net: &Net) -> u8 {
    let download = Download::start(&net.client, VIP4, 80);
    let real = download.real();
    download.finish();
    real
}

#[test]
fn a_real_is_drained_weighed_taken_out_and_put_in_while_downloads_go_on() {
    let (net, _servers) = net("lb-operate");
    let balancer = net.start(&web(&REALS), &[]);
    let downloads = on_both(&net);
    let all_go_on = |downloads: &[Download]| downloads.iter().for_each(|download| download.advance(20_000));

    // A drain that is waited for ends when the last connection has.
    let told = net.ask(&["ctl", "real", "drain", NAME, "10.0.0.11"]);
    assert!(told.contains("real 10.0.0.11 state up -> drain"), "{told}");
    (0..10).for_each(|_| assert_eq!(newcomer(&net), 2));
    all_go_on(&downloads);
    let reals = json(&net, &["ctl", "reals"]);
    assert_eq!((&reals[0]["state"], &reals[0]["share"]), (&Value::from("drain"), &Value::from(0.0)));
    assert!(reals[0]["connections"].as_u64().unwrap() > 0, "{reals}");
    assert_eq!(json(&net, &["status"])["configuration"]["changed"], true);

    // With a deadline it ends then, and connections that are left go to the other real, which resets them.
    let told = net.ask(&["ctl", "real", "drain", NAME, "10.0.0.11", "--deadline", "1s", "--wait"]);
    assert!(told.contains("deadline"), "{told}");
    assert_eq!(json(&net, &["ctl", "reals"])[0]["state"], "out");
    let (cut, others): (Vec<_>, Vec<_>) = downloads.into_iter().partition(|download| download.real() == 1);
    all_go_on(&others);
    drop(cut);

    net.ask(&["ctl", "real", "undrain", NAME, "10.0.0.11"]);
    net.ask(&["ctl", "real", "weight", NAME, "10.0.0.12", "0"]);
    (0..10).for_each(|_| assert_eq!(newcomer(&net), 1));
    all_go_on(&others);

    // Taken out, its connections are others'; the file, read again, has it back as it was.
    others.into_iter().for_each(Download::finish);
    net.ask(&["ctl", "real", "remove", NAME, "10.0.0.12"]);
    assert_eq!(json(&net, &["ctl", "reals"]).as_array().unwrap().len(), 1);
    let told = net.ask(&["ctl", "reload"]);
    assert!(told.contains("real 10.0.0.12 added"), "{told}");
    assert_eq!(json(&net, &["status"])["configuration"]["changed"], false);
    on_both(&net).into_iter().for_each(Download::finish);
    balancer.stop();
}

#[test]
fn vips_come_by_command_and_refusals_change_nothing() {
    let (net, _servers) = net("lb-operate-vip");
    let other = Server::start(&net.reals[0], 1, VIP4, 81);
    let balancer = net.start(&web(&REALS), &[]);
    let before = json(&net, &["ctl", "config"]);
    for (arguments, why) in [
        (&["ctl", "real", "add", NAME, "fd00::11", "--weight", "70000"][..], "70000"),
        (&["ctl", "real", "add", NAME, "10.0.0.11"], "has the real 10.0.0.11 already"),
        (&["ctl", "real", "drain", NAME, "10.0.0.99"], "has no real 10.0.0.99"),
        (&["ctl", "vip", "remove", "198.51.100.11:80/tcp"], "there is no VIP 198.51.100.11:80/tcp"),
    ] {
        let command = net.lb.command(env!("CARGO_BIN_EXE_afx-lb")).args(arguments);
        let said = command.arg("--socket").arg(net.socket()).output().unwrap();
        assert!(!said.status.success() && said.stderr.contains(why), "{arguments:?}: {}", said.stderr);
    }
    assert_eq!(json(&net, &["ctl", "config"]), before);

    let name = "198.51.100.10:81/tcp";
    net.ask(&["ctl", "vip", "add", name]);
    net.ask(&["ctl", "real", "add", name, "10.0.0.11"]);
    Download::start(&net.client, VIP4, 81).finish();
    net.ask(&["ctl", "vip", "remove", name]);
    assert_eq!(json(&net, &["ctl", "vips"]).as_array().unwrap().len(), 1);
    drop(other);
    balancer.stop();
}

#[test]
fn what_is_asked_is_answered_of_the_packets_that_came() {
    let (net, _servers) = net("lb-operate-ask");
    let text = head(1, "method = \"ipip\"") + &vip(VIP4, 80, "tcp", &REALS);
    let balancer = net.start(
        &(text + "[control]\nsocket = \"SOCKET\"\nmetrics = \"127.0.0.1:9464\"\n")
            .replace("SOCKET", &net.socket().display().to_string()),
        &[],
    );
    let downloads = on_both(&net);

    let listed = json(&net, &["ctl", "connections"]);
    let text = listed.to_string();
    assert!(text.contains("\"established\"") && text.contains("10.0.0.11"), "{text}");
    let explained = json(&net, &["explain", "10.0.0.1:4000", "198.51.100.10:80", "tcp"]);
    assert_eq!((&explained["vip"], &explained["how"]), (&Value::from(NAME), &Value::from("maglev")));
    assert_eq!(explained["outer"]["ip"]["source"], "10.0.0.2");
    let nobodys = json(&net, &["explain", "10.0.0.1:4000", "198.51.100.10:81", "tcp"]);
    assert!(nobodys["vip"].is_null() && nobodys["why_not"].is_string(), "{nobodys}");

    let page = || net.lb.command("curl").args(["-sf", "http://127.0.0.1:9464/metrics"]).check().unwrap();
    let opened = format!("afx_lb_vip_opened_total{{vip=\"{NAME}\"}} {}", downloads.len());
    wait_for("the metrics to count all", PATIENCE, || page().contains(&opened)).unwrap();
    downloads.into_iter().for_each(Download::finish);
    balancer.stop();
}
