//! What it cannot work with: said at the start, with nothing changed.

mod common;

use afx_redirect::{Decap, DecapOptions};
use afx_testbed::{Process, Signal};
use common::{Net, PATIENCE, web};

const REALS: [(&str, u32); 1] = [("10.0.0.11", 100)];

/// That it ends by itself with the status for a bad start, and returns what it said last.
fn refusal(net: &Net, process: &Process) -> String {
    let status = process.wait_within(PATIENCE).unwrap();
    let said = process.stderr();
    assert_eq!(status.code(), Some(2), "{said}");
    assert_eq!(process.stdout(), "");
    assert!(!said.contains("balancing"), "{said}");
    net.own_address_answers();
    let line = said.lines().rfind(|line| line.starts_with("afx-lb: "));
    line.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn a_bad_start_says_what_is_wrong_and_leaves_the_interface_alone() {
    let net = Net::new("lb-refuse", 1, 2);
    let right = web(&REALS);
    let port = |key: &str| right.replace("\"eth0\"", &format!("\"eth0\"\n{key}"));
    let cases: [(String, &[&str]); 4] = [
        (
            right.replace("\"eth0\"", "\"eth7\""),
            &["port eth7", "there is no interface eth7 in this network namespace"],
        ),
        (port("queues = 9"), &["port eth0", "no queue 2", "it has queues 0 to 1"]),
        (port("mode = \"zero-copy\""), &["port eth0", "queue 0", "zero-copy"]),
        (right.replace("count = 1", "cores = [4000]"), &["core 4000"]),
    ];
    for (config, expected) in cases {
        let said = refusal(&net, &net.spawn(&config, &[]));
        assert!(expected.iter().all(|part| said.contains(part)), "{said}");
        assert!(!net.has_xdp_program(), "{said}");
    }
    // With all that put right it starts.
    net.start(&right, &[]).stop();
}

#[test]
fn somebody_elses_xdp_program_stays() {
    let net = Net::new("lb-refuse-xdp", 1, 1);
    let index = net.lb.interface_index("eth0").unwrap();
    let other = net.lb.run(|| Decap::attach(index, &DecapOptions::default())).unwrap().unwrap();
    let program = net.lb.xdp_program("eth0").unwrap();
    let said = refusal(&net, &net.spawn(&web(&REALS), &[]));
    assert!(said.contains("port eth0") && said.contains("XDP program"), "{said}");
    assert_eq!(net.lb.xdp_program("eth0").unwrap(), program);
    drop(other);
    net.start(&web(&REALS), &[]).stop();
}

#[test]
fn two_balancers_do_not_share_an_interface() {
    let net = Net::new("lb-refuse-two", 1, 1);
    let first = net.start(&web(&REALS), &[]);
    let program = net.lb.xdp_program("eth0").unwrap();
    let said = refusal(&net, &net.spawn(&web(&REALS), &[]));
    assert!(said.contains("socket path taken"), "{said}");
    let without_socket = web(&REALS) + "[control]\nsocket = \"none\"\n";
    let said = refusal(&net, &net.spawn(&without_socket, &[]));
    assert!(said.contains("port eth0"), "{said}");
    assert_eq!(net.lb.xdp_program("eth0").unwrap(), program);
    first.stop();
}

#[test]
fn too_few_huge_pages_are_refused_where_they_are_demanded() {
    let net = Net::new("lb-refuse-pages", 1, 1);
    // More than any machine that tests run on has: a table of 4 GiB.
    let demanding = web(&REALS).replace("[workers]", "[workers]\nhuge_pages = \"required\"");
    let demanding = demanding.replace("capacity = 4096", "capacity = 134217728");
    let said = refusal(&net, &net.spawn(&demanding, &[]));
    assert!(said.contains("too few huge pages, which are demanded: the connection table"), "{said}");
    assert!(said.contains("sysctl vm.nr_hugepages="), "{said}");
}

#[test]
fn without_the_rights_it_says_which_are_missing() {
    let net = Net::new("lb-refuse-root", 1, 1);
    let file = net.configure(&web(&REALS));
    // Root in name, so that it can read its files, and without a single capability; then with just those it names.
    let start = |bounding_set: &str| {
        let command = net.lb.command("setpriv").arg(format!("--bounding-set=-all{bounding_set}"));
        let command = command.arg(env!("CARGO_BIN_EXE_afx-lb")).args(["run", "--config"]).arg(&file);
        command.spawn().unwrap()
    };
    let process = start("");
    assert!(refusal(&net, &process).contains("port eth0"));
    let said = process.stderr();
    let needed = said.split_once("    run it as root, or with ").unwrap_or_else(|| panic!("{said}")).1;
    let named = needed
        .split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .filter_map(|word| word.strip_prefix("CAP_"));
    let set: String = named.map(|name| format!(",+{}", name.to_lowercase())).collect();
    assert!(!net.has_xdp_program());
    let process = start(&set);
    process.wait_for_output("balancing", PATIENCE).unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(process.wait_within(PATIENCE).unwrap().code(), Some(0));
    assert!(!net.has_xdp_program());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let net = Net::new("lb-refuse-file", 0, 1);
    let command = net.lb.command(env!("CARGO_BIN_EXE_afx-lb"));
    let output = command.args(["run", "--config", "/nonexistent/lb.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        output.stderr.contains("/nonexistent/lb.toml: error: there is no such file"),
        "{}",
        output.stderr
    );
}
