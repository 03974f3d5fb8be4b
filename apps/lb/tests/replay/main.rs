//! `afx-lb replay` as a user calls it.

mod lab;

use std::fs::File;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use afx_testbed::wait_for;
use serde_json::Value;

use lab::{CLIENT, CONFIG, Lab, fragments, lines, ping, tcp, udp};

const PATIENCE: Duration = Duration::from_secs(60);

/// The outer destination of a packet to a real.
fn real(packet: &[u8]) -> String {
    let octets: [u8; 4] = packet[30..34].try_into().unwrap();
    std::net::Ipv4Addr::from(octets).to_string()
}

/// The fields of a line that are named, joined.
fn fields(line: &Value, names: &[&str]) -> String {
    let field = |name: &&str| match &line[*name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    names.iter().map(field).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_packet_has_a_line_that_says_what_became_of_it() {
    let lab = Lab::new();
    let mut options = tcp(5001, 443, false, 0);
    // An IPv4 header of six words.
    options[14] = 0x46;
    options.splice(34..34, [1, 1, 1, 1]);
    options[17] += 4;
    lab.capture(
        "in.pcap",
        &[
            (0, tcp(5000, 443, true, 0)),
            (10, tcp(5000, 443, false, 20)),
            (20, tcp(5000, 80, false, 0)),
            (30, ping()),
            (40, tcp(5000, 443, false, 1200)),
            (50, options),
            (60, udp(5000, 8000)),
            (70, tcp(5000, 443, false, 1900)),
            (80, udp(5000, 53)),
            (90, vec![0xff; 60]),
        ],
    );
    let (lines, said) = lab.replay("");
    let all = ["index", "timestamp", "verdict", "reason", "vip", "real", "how", "out"];
    assert_eq!(lines[0].as_object().unwrap().keys().count(), all.len());
    let first = "0 1700000000.000000000 tx null 198.51.100.10:443/tcp 10.0.0.11 maglev [0]";
    assert_eq!(fields(&lines[0], &all), first);
    let rest: Vec<_> =
        lines.iter().map(|line| fields(line, &["verdict", "reason", "vip", "real", "how", "out"])).collect();
    assert_eq!(
        rest,
        [
            "tx null 198.51.100.10:443/tcp 10.0.0.11 maglev [0]",
            "tx null 198.51.100.10:443/tcp 10.0.0.11 connection [1]",
            "pass not_steered null null null []",
            "tx null 198.51.100.10:443/tcp null null [2]",
            "drop balancer.too_big 198.51.100.10:443/tcp null null [3]",
            "drop balancer.ip_options null null null []",
            "drop balancer.no_real 198.51.100.10:8000/udp null null []",
            "pass oversize null null null []",
            "tx null 198.51.100.10:53/udp 10.0.0.12 maglev [4]",
            "pass not_steered null null null []",
        ]
    );
    let sent = lab.packets("out.pcap");
    assert_eq!(sent.iter().map(|(millis, _)| *millis).collect::<Vec<_>>(), [0, 10, 30, 40, 80]);
    // To the first real by its own next hop, to the other by the stand-in.
    assert_eq!(sent[0].1[..12], [2, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0]);
    assert_eq!(sent[4].1[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0]);
    assert_eq!((&*real(&sent[0].1), &*real(&sent[4].1)), ("10.0.0.11", "10.0.0.12"));
    assert_eq!(sent[1].1[34..], tcp(5000, 443, false, 20)[14..]);
    // Both answers go back to where the packets came from.
    for (_, answer) in &sent[2..4] {
        assert_eq!((&answer[..6], &answer[6..12], &answer[30..34]), (&[2; 6][..], &[4; 6][..], &CLIENT[..]));
    }
    for part in [
        "own MAC address 02:00:00:00:00:00, MTU 1500, next hop 02:00:00:00:00:01\n",
        "packets in                                10   0.090 s of traffic",
        "tx (sent)                                4   5 written",
        "drop (dropped)                           3",
        "balancer.no_real                       1   ",
        "not_steered                            2   ",
    ] {
        assert_eq!(said.matches(part).count(), 1, "{part} in:\n{said}");
    }
    assert!(!said.contains("outer source 192"), "the configuration gives one:\n{said}");
}

#[test]
fn how_long_packets_may_be_is_said_by_the_mtu_and_the_port() {
    let lab = Lab::new();
    lab.capture("in.pcap", &[(0, tcp(5000, 443, true, 0)), (10, tcp(5000, 443, false, 8000))]);
    let config = CONFIG.replace("client_mtu = 1000\n", "");
    lab.file("lb.toml", &config);
    let replayed = |more| {
        let (lines, _) = lab.replay(more);
        fields(&lines[1], &["verdict", "reason", "real"])
    };
    assert_eq!(replayed(""), "pass oversize null");
    assert_eq!(replayed("--mtu 9000"), "tx null 10.0.0.11");
    // In another header, and whole.
    let long = tcp(5000, 443, false, 8000);
    let sent = lab.packets("out.pcap");
    assert_eq!((sent[1].1.len(), &sent[1].1[34..]), (long.len() + 20, &long[14..]));
    lab.file("lb.toml", &config.replace("\"eth0\"", "\"eth0\"\nmulti_buffer = \"off\""));
    assert_eq!(replayed("--mtu 9000"), "pass oversize null");
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let lab = Lab::new();
    let reals: String = (1..50).map(|real| format!("[[vip.real]]\naddress = \"10.0.1.{real}\"\n")).collect();
    lab.file("lb.toml", &CONFIG.replacen("[[vip.real]]", &format!("{reals}[[vip.real]]"), 1));
    // Bursts that would fall into batches, pauses, flows that come again, and fragments that wait.
    let mut packets = Vec::new();
    for number in 0..2000u64 {
        let at = number / 50 * 400;
        let port = 1024 + (number * 7919 % 700) as u16;
        packets.push((at, if number % 3 == 0 { udp(port, 53) } else { tcp(port, 443, number % 5 == 0, 10) }));
        if number % 97 == 0 {
            let [first, second] = fragments(number as u16);
            packets.extend([(at, second), (at + number % 2, first)]);
        }
    }
    lab.capture("in.pcap", &packets);
    lab.capture("in.pcapng", &packets);
    let (lines, _) = lab.replay("");
    let read = |name: &str| std::fs::read(lab.path(name)).unwrap();
    let [sent, verdicts] = ["out.pcap", "verdicts.jsonl"].map(read);
    for input in ["in.pcap", "in.pcapng"] {
        let output =
            lab.run(&format!("--config lb.toml --in {input} --out again.pcap --verdicts again.jsonl"));
        assert!(output.status.success());
        assert!(read("again.pcap") == sent, "{input}");
        assert!(read("again.jsonl") == verdicts, "{input}");
    }
    // All of it is in there.
    let count = |how: &str| lines.iter().filter(|line| line["how"] == how).count();
    assert!(count("maglev") > 300 && count("connection") > 300);
    let chosen: std::collections::BTreeSet<_> =
        lines.iter().filter_map(|line| line["real"].as_str()).collect();
    assert!(chosen.len() > 40, "{} reals", chosen.len());
}

#[test]
fn a_reload_is_in_force_from_its_packet_on_and_keeps_connections() {
    let lab = Lab::new();
    let drained = CONFIG.replacen("address = \"10.0.0.11\"", "address = \"10.0.0.11\"\nstate = \"drain\"", 1);
    let added = drained.replacen("[[vip.real]]", "[[vip.real]]\naddress = \"10.0.0.21\"\n[[vip.real]]", 1);
    lab.file("b.toml", &added);
    lab.file("c.toml", &added.replacen("port = 443", "port = 444", 1));
    let new = |port: u16| tcp(port, 443, true, 0);
    let known = || tcp(5000, 443, false, 0);
    let packets = [new(5000), new(5001), new(5002), known(), new(5003), known(), new(5004)];
    lab.capture("in.pcap", &packets.map(|packet| (0, packet)));
    let seen = |more: &str| {
        let (lines, _) = lab.replay(more);
        lines.iter().map(|line| fields(line, &["verdict", "real"])).collect::<Vec<_>>()
    };
    let (old, new, gone) = ("tx 10.0.0.11", "tx 10.0.0.21", "pass null");
    assert_eq!(seen(""), [old; 7]);
    assert_eq!(seen("--then b.toml@2"), [old, old, new, old, new, old, new]);
    assert_eq!(seen("--then b.toml@0"), [new; 7]);
    assert_eq!(seen("--then b.toml@4 --then c.toml@5"), [old, old, old, old, new, gone, gone]);
    assert_eq!(
        seen("--then c.toml@1 --then b.toml@5 --then lb.toml@6"),
        [old, gone, gone, gone, gone, new, old]
    );
}

#[test]
fn time_is_the_captures() {
    let lab = Lab::new();
    let minute = 60_000;
    let times = [0, 1, minute / 2, minute, 3 * minute, 3 * minute + 1];
    lab.capture("in.pcap", &times.map(|millis| (millis, udp(5000, 53))));
    let (lines, _) = lab.replay("");
    let how: Vec<_> = lines.iter().map(|line| line["how"].as_str().unwrap()).collect();
    assert_eq!(how, ["maglev", "connection", "connection", "connection", "maglev", "connection"]);
}

#[test]
fn lines_come_in_order_though_a_packet_is_held() {
    let lab = Lab::new();
    let [first, second] = fragments(1);
    let [_, lost] = fragments(2);
    let [_, last] = fragments(3);
    lab.capture(
        "in.pcap",
        &[
            (0, second),
            (1, udp(1, 53)),
            (2, first),
            (3, lost),
            (4, udp(2, 53)),
            (5000, udp(3, 53)),
            (5001, last),
        ],
    );
    let (lines, _) = lab.replay("");
    let seen: Vec<_> =
        lines.iter().map(|line| fields(line, &["index", "verdict", "reason", "out"])).collect();
    // The second fragment goes out with the first, after a packet that came later. One whose first fragment never comes
    // is dropped when its time is over, or at the end.
    let [early, late] = if lines[0]["out"][0] == 1 { [1, 2] } else { [2, 1] };
    assert_eq!(
        seen,
        [
            format!("0 tx null [{early}]"),
            "1 tx null [0]".into(),
            format!("2 tx null [{late}]"),
            "3 drop balancer.fragment []".into(),
            "4 tx null [3]".into(),
            "5 tx null [4]".into(),
            "6 drop balancer.fragment []".into(),
        ]
    );
    assert!(lab.packets("out.pcap").iter().all(|(_, packet)| real(packet) == "10.0.0.12"));
}

#[test]
fn verdicts_go_to_the_standard_output_where_asked_and_no_file_is_needed() {
    let lab = Lab::new();
    lab.capture("in.pcap", &[(0, tcp(5000, 443, true, 0)), (1, udp(5000, 53))]);
    let output = lab.run("--config lb.toml --in in.pcap --verdicts -");
    assert!(output.status.success());
    let lines = lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(lines.iter().map(|line| &line["out"][0]).collect::<Vec<_>>(), [0, 1]);
    assert!(lab.run("--config lb.toml --in in.pcap").status.success());
    assert_eq!(lab.names(), ["in.pcap", "lb.toml"]);
}

#[test]
fn outputs_take_the_place_of_what_is_there() {
    let lab = Lab::new();
    lab.capture("in.pcap", &[(0, tcp(5000, 443, true, 0))]);
    lab.file("real.pcap", "old");
    lab.file("verdicts.jsonl", "old");
    std::os::unix::fs::symlink("real.pcap", lab.path("out.pcap")).unwrap();
    lab.replay("");
    assert!(lab.path("out.pcap").is_symlink());
    assert_eq!((lab.packets("real.pcap").len(), lab.lines().len()), (1, 1));
    // What a file that anyone else makes would have.
    let mode = |name: &str| std::fs::metadata(lab.path(name)).unwrap().permissions().mode();
    assert_eq!(mode("real.pcap"), mode("lb.toml"));
    let output = lab.run("--config lb.toml --in in.pcap --out /dev/null --verdicts /dev/null");
    assert!(output.status.success());
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(lab.names(), ["in.pcap", "lb.toml", "out.pcap", "real.pcap", "verdicts.jsonl"]);
}

#[test]
fn what_it_cannot_work_with_is_said_and_nothing_is_left() {
    let lab = Lab::new();
    lab.capture("in.pcap", &[(0, tcp(5000, 443, true, 0)), (1, udp(5000, 53))]);
    lab.capture("empty.pcap", &[]);
    let good = std::fs::read(lab.path("in.pcap")).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(lab.path(name), bytes).unwrap();
    write("cut.pcap", &good[..good.len() - 1]);
    write("linktype.pcap", &[&good[..20], &[113], &good[21..]].concat());
    lab.file("text.pcap", "no capture at all");
    lab.file("wrong.toml", "version = 1\n");
    lab.file("port.toml", &CONFIG.replace("eth0", "eth1"));
    std::os::unix::fs::symlink("in.pcap", lab.path("link.pcap")).unwrap();
    std::fs::create_dir(lab.path("folder")).unwrap();
    let before = lab.names();
    // Each is a change of the command that works, or another file in it.
    let base = "--config lb.toml --in in.pcap --out out.pcap --verdicts verdicts.jsonl";
    let instead = |old: &str, new: &str| base.replace(old, new);
    for (arguments, expected) in [
        (instead("in.pcap", "missing.pcap"), "reading the capture missing.pcap: No such file"),
        (
            instead("in.pcap", "text.pcap"),
            "reading the capture text.pcap: it is no capture: neither pcap nor pcapng",
        ),
        (
            instead("in.pcap", "cut.pcap"),
            "reading the capture cut.pcap: after 1 packets: the file is cut off",
        ),
        (instead("in.pcap", "linktype.pcap"), "link type 113: only Ethernet, type 1, can be read"),
        (
            instead("in.pcap", "folder"),
            "reading the capture folder: it is read twice, which only works with a file",
        ),
        (instead("out.pcap", "folder"), "cannot write folder: it is a folder"),
        (instead("out.pcap", "folder/no/out.pcap"), "cannot write folder/no/out.pcap: No such file"),
        (instead("verdicts.jsonl", "/proc/verdicts.jsonl"), "cannot write /proc/verdicts.jsonl: "),
        (
            instead("out.pcap", "in.pcap"),
            "--out in.pcap is the same file as that of --in: nothing was changed",
        ),
        (instead("out.pcap", "link.pcap"), "--out link.pcap is the same file as that of --in"),
        (instead("out.pcap", "./lb.toml"), "--out ./lb.toml is the same file as that of --config"),
        (
            instead("verdicts.jsonl", "folder/../out.pcap"),
            "folder/../out.pcap is the same file as that of --out",
        ),
        (instead("lb.toml", "missing.toml"), "missing.toml: error: "),
        (instead("lb.toml", "wrong.toml"), "wrong.toml: "),
        (format!("{base} --then wrong.toml@1"), "wrong.toml: "),
        (format!("{base} --then missing.toml@1"), "missing.toml: error: "),
        (
            format!("{base} --then port.toml@1"),
            "port.toml: a change of [[port]] takes a restart, not a reload",
        ),
        (format!("{base} --then lb.toml@2"), "--then lb.toml@2: the capture's last packet is number 1"),
        (
            format!("{base} --then lb.toml@1 --then lb.toml@1"),
            "it has to come after the one before, at packet 1",
        ),
        (format!("{base} --then lb.toml"), "write it as lb.toml@1000"),
        (format!("{} --then lb.toml@0", instead("in.pcap", "empty.pcap")), "the capture has no packets"),
        (format!("{base} --mtu 100"), "100 is not in 576..=65535"),
        ("--in in.pcap".into(), "--config <FILE>"),
    ] {
        let output = lab.run(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(expected), "{arguments}:\n{said}");
        assert!(output.stdout.is_empty());
        assert_eq!(lab.names(), before, "{arguments}");
    }
    // A capture without packets is one.
    let output = lab.run(&instead("in.pcap", "empty.pcap"));
    assert!(output.status.success());
    assert!(lab.lines().is_empty() && lab.packets("out.pcap").is_empty());
}

#[test]
fn one_that_is_interrupted_leaves_nothing() {
    let lab = Lab::new();
    // More lines than a pipe holds: it waits until somebody reads them.
    lab.capture("in.pcap", &vec![(0, udp(5000, 53)); 5000]);
    let pipe = lab.path("verdicts");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let before = lab.names();
    let mut command = lab.command("--config lb.toml --in in.pcap --out out.pcap --verdicts verdicts");
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    // Opening it waits for the other end.
    let mut reader = File::open(&pipe).unwrap();
    wait_for("the temporary file", PATIENCE, || lab.names().len() > before.len()).unwrap();
    let pid = nix::unistd::Pid::from_raw(process.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut process.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.ends_with("interrupted: no file was written\n"), "{said}");
    assert_eq!(lab.names(), before);
}

#[test]
fn a_full_disk_is_a_failure_and_leaves_nothing() {
    let lab = Lab::new();
    lab.capture("in.pcap", &vec![(0, udp(5000, 53)); 5000]);
    let before = lab.names();
    let output = lab.run("--config lb.toml --in in.pcap --out out.pcap --verdicts /dev/full");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write /dev/full: No space left"), "{said}");
    assert_eq!(lab.names(), before);
}

#[test]
fn it_needs_no_rights() {
    let lab = Lab::new();
    lab.capture("in.pcap", &[(0, tcp(5000, 443, true, 0)), (1, udp(5000, 53))]);
    let (expected, _) = lab.replay("");
    for name in ["out.pcap", "verdicts.jsonl"] {
        std::fs::remove_file(lab.path(name)).unwrap();
    }
    // Nobody may not enter the folder that the program was built in. It is large, and copied only if it must be.
    let (program, here) = (env!("CARGO_BIN_EXE_afx-lb"), lab.path("afx-lb"));
    std::fs::hard_link(program, &here).or_else(|_| std::fs::copy(program, &here).map(drop)).unwrap();
    std::fs::set_permissions(lab.0.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"])
        .args(["./afx-lb", "replay", "--config", "lb.toml", "--in", "in.pcap"])
        .args(["--out", "out.pcap", "--verdicts", "verdicts.jsonl"])
        .current_dir(lab.0.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lab.lines(), expected);
    assert_eq!(std::fs::metadata(lab.path("out.pcap")).unwrap().uid(), 65534);
}
