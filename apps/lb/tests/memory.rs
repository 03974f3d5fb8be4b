//! The workers of a configuration and their memory: as they are told before the start, and as they are.

mod common;

use std::fs;

use common::{Net, web};
use serde_json::{Value, json};

const REALS: [(&str, u32); 1] = [("10.0.0.11", 100)];

/// What the rings of one queue of a veth hold, and what the balancer holds.
const RECKONING: &str = "the rings take 6,400 = RX ring 2,048 + TX ring 2,048 + leaving 2,048 + 3 batches of 64 + \
                         held by stages 64";

#[test]
fn what_check_says_of_packet_memory_is_what_there_is() {
    let net = Net::new("lb-memory", 1, 2);
    let config = web(&REALS).replace("count = 1", "cores = [1, 0]");
    let file = net.configure(&config);
    let check = |options: &[&str]| {
        let command = net.lb.command(env!("CARGO_BIN_EXE_afx-lb")).args(["check", "--config"]).arg(&file);
        command.args(options).check().unwrap()
    };
    let told = check(&[]);
    let lines = format!(
        "plan of the workers\n  worker 0           core 1, queues eth0:0: as told\n\
         \x20 worker 1           core 0, queues eth0:1: as told\nmemory of each worker\n  packets            6,400 frames, 12.5 MiB: {RECKONING}\n\
         \x20 connections        0.1 MiB\n  all workers        take "
    );
    assert!(told.contains(&lines), "{lines}\nin:\n{told}");
    if fs::read_to_string("/proc/meminfo").unwrap().contains("Hugepagesize:       2048 kB") {
        // Seven for the packets of each, and none for tables so small.
        assert!(told.contains("  all workers        take 14 huge pages of 2 MiB, and "), "{told}");
    }

    // For programs the same.
    let json: Value = serde_json::from_str(&check(&["--json"])).unwrap();
    let workers = json["here"]["workers"].as_array().unwrap();
    let first = json!({
        "core": 1, "why": "as told", "queues": ["eth0:0"], "frames": 6400, "packet_bytes": 6400 * 2048,
        "reckoning": RECKONING,
    });
    assert_eq!((&workers[0], workers.len()), (&first, 2));
    let huge_pages = json["here"]["huge_pages"].as_str().unwrap();
    assert!(told.contains(&format!("take {huge_pages}")), "{huge_pages}");

    let balancer = net.start(&config, &[]);
    let plan = balancer.log();
    assert!(plan.contains("worker 0: core 1, queues eth0:0") && plan.contains("worker 1: core 0"), "{plan}");
    let status: Value = serde_json::from_str(&net.ask(&["status", "--json"])).unwrap();
    for (worker, core) in status["workers"].as_array().unwrap().iter().zip([1, 0]) {
        assert_eq!(worker["core"], core, "{worker}");
        let (frames, memory) = (worker["frames"].as_u64().unwrap(), worker["memory"].as_str().unwrap());
        // On huge pages the last one is filled.
        assert!(frames == 6400 || frames == 7168 && memory.contains(" huge pages"), "{worker}");
        assert!(memory.ends_with(RECKONING), "{memory}");
    }
    let page = net.ask(&["status"]);
    assert!(page.contains("\nmemory\n  worker 0, 1  ") || page.contains("\nmemory\n  worker 0  "), "{page}");
    balancer.stop();
}

#[test]
fn where_the_interface_is_not_neither_can_be_told() {
    let net = Net::new("lb-memory-none", 1, 1);
    let file = net.configure(&web(&REALS).replace("eth0", "eth9"));
    let check = |options: &[&str]| {
        let command = net.lb.command(env!("CARGO_BIN_EXE_afx-lb")).args(["check", "--config"]).arg(&file);
        command.args(options).check().unwrap()
    };
    let text = check(&[]);
    let line = "plan and memory of the workers\n  on this machine    cannot be told here: port eth9: ";
    assert!(text.contains(line), "{text}");
    let json: Value = serde_json::from_str(&check(&["--json"])).unwrap();
    assert!(json["here"]["unknown"].as_str().unwrap().starts_with("port eth9: "), "{json}");
}
