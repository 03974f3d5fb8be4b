//! The memory that a configuration takes: as it is told before the start, and as it is.

mod common;

use std::fs;

use common::{Net, web};
use serde_json::Value;

const REALS: [(&str, u32); 1] = [("10.0.0.11", 100)];

/// What the rings of one queue of a veth hold, and what the balancer holds.
const RECKONING: &str = "the rings take 6,400 = RX ring 2,048 + TX ring 2,048 + leaving 2,048 + 3 batches of 64 + \
                         held by stages 64";

#[test]
fn what_check_says_of_packet_memory_is_what_there_is() {
    let net = Net::new("lb-memory", 1, 2);
    let config = web(&REALS).replace("count = 1", "count = 2");
    let file = net.configure(&config);
    let told = net.lb.command(env!("CARGO_BIN_EXE_afx-lb")).args(["check", "--config"]).arg(&file);
    let told = told.check().unwrap();
    let lines = format!(
        "memory of each worker\n  packets            6,400 frames, 12.5 MiB: {RECKONING}\n\
         \x20 connections        0.1 MiB\n  all workers        take "
    );
    assert!(told.contains(&lines), "{lines}\nin:\n{told}");
    if fs::read_to_string("/proc/meminfo").unwrap().contains("Hugepagesize:       2048 kB") {
        // Seven for the packets of each, and none for tables so small.
        assert!(told.contains("  all workers        take 14 huge pages of 2 MiB, and "), "{told}");
    }

    let balancer = net.start(&config, &[]);
    let status: Value = serde_json::from_str(&net.ask(&["status", "--json"])).unwrap();
    for worker in status["workers"].as_array().unwrap() {
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
fn where_the_interface_is_not_its_memory_cannot_be_told() {
    let net = Net::new("lb-memory-none", 1, 1);
    let file = net.configure(&web(&REALS).replace("eth0", "eth9"));
    let told = net.lb.command(env!("CARGO_BIN_EXE_afx-lb")).args(["check", "--config"]).arg(&file);
    let told = told.check().unwrap();
    let line = "memory of the workers\n  packets            cannot be told here: port eth9: ";
    assert!(told.contains(line), "{told}");
}
