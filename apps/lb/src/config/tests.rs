//! What files mean, and what is said of wrong ones: whole messages, as an operator reads them.

use std::time::Duration;

use super::*;

/// A file that is right, to be made wrong in one place.
const RIGHT: &str = r#"version = 1
[[port]]
interface = "eth1"
[forwarding]
method = "ipip"
[[vip]]
address = "198.51.100.10"
port = 443
protocol = "tcp"
[[vip.real]]
address = "10.0.0.11"
"#;

#[track_caller]
fn valid(text: &str) -> Config {
    let Outcome { config, diagnostics } = Config::parse("lb.toml", text);
    let messages: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
    assert!(messages.is_empty(), "{}", messages.join("\n\n"));
    config.expect("a file without errors gives a configuration")
}

fn messages(text: &str) -> Vec<String> {
    let Outcome { config, diagnostics } = Config::parse("lb.toml", text);
    assert_eq!(config.is_none(), diagnostics.iter().any(Diagnostic::is_error));
    diagnostics.iter().map(Diagnostic::to_string).collect()
}

/// Asserts that the right file, with one part of it replaced, has this one message.
#[track_caller]
fn changed(part: &str, by: &str, message: &str) {
    assert!(RIGHT.contains(part), "{part}");
    assert_eq!(messages(&RIGHT.replacen(part, by, 1)).join("\n\n"), message);
}

/// Asserts that the right file, with some lines more, has this one message.
#[track_caller]
fn added(lines: &str, message: &str) {
    assert_eq!(messages(&format!("{RIGHT}{lines}\n")).join("\n\n"), message);
}

#[test]
fn the_example_is_valid_and_says_what_it_seems_to() {
    let config = valid(include_str!("../../lb.example.toml"));
    assert_eq!(config.workers, Workers::Cores(vec![2, 3]));
    assert_eq!(
        config.forwarding,
        Forwarding::Ipip {
            source_v4: Some("10.200.0.0/16".parse().unwrap()),
            source_v6: Some("fd00:afb::/64".parse().unwrap())
        }
    );
    let vips: Vec<(String, usize)> = config
        .vips
        .iter()
        .map(|vip| (format!("{} {} {}", vip.address, vip.port, vip.protocol), vip.reals.len()))
        .collect();
    assert_eq!(
        vips,
        [
            ("198.51.100.10 443 tcp".to_owned(), 3),
            ("198.51.100.10 443 udp".to_owned(), 1),
            ("2001:db8::10 53 udp".to_owned(), 1)
        ]
    );
    let weights: Vec<u32> = config.vips[0].reals.iter().map(|real| real.weight).collect();
    assert_eq!(weights, [100, 200, 0]);
    assert_eq!(config.vips[2].reals[0].next_hop, Some(MacAddress([2, 0, 0, 0, 0, 0x11])));
}

#[test]
fn what_the_example_calls_a_default_is_one() {
    let example = include_str!("../../lb.example.toml");
    // "count" has no default that could be written down.
    let is_default =
        |line: &&str| line.starts_with("# ") && line.contains(" = ") && !line.starts_with("# count");
    assert_eq!(example.lines().filter(is_default).count(), 12);
    let spelled_out: String = example
        .lines()
        .map(|line| if is_default(&line) { line.trim_start_matches("# ") } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(valid(&spelled_out), valid(example));
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = valid(RIGHT);
    assert_eq!(
        config.ports,
        [Port { interface: "eth1".to_owned(), queues: Queues::All, mode: Mode::Auto, attach: Attach::Auto }]
    );
    assert_eq!((config.workers, config.idle), (Workers::Auto, Idle::Busy));
    assert_eq!(config.maglev, Maglev { table_size: TableSize::DEFAULT, seed: 0 });
    assert_eq!(config.connections, Connections { capacity: 1 << 20, timeouts: Timeouts::default() });
    assert_eq!(config.vips[0].reals[0].weight, 100);
}

#[test]
fn what_is_said_counts() {
    let text = RIGHT.replace("\"eth1\"", "\"eth1\"\nqueues = 4\nmode = \"zero-copy\"\nattach = \"native\"").replace(
        "[forwarding]",
        "[workers]\ncount = 2\nidle = \"adaptive\"\n[maglev]\ntable_size = 655373\nseed = 7\n\
         [connections]\ncapacity = 2_000_000\nopening = \"5s\"\nestablished = \"2h\"\nclosing = \"1m\"\nudp = \"1d\"\n\
         [forwarding]",
    );
    let config = valid(&text);
    let four = Queues::First(NonZeroU16::new(4).unwrap());
    assert_eq!(
        config.ports,
        [Port { interface: "eth1".to_owned(), queues: four, mode: Mode::ZeroCopy, attach: Attach::Native }]
    );
    assert_eq!((config.workers, config.idle), (Workers::Count(NonZeroU16::new(2).unwrap()), Idle::Adaptive));
    assert_eq!((config.maglev.table_size.slots(), config.maglev.seed), (655_373, 7));
    let seconds = Duration::from_secs;
    assert_eq!(
        config.connections,
        Connections {
            capacity: 2_000_000,
            timeouts: Timeouts {
                opening: seconds(5),
                established: seconds(7200),
                closing: seconds(60),
                datagram: seconds(86_400)
            }
        }
    );
}

#[test]
fn the_version_comes_first() {
    changed(
        "version = 1\n",
        "nonsense = 1\n",
        "lb.toml:1:1: error: the version of the file's format is missing\n    \
         nonsense = 1\n    ^\n    begin the file with `version = 1`",
    );
    changed(
        "version = 1",
        "version = 2",
        "lb.toml:1:11: error: version 2 of the format is not known here\n    \
         version = 2\n              ^\n    this program reads version 1",
    );
    changed(
        "version = 1",
        "version = \"1\"",
        "lb.toml:1:11: error: a string where a whole number is expected\n    \
         version = \"1\"\n              ^^^\n    expected is a number from 0 to 18446744073709551615",
    );
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known() {
    added(
        "wieght = 5",
        "lb.toml:12:1: error: the key `wieght` is not known in [[vip.real]]\n    \
         wieght = 5\n    ^^^^^^\n    did you mean `weight`?",
    );
    added(
        "[worker]\ncount = 1",
        "lb.toml:12:2: error: the key `worker` is not known\n    [worker]\n     ^^^^^^\n    did you mean `workers`?",
    );
    added(
        "[maglev]\nquux = 1",
        "lb.toml:13:1: error: the key `quux` is not known in [maglev]\n    quux = 1\n    ^^^^\n    \
         known are `table_size`, `seed`",
    );
}

#[test]
fn addresses_must_be_those_of_hosts() {
    let wrong = |address: &str, what: &str, help: &str| {
        changed(
            "\"10.0.0.11\"",
            &format!("\"{address}\""),
            &format!(
                "lb.toml:11:11: error: {what}\n    address = \"{address}\"\n              {}\n    {help}",
                "^".repeat(address.len() + 2)
            ),
        );
    };
    let example = "expected is an address such as \"192.0.2.1\" or \"2001:db8::1\"";
    wrong("10.0.0.256", "\"10.0.0.256\" is no IP address", example);
    wrong("10.0.0.0/24", "\"10.0.0.0/24\" is no IP address", "one address is meant here, not a prefix");
    wrong("224.0.0.1", "224.0.0.1 is not the address of one host in a network", example);
    wrong("127.0.0.1", "127.0.0.1 is not the address of one host in a network", example);
    wrong("0.0.0.0", "0.0.0.0 is not the address of one host in a network", example);
    wrong("::ffff:10.0.0.1", "::ffff:10.0.0.1 is an IPv4 address in IPv6 form", "write it as \"10.0.0.1\"");
    wrong(
        "198.51.100.10",
        "a VIP cannot be its own real: packets would come back here forever",
        "give the address that the server has for itself",
    );
}

#[test]
fn ports_and_protocols_must_be_right() {
    for (port, what) in
        [("0", "0 is out of range"), ("65536", "65536 is out of range"), ("-1", "-1 is out of range")]
    {
        changed(
            "443",
            port,
            &format!(
                "lb.toml:8:8: error: {what}\n    port = {port}\n           {}\n    \
                 expected is a number from 1 to 65535",
                "^".repeat(port.len())
            ),
        );
    }
    changed(
        "\"tcp\"",
        "\"tpc\"",
        "lb.toml:9:12: error: \"tpc\" is not known here\n    protocol = \"tpc\"\n               ^^^^^\n    \
         did you mean \"tcp\"?",
    );
    changed(
        "\"tcp\"",
        "\"sctp6\"",
        "lb.toml:9:12: error: \"sctp6\" is not known here\n    protocol = \"sctp6\"\n               ^^^^^^^\n    \
         expected is \"tcp\" or \"udp\"",
    );
    changed("port = 443\n", "", "lb.toml:6:1: error: `port` is missing in [[vip]]\n    [[vip]]\n    ^^^^^^^");
}

#[test]
fn nothing_is_given_twice() {
    added(
        "[[vip]]\naddress = \"198.51.100.10\"\nport = 443\nprotocol = \"tcp\"\n[[vip.real]]\naddress = \"10.0.0.1\"",
        "lb.toml:13:11: error: the VIP 198.51.100.10:443 tcp is given twice\n    \
         address = \"198.51.100.10\"\n              ^^^^^^^^^^^^^^^\n    put all its reals in one `[[vip]]`",
    );
    added(
        "[[vip.real]]\naddress = \"10.0.0.11\"",
        "lb.toml:13:11: error: the real 10.0.0.11 is given twice in this VIP\n    \
         address = \"10.0.0.11\"\n              ^^^^^^^^^^^\n    give it once, with the weight it shall have",
    );
    added(
        "[[port]]\ninterface = \"eth1\"",
        "lb.toml:13:13: error: the interface eth1 has a port already\n    \
         interface = \"eth1\"\n                ^^^^^^\n    give each interface one `[[port]]`",
    );
    added(
        "[workers]\ncores = [1, 2, 1]",
        "lb.toml:13:9: error: core 1 is given twice\n    cores = [1, 2, 1]\n            ^^^^^^^^^\n    \
         a core takes one worker",
    );
    added(
        "[workers]\ncores = [1, 2]\ncount = 3",
        "lb.toml:14:9: error: both the count of the workers and their cores are given\n    \
         count = 3\n            ^\n    leave `count` out: there will be 2, one per core",
    );
}

#[test]
fn a_real_must_be_reachable_by_the_forwarding() {
    let families = |method: &str, vip: &str, real: &str| {
        let text = RIGHT.replace("ipip", method).replace("198.51.100.10", vip).replace("10.0.0.11", real);
        messages(&text).join("\n\n")
    };
    for (method, vip, real) in [
        ("ipip", "192.0.2.1", "10.0.0.1"),
        ("ipip", "192.0.2.1", "fd00::1"),
        ("ipip", "2001:db8::1", "fd00::1"),
        ("l2dsr", "192.0.2.1", "10.0.0.1"),
        ("l2dsr", "2001:db8::1", "fd00::1"),
    ] {
        assert_eq!(families(method, vip, real), "", "{method} {vip} {real}");
    }
    assert_eq!(
        families("ipip", "2001:db8::1", "10.0.0.1"),
        "lb.toml:11:11: error: IPv6 packets are not carried in IPv4: an IPv6 VIP cannot have an IPv4 real\n    \
         address = \"10.0.0.1\"\n              ^^^^^^^^^^\n    give the real's IPv6 address"
    );
    assert_eq!(
        families("l2dsr", "192.0.2.1", "fd00::1"),
        "lb.toml:11:11: error: layer 2 forwarding cannot take packets of an IPv4 VIP to an IPv6 real\n    \
         address = \"fd00::1\"\n              ^^^^^^^^^\n    \
         give the real's IPv4 address, or forward by \"ipip\""
    );
    assert_eq!(
        families("l2dsr", "2001:db8::1", "10.0.0.1"),
        "lb.toml:11:11: error: layer 2 forwarding cannot take packets of an IPv6 VIP to an IPv4 real\n    \
         address = \"10.0.0.1\"\n              ^^^^^^^^^^\n    give the real's IPv6 address"
    );
}

#[test]
fn the_forwarding_must_make_sense() {
    changed(
        "[forwarding]\nmethod = \"ipip\"\n",
        "",
        "lb.toml:1:1: error: it is not said how packets get to the reals\n    version = 1\n    ^\n    \
         add a section `[forwarding]` with `method = \"ipip\"` or `method = \"l2dsr\"`",
    );
    changed(
        "\"ipip\"",
        "\"l2dsr\"\nsource_v4 = \"10.0.0.0/8\"",
        "lb.toml:6:13: error: forwarding by layer 2 has no outer header, hence no source address for it\n    \
         source_v4 = \"10.0.0.0/8\"\n                ^^^^^^^^^^^^\n    \
         leave this key out, or say `method = \"ipip\"`",
    );
    changed(
        "\"ipip\"",
        "\"ipip\"\nsource_v4 = \"10.0.0.1/8\"",
        "lb.toml:6:13: error: \"10.0.0.1/8\" has bits set after its prefix\n    \
         source_v4 = \"10.0.0.1/8\"\n                ^^^^^^^^^^^^\n    write \"10.0.0.0/8\"",
    );
    changed(
        "\"ipip\"",
        "\"ipip\"\nsource_v6 = \"10.0.0.0/8\"",
        "lb.toml:6:13: error: \"10.0.0.0/8\" is no IPv6 prefix\n    \
         source_v6 = \"10.0.0.0/8\"\n                ^^^^^^^^^^^^\n    \
         expected is an IPv6 address or prefix, such as \"2001:db8::1\" or \"fd00:afb::/64\"",
    );
}

#[test]
fn numbers_and_times_have_their_bounds() {
    added(
        "[maglev]\ntable_size = 65536",
        "lb.toml:13:14: error: the table's size 65536 is not prime\n    \
         table_size = 65536\n                 ^^^^^\n    the nearest primes are 65521 and 65537",
    );
    added(
        "weight = 65536",
        "lb.toml:12:10: error: 65536 is out of range\n    weight = 65536\n             ^^^^^\n    \
         expected is a number from 0 to 65535",
    );
    added(
        "[connections]\ncapacity = 1",
        "lb.toml:13:12: error: 1 is out of range\n    capacity = 1\n               ^\n    \
         expected is a number from 1024 to 1073741824",
    );
    for wrong in ["10", "s", "ten seconds", "10 s", ""] {
        added(
            &format!("[connections]\nudp = \"{wrong}\""),
            &format!(
                "lb.toml:13:7: error: \"{wrong}\" is no time\n    udp = \"{wrong}\"\n          {}\n    \
                 expected is a time such as \"30s\", \"15m\" or \"2h\"",
                "^".repeat(wrong.len() + 2)
            ),
        );
    }
    added(
        "[connections]\nudp = \"31d\"",
        "lb.toml:13:7: error: \"31d\" is out of range\n    udp = \"31d\"\n          ^^^^^\n    it can be 1s to 30d",
    );
    added(
        "[connections]\nudp = 60",
        "lb.toml:13:7: error: a whole number where a string is expected\n    udp = 60\n          ^^\n    \
         expected is a time such as \"30s\", \"15m\" or \"2h\"",
    );
}

#[test]
fn more_reals_than_slots_are_too_many() {
    let reals: String = (1..=8).map(|n| format!("[[vip.real]]\naddress = \"10.1.0.{n}\"\n")).collect();
    added(
        &format!("{reals}[maglev]\ntable_size = 7"),
        "lb.toml:7:11: error: the VIP 198.51.100.10:443 tcp has 9 reals, more than its table has slots\n    \
         address = \"198.51.100.10\"\n              ^^^^^^^^^^^^^^^\n    raise `table_size` in [maglev] above 7",
    );
}

#[test]
fn ports_must_be_named_and_told_apart() {
    changed(
        "[[port]]\ninterface = \"eth1\"\n",
        "",
        "lb.toml:1:1: error: there is no port: nothing to take packets from\n    version = 1\n    ^\n    \
         add a section `[[port]]` with `interface = \"...\"`",
    );
    changed(
        "\"eth1\"",
        "\"a name too long for Linux\"",
        "lb.toml:3:13: error: \"a name too long for Linux\" cannot be the name of a network interface\n    \
         interface = \"a name too long for Linux\"\n                ^^^^^^^^^^^^^^^^^^^^^^^^^^^\n    \
         it has 1 to 15 characters, and no slash, colon, or blank",
    );
    changed(
        "\"eth1\"",
        "\"eth1\"\nmode = \"zerocopy\"",
        "lb.toml:4:8: error: \"zerocopy\" is not known here\n    mode = \"zerocopy\"\n           ^^^^^^^^^^\n    \
         did you mean \"zero-copy\"?",
    );
    changed(
        "\"eth1\"",
        "\"eth1\"\nqueues = \"none\"",
        "lb.toml:4:10: error: \"none\" is no set of queues\n    queues = \"none\"\n             ^^^^^^\n    \
         expected is \"all\", or how many of them, from the first on",
    );
}

#[test]
fn next_hops_must_be_hosts() {
    let wrong = |mac: &str, what: &str| {
        added(
            &format!("next_hop = \"{mac}\""),
            &format!(
                "lb.toml:12:12: error: \"{mac}\" is {what}\n    next_hop = \"{mac}\"\n               {}\n    \
                 expected is a MAC address such as \"02:00:00:00:00:01\"",
                "^".repeat(mac.len() + 2)
            ),
        );
    };
    for mac in
        ["02:00:00:00:00", "02:00:00:00:00:0g", "10.0.0.1", "02:00:00:00:00:01:02", "02:00:00:00:00:+1"]
    {
        wrong(mac, "no MAC address");
    }
    wrong("ff:ff:ff:ff:ff:ff", "not the MAC address of one host");
    wrong("00:00:00:00:00:00", "not the MAC address of one host");
}

#[test]
fn brackets_are_corrected() {
    changed(
        "[[port]]",
        "[port]",
        "lb.toml:2:1: error: there can be several `port`, so its brackets are double\n    \
         [port]\n    ^^^^^^\n    write it as `[[port]]`",
    );
    added(
        "[[workers]]\ncount = 1",
        "lb.toml:12:1: error: `workers` is a section, not a value\n    [[workers]]\n    ^^^^^^^^^^^\n    \
         write it as `[workers]`",
    );
}

#[test]
fn a_file_that_is_no_toml_says_where() {
    let all = messages(&RIGHT.replace("port = 443", "port = "));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].starts_with("lb.toml:8:8: error: "), "{}", all[0]);
    let all = messages(&RIGHT.replace("port = 443", "port = 443\nport = 444"));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].starts_with("lb.toml:9:1: error: duplicate key"), "{}", all[0]);
}

#[test]
fn all_problems_are_told_at_once_and_in_order() {
    let text =
        RIGHT.replace("eth1", "").replace("443", "0").replace("10.0.0.11", "10.0.0").replace("\"ipip\"", "7");
    let lines: Vec<String> =
        messages(&text).iter().map(|message| message.split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["lb.toml:3:13", "lb.toml:5:10", "lb.toml:8:8", "lb.toml:11:11"]);
}

#[test]
fn what_drops_packets_is_allowed_but_said() {
    changed(
        "[[vip.real]]\naddress = \"10.0.0.11\"\n",
        "",
        "lb.toml:7:11: warning: the VIP 198.51.100.10:443 tcp has no reals: its packets will be dropped\n    \
         address = \"198.51.100.10\"\n              ^^^^^^^^^^^^^^^\n    add sections `[[vip.real]]`",
    );
    added(
        "weight = 0",
        "lb.toml:7:11: warning: all reals of the VIP 198.51.100.10:443 tcp have weight 0: new flows will be \
         dropped\n    address = \"198.51.100.10\"\n              ^^^^^^^^^^^^^^^\n    \
         give at least one real a weight above 0",
    );
    let none = &RIGHT[..RIGHT.find("[[vip]]").unwrap()];
    assert_eq!(
        messages(none),
        ["lb.toml:1:1: warning: there is no VIP: no packet will be taken\n    version = 1\n    ^\n    \
          add a section `[[vip]]` for each"]
    );
}

#[test]
fn a_mark_stands_under_what_it_means() {
    let text = RIGHT.replace("port = 443", "\tport = \"ü\" # ünicode");
    assert_eq!(
        messages(&text),
        ["lb.toml:8:9: error: a string where a whole number is expected\n    \tport = \"ü\" # ünicode\n    \
          \t       ^^^\n    expected is a number from 1 to 65535"]
    );
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let Outcome { config, diagnostics } = Config::load(Path::new("/nowhere/lb.toml"));
    assert!(config.is_none());
    assert_eq!(
        diagnostics[0].to_string(),
        "/nowhere/lb.toml: error: cannot read the file: No such file or directory (os error 2)"
    );
}
