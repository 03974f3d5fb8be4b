//! Ports, workers, and the bounds of numbers and times.

use std::time::Duration;

use super::*;

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
        "\"eth1\"\nrss_key = \"0x6d5a\"",
        "lb.toml:4:11: error: \"0x6d5a\" is no key\n    rss_key = \"0x6d5a\"\n              ^^^^^^^^\n    \
         expected is \"symmetric\", or a key in hexadecimal, such as \"6d5a\" or \"6d:5a\"",
    );
    changed(
        "\"eth1\"",
        "\"eth1\"\nqueues = \"none\"",
        "lb.toml:4:10: error: \"none\" is no set of queues\n    queues = \"none\"\n             ^^^^^^\n    \
         expected is \"all\", or how many of them, from the first on",
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
        "[connections]\ncapacity = 1",
        "lb.toml:13:12: error: 1 is out of range\n    capacity = 1\n               ^\n    \
         expected is a number from 1024 to 1073741824",
    );
    for wrong in ["10", "s", "ten seconds", "10 s", ""] {
        added(
            &format!("[connections]\nudp = \"{wrong}\""),
            &format!(
                "lb.toml:13:7: error: \"{wrong}\" is no time\n    udp = \"{wrong}\"\n          {}\n    \
                 expected is a time such as \"500ms\", \"30s\", \"15m\" or \"2h\"",
                "^".repeat(wrong.len() + 2)
            ),
        );
    }
    added(
        "[connections]\nudp = \"31d\"",
        "lb.toml:13:7: error: \"31d\" is out of range\n    udp = \"31d\"\n          ^^^^^\n    it can be 100ms to 30d",
    );
    added(
        "[connections]\nudp = 60",
        "lb.toml:13:7: error: a whole number where a string is expected\n    udp = 60\n          ^^\n    \
         expected is a time such as \"500ms\", \"30s\", \"15m\" or \"2h\"",
    );
}

#[test]
fn times_are_in_milliseconds_to_days() {
    let udp =
        |time: &str| valid(&with(&format!("[connections]\nudp = \"{time}\""))).connections.timeouts.datagram;
    assert_eq!(udp("500ms"), Duration::from_millis(500));
    assert_eq!(udp("90s"), Duration::from_secs(90));
    assert_eq!(udp("2m"), Duration::from_secs(120));
    assert_eq!(udp("1h"), Duration::from_secs(3600));
    assert_eq!(udp("30d"), Duration::from_secs(30 * 24 * 3600));
    for (milliseconds, written) in
        [(0, "0s"), (500, "500ms"), (1500, "1500ms"), (90_000, "90s"), (120_000, "2m"), (86_400_000, "1d")]
    {
        assert_eq!(Time(Duration::from_millis(milliseconds)).to_string(), written);
    }
}

#[test]
fn a_table_of_a_size_that_is_not_prime_has_neighbours() {
    for (size, below, above) in [(65_536, 65_521, 65_537), (4, 3, 5), (8_388_592, 8_388_587, 8_388_593)] {
        let help = format!("the nearest primes are {below} and {above}");
        let what = format!("the table's size {size} is not prime");
        wrong(&with(&format!("[maglev]\ntable_size = {size}")), 13, &size.to_string(), &what, &help);
    }
    let range = "expected is a number from 2 to 8388593";
    wrong(&with("[maglev]\ntable_size = 8388594"), 13, "8388594", "8388594 is out of range", range);
    wrong(&with("[maglev]\ntable_size = 1"), 13, "1", "1 is out of range", range);
}

#[test]
fn ports_and_cores_are_given_once() {
    wrong(
        &with("[[port]]\ninterface = \"eth1\""),
        13,
        "\"eth1\"",
        "the interface eth1 has a port already",
        "it is in line 3: give each interface one `[[port]]`",
    );
    wrong(
        &with("[workers]\ncores = [1, 2, 1]"),
        13,
        "[1, 2, 1]",
        "core 1 is given twice",
        "a core takes one worker",
    );
    wrong(
        &with("[workers]\ncores = [1, 2]\ncount = 3"),
        14,
        "3",
        "both the count of the workers and their cores are given",
        "leave `count` out: there will be 2, one per core",
    );
}

#[test]
fn cores_are_a_list_with_something_in_it() {
    let refused = |cores: &str, what: &str, help: &str| {
        wrong(&with(&format!("[workers]\ncores = {cores}")), 13, cores, what, help);
    };
    let list = "expected is a list of core numbers, such as [2, 3]";
    refused("2", "a whole number where a list is expected", list);
    refused("[]", "the list of cores is empty", "name cores, or leave `cores` out");
    refused("[4096]", "4096 is out of range", "expected is a number from 0 to 4095");
}
