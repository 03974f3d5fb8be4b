//! Settings of an interface that the balancer changes: shown, put back at the end, put back after it was killed, and left
//! alone where the configuration or someone else says so. Read back through the kernel each time.

mod common;

use std::fs;

use afx_testbed::{Command, Host, Link, Output, Process, Signal};
use common::settings::*;
use common::{Net, PATIENCE};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_afx-lb");

/// Sets the file of `eth0` to another value, as an operator would.
fn set_by_hand(host: &Host, name: &str, value: &str) {
    let path = format!("/sys/class/net/eth0/{name}");
    host.run(|| fs::write(path, value)).unwrap().unwrap();
}

fn restore(net: &Net, arguments: &[&str]) -> Output {
    net.lb.command(PROGRAM).args(["doctor", "--restore"]).args(arguments).output().unwrap()
}

#[track_caller]
fn restored(net: &Net, arguments: &[&str]) -> Value {
    let output = restore(net, &[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}{}", output.stdout, output.stderr);
    serde_json::from_str::<Value>(&output.stdout).unwrap()["restored"].take()
}

/// Setting and outcome of each.
fn outcomes(restored: &Value) -> Vec<(&str, &str)> {
    let all = restored.as_array().unwrap().iter();
    all.map(|one| (one["setting"].as_str().unwrap(), one["outcome"].as_str().unwrap())).collect()
}

fn kill(process: &Process) {
    process.signal(Signal::SIGKILL).unwrap();
    process.wait_within(PATIENCE).unwrap();
}

#[test]
fn changes_are_shown_and_put_back_at_the_end() {
    let net = net("lb-set-shown");
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    assert_eq!(settings(&net.lb, "eth0"), CHANGED);
    assert!(record(&net.lb, "eth0").exists());
    let status: Value = serde_json::from_str(&net.ask(&["status", "--json"])).unwrap();
    let change = |setting: &str, before: &str, value: &str| json!({"setting": setting, "before": before, "value": value});
    let changes = [
        change("channels", "1", "2"),
        change("napi_defer_hard_irqs", "0", "2"),
        change("gro_flush_timeout", "0", "200000"),
    ];
    assert_eq!(status["ports"][0]["changes"], json!(changes));
    let page = net.ask(&["status"]);
    assert!(page.contains("put back at the end:\n    channels              2, was 1\n"), "{page}");
    // A veth does not say what polls a queue.
    assert!(page.contains("for the whole interface, not for single queues: "), "{page}");
    assert!(balancer.log().contains("gro_flush_timeout: 200000, was 0; put back at the end"));
    assert!(balancer.log().contains("queues eth0:0 eth0:1"), "{}", balancer.log());
    // It is in force, and whoever asks for it to be put back is told so.
    let kept = restored(&net, &["eth0"]);
    assert!(outcomes(&kept).iter().all(|(_, outcome)| *outcome == "in_force"), "{kept}");
    assert_eq!(settings(&net.lb, "eth0"), CHANGED);

    balancer.stop();
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
    assert!(!record(&net.lb, "eth0").exists());
}

#[test]
fn what_a_killed_balancer_has_left_is_put_back_by_the_doctor() {
    let net = net("lb-set-doctor");
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    kill(&balancer.process);
    assert_eq!(settings(&net.lb, "eth0"), CHANGED);
    // An interface of its own has its own record, or none.
    assert_eq!(restored(&net, &["lo"]), json!([]));
    let done = restored(&net, &[]);
    let all = ["gro_flush_timeout", "napi_defer_hard_irqs", "channels"].map(|name| (name, "restored"));
    assert_eq!(outcomes(&done), all);
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
    let again = restore(&net, &[]);
    assert_eq!((again.status.code(), again.stdout.as_str()), (Some(0), "There is nothing to put back.\n"));
    let missing = restore(&net, &["eth7"]);
    assert_eq!(missing.status.code(), Some(2), "{}", missing.stdout);
    assert!(missing.stderr.contains("eth7"), "{}", missing.stderr);
}

#[test]
fn what_a_killed_balancer_has_left_is_put_back_by_the_next_start() {
    let net = net("lb-set-start");
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    kill(&balancer.process);
    assert_eq!(settings(&net.lb, "eth0"), CHANGED);
    // One that is to change nothing itself.
    let balancer = net.start(&config("eth0", "busy", "defer = \"off\""), &[]);
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
    assert!(balancer.log().contains("channels: 1 again"), "{}", balancer.log());
    balancer.stop();
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
    // One that changes the same again.
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    kill(&balancer.process);
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    assert_eq!(settings(&net.lb, "eth0"), CHANGED);
    balancer.stop();
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
}

#[test]
fn only_what_is_wanted_is_changed() {
    let net = net("lb-set-wanted");
    // By default: what workers that poll need, and nothing else.
    for (idle, wanted, expected) in [
        ("busy", "", [1, 2, 200_000]),
        ("adaptive", "", BEFORE),
        ("busy", "defer = \"off\"", BEFORE),
        ("busy", "defer = \"off\"\nchannels = 2", [2, 0, 0]),
    ] {
        let balancer = net.start(&config("eth0", idle, wanted), &[]);
        assert_eq!(settings(&net.lb, "eth0"), expected, "{idle} {wanted}");
        assert_eq!(record(&net.lb, "eth0").exists(), expected != BEFORE, "{idle} {wanted}");
        balancer.stop();
        assert_eq!(settings(&net.lb, "eth0"), BEFORE, "{idle} {wanted}");
    }
    // An operator has put interrupts off for as long as it suits them.
    set_by_hand(&net.lb, "napi_defer_hard_irqs", "3");
    set_by_hand(&net.lb, "gro_flush_timeout", "9000");
    let balancer = net.start(&config("eth0", "busy", "defer = \"required\""), &[]);
    assert_eq!(settings(&net.lb, "eth0"), [1, 3, 9000]);
    balancer.stop();
    assert_eq!(settings(&net.lb, "eth0"), [1, 3, 9000]);
}

#[test]
fn what_someone_else_has_set_since_stays() {
    let net = net("lb-set-other");
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    set_by_hand(&net.lb, "gro_flush_timeout", "7000");
    kill(&balancer.process);
    let done = restored(&net, &["eth0"]);
    let expected = [
        ("gro_flush_timeout", "changed_since"),
        ("napi_defer_hard_irqs", "restored"),
        ("channels", "restored"),
    ];
    assert_eq!(outcomes(&done), expected);
    assert_eq!(done[0]["what"], "left alone: someone else has set it to 7000");
    assert_eq!(settings(&net.lb, "eth0"), [1, 0, 7000]);
    assert_eq!(restored(&net, &[]), json!([]), "it is off the record");
    // The same at an orderly end.
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    assert_eq!(settings(&net.lb, "eth0"), CHANGED);
    set_by_hand(&net.lb, "napi_defer_hard_irqs", "5");
    balancer.stop();
    assert_eq!(settings(&net.lb, "eth0"), [1, 5, 7000]);
}

#[test]
fn processes_on_other_interfaces_are_left_alone() {
    let net = net("lb-set-two");
    net.bed.link(Link::between(net.lb.end("eth1"), net.switch.port()).queues(2)).unwrap();
    let other = net.switch.as_host().interfaces().unwrap().into_iter().find(|name| name == "p3").unwrap();
    one_queue(&net, "eth1", &other);
    let without_socket =
        |interface: &str| config(interface, "adaptive", ALL) + "\n[control]\nsocket = \"none\"\n";
    let first = net.spawn(&without_socket("eth0"), &[]);
    first.wait_for_output("balancing", PATIENCE).unwrap();
    let second = net.spawn(&without_socket("eth1"), &[]);
    second.wait_for_output("balancing", PATIENCE).unwrap();
    kill(&first);
    assert_eq!(["eth0", "eth1"].map(|name| settings(&net.lb, name)), [CHANGED; 2]);
    // A third one starts on the first one's interface, and ends.
    let third = net.spawn(&without_socket("eth0"), &[]);
    third.wait_for_output("balancing", PATIENCE).unwrap();
    kill(&third);
    let done = restored(&net, &[]);
    let of = |interface: &str| {
        let all = done.as_array().unwrap().iter().filter(|one| one["interface"] == interface);
        all.map(|one| one["outcome"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((of("eth0"), of("eth1")), (vec!["restored"; 3], vec!["in_force"; 3]), "{done}");
    assert_eq!(["eth0", "eth1"].map(|name| settings(&net.lb, name)), [BEFORE, CHANGED]);
    second.signal(Signal::SIGTERM).unwrap();
    assert_eq!(second.wait_within(PATIENCE).unwrap().code(), Some(0), "{}", second.stderr());
    assert_eq!(settings(&net.lb, "eth1"), BEFORE);
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_changes_nothing() {
    let net = net("lb-set-broken");
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    kill(&balancer.process);
    let file = record(&net.lb, "eth0");
    let whole = fs::read_to_string(&file).unwrap();
    for broken in [&whole[..whole.len() / 2], &whole.replace("\"version\": 1", "\"version\": 7"), "{}"] {
        fs::write(&file, broken).unwrap();
        let output = restore(&net, &[]);
        let name = file.to_str().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", output.stdout);
        assert!(output.stderr.contains(name) && output.stderr.contains("delete it"), "{}", output.stderr);
        let process = net.spawn(&config("eth0", "adaptive", ""), &[]);
        assert_eq!(process.wait_within(PATIENCE).unwrap().code(), Some(2));
        assert!(process.stderr().contains(name), "{}", process.stderr());
        assert_eq!(settings(&net.lb, "eth0"), CHANGED);
    }
    fs::write(&file, whole).unwrap();
    restored(&net, &[]);
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
}

#[test]
fn what_cannot_be_changed_is_said_or_refused() {
    let net = net("lb-set-cannot");
    let lacking = ["spread", "interrupts"];
    for (line, why) in [
        ("spread = \"required\"", "no table to spread packets by"),
        ("interrupts = \"required\"", "it has none that can be seen"),
        ("rss_key = \"symmetric\"", "no key of a hash to show"),
    ] {
        let text = config("eth0", "adaptive", &format!("{ALL}\n{line}"));
        let process = net.spawn(&text, &[]);
        assert_eq!(process.wait_within(PATIENCE).unwrap().code(), Some(2), "{}", process.stderr());
        let said = process.stderr();
        assert!(said.contains("port eth0: changing settings: changing its ") && said.contains(why), "{said}");
        // What was changed before that is put back.
        assert_eq!(settings(&net.lb, "eth0"), BEFORE);
        assert!(!record(&net.lb, "eth0").exists());
    }
    let process = net.spawn(&config("eth0", "adaptive", "channels = 3"), &[]);
    assert_eq!(process.wait_within(PATIENCE).unwrap().code(), Some(2), "{}", process.stderr());
    assert!(process.stderr().contains("3 queues: it can have 1 to 2"), "{}", process.stderr());

    let auto = lacking.map(|key| format!("{key} = \"auto\"")).join("\n");
    let balancer = net.start(&config("eth0", "adaptive", &auto), &[]);
    let page = net.ask(&["status"]);
    assert!(page.contains("RSS table") && page.contains("not changed: the driver has no table"), "{page}");
    assert!(page.contains("cores of interrupts") && page.contains("none that can be seen"), "{page}");
    balancer.stop();
}

/// The balancer's program where `gro_flush_timeout` of `eth0` cannot be written: for it and nobody else.
fn with_half_of_defer(net: &Net) -> Command {
    let file = "/sys/class/net/eth0/gro_flush_timeout";
    let script =
        format!("mount --bind {file} {file} && mount -o remount,bind,ro {file} && exec {PROGRAM} \"$@\"");
    net.lb.command("unshare").args(["--mount", "sh", "-c", &script, "sh"])
}

#[test]
fn what_can_only_be_done_by_half_is_put_back() {
    let net = net("lb-set-half");
    let refused = "interrupts put off";
    let file = net.configure(&config("eth0", "busy", "channels = 2\ndefer = \"required\""));
    let output = with_half_of_defer(&net).args(["run", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
    let why = format!("changing its {refused}");
    assert!(output.stderr.contains(&why) && output.stderr.contains("Read-only file"), "{}", output.stderr);
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
    assert!(!record(&net.lb, "eth0").exists());

    // Where it need not be, the rest is done, and this is as it was.
    let file = net.configure(&config("eth0", "busy", "channels = 2"));
    let process = with_half_of_defer(&net).args(["run", "--config"]).arg(&file).spawn().unwrap();
    process.wait_for_output("balancing", PATIENCE).unwrap();
    assert!(process.stderr().contains("napi_defer_hard_irqs: 0 again"), "{}", process.stderr());
    assert_eq!(settings(&net.lb, "eth0"), [2, 0, 0]);
    let status: Value = serde_json::from_str(&net.ask(&["status", "--json"])).unwrap();
    let changes = status["ports"][0]["changes"].as_array().unwrap();
    assert_eq!((&changes[0]["setting"], changes.len()), (&json!("channels"), 1), "{status}");
    let page = net.ask(&["status"]);
    assert!(page.contains(refused) && page.contains("not changed: "), "{page}");
    process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(process.wait_within(PATIENCE).unwrap().code(), Some(0), "{}", process.stderr());
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);

    // The doctor, by the same way.
    let output = with_half_of_defer(&net).args(["doctor", "eth0", "--fix"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", output.stdout);
    assert!(output.stdout.contains("gro_flush_timeout: Read-only file"), "{}", output.stdout);
    assert_eq!(settings(&net.lb, "eth0"), [1, 0, 0]);
}

#[test]
fn what_could_not_be_put_back_stays_on_record_and_is_put_back_later() {
    let net = net("lb-set-left");
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    kill(&balancer.process);
    // It may be another interface that has come to have the number: nothing is changed by guess.
    net.lb.ip("link set eth0 address 02:00:00:00:07:07").unwrap();
    let refused = restore(&net, &[]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stdout);
    let why = "could not be put back: eth0 has another hardware address since";
    assert_eq!(refused.stdout.matches(why).count(), 3, "{}", refused.stdout);
    assert_eq!(settings(&net.lb, "eth0"), CHANGED);
    assert!(record(&net.lb, "eth0").exists());
    // The next start finds what it wants, and the values from before are still known at its end.
    let balancer = net.start(&config("eth0", "adaptive", ALL), &[]);
    assert_eq!(settings(&net.lb, "eth0"), CHANGED);
    balancer.stop();
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
    assert!(!record(&net.lb, "eth0").exists());
}

#[test]
fn a_check_is_of_the_queues_that_there_will_be() {
    let net = net("lb-set-check");
    let text = config("eth0", "adaptive", "channels = 2\nqueues = 2").replace("count = 1", "count = 2");
    let file = net.configure(&text);
    let told = net.lb.command(PROGRAM).args(["check", "--config"]).arg(&file).check().unwrap();
    assert!(told.contains("memory of each worker\n  packets            6,400 frames, "), "{told}");
    assert_eq!(settings(&net.lb, "eth0"), BEFORE);
}
