//! Health checks.

use std::time::Duration;

use super::*;

/// The right file with a check of its VIP: its lines begin with line 11.
fn with_check(lines: &str) -> String {
    with_vip(&format!("[vip.check]\n{lines}"))
}

fn check(lines: &str) -> Check {
    valid(&with_check(lines)).vips[0].check.clone().expect("it has a check")
}

#[test]
fn what_a_check_leaves_out_has_its_default() {
    let seconds = Duration::from_secs;
    let flap = Flap { limit: 0, window: seconds(60), hold: seconds(60) };
    let tcp = Check {
        probe: Probe::Tcp { port: 443 },
        interval: seconds(2),
        timeout: seconds(1),
        rise: 2,
        fall: 3,
        jitter: 10,
        flap,
    };
    assert_eq!(check("type = \"tcp\""), tcp);
    assert_eq!(check("type = \"icmp\"").probe, Probe::Icmp);
    let web = |tls| Probe::Http { port: 443, path: "/".to_owned(), host: None, status: vec![200..=399], tls };
    assert_eq!(check("type = \"http\"").probe, web(Tls::Off));
    assert_eq!(check("type = \"https\"").probe, web(Tls::On { verify: true }));
    let run = check("type = \"command\"\ncommand = [\"/bin/true\"]").probe;
    assert_eq!(run, Probe::Command { command: vec!["/bin/true".to_owned()], port: Some(443) });
    assert_eq!(valid(RIGHT).vips[0].check, None);
}

#[test]
fn what_a_check_says_counts() {
    let said = check(
        "type = \"https\"\nport = 8443\npath = \"/health?full=1\"\nhost = \"www.example.com:8443\"\n\
         status = [\"200\", \"204-206\"]\nverify = false\ninterval = \"500ms\"\ntimeout = \"200ms\"\nrise = 1\n\
         fall = 5\njitter = 0\nflap_limit = 4\nflap_window = \"5m\"\nflap_hold = \"1h\"",
    );
    let expected = Check {
        probe: Probe::Http {
            port: 8443,
            path: "/health?full=1".to_owned(),
            host: Some("www.example.com:8443".to_owned()),
            status: vec![200..=200, 204..=206],
            tls: Tls::On { verify: false },
        },
        interval: Duration::from_millis(500),
        timeout: Duration::from_millis(200),
        rise: 1,
        fall: 5,
        jitter: 0,
        flap: Flap { limit: 4, window: Duration::from_secs(300), hold: Duration::from_secs(3600) },
    };
    assert_eq!(said, expected);
    let Probe::Http { status, .. } = check("type = \"http\"\nstatus = \"200-299\"").probe else {
        panic!("it is HTTP")
    };
    assert_eq!(status, [200..=299]);
}

#[test]
fn the_type_must_be_there_and_known() {
    assert_eq!(
        messages(&with_check("interval = \"1s\"")),
        ["lb.toml:10:1: error: `type` is missing in [vip.check]\n    [vip.check]\n    ^^^^^^^^^^^"]
    );
    wrong(
        &with_check("type = \"ping\""),
        11,
        "\"ping\"",
        "\"ping\" is not known here",
        "expected is \"tcp\" or \"http\" or \"https\" or \"icmp\" or \"command\"",
    );
}

#[test]
fn the_timeout_is_not_longer_than_the_interval() {
    // The default follows the interval.
    assert_eq!(check("type = \"tcp\"\ninterval = \"300ms\"").timeout, Duration::from_millis(300));
    assert_eq!(check("type = \"tcp\"\ninterval = \"2s\"\ntimeout = \"2s\"").timeout, Duration::from_secs(2));
    wrong(
        &with_check("type = \"tcp\"\ntimeout = \"3s\""),
        12,
        "\"3s\"",
        "the timeout is longer than the interval: a check would not be over when the next is due",
        "make it 2s at most, or the interval longer",
    );
}

#[test]
fn a_check_has_the_keys_of_its_type_only() {
    let refused = |kind: &str, line: &str, help: &str| {
        let (key, value) = line.split_once(" = ").unwrap();
        let what = format!("`{key}` is nothing to a check of type \"{kind}\"");
        wrong(&with_check(&format!("type = \"{kind}\"\n{line}")), 12, value, &what, help);
    };
    let web = "leave it out; it belongs to \"http\" and \"https\"";
    for kind in ["tcp", "icmp"] {
        refused(kind, "path = \"/\"", web);
        refused(kind, "host = \"a\"", web);
        refused(kind, "status = \"200\"", web);
        refused(kind, "verify = true", "leave it out; it belongs to \"https\"");
        refused(kind, "command = [\"/bin/true\"]", "leave it out; it belongs to \"command\"");
    }
    refused("http", "verify = false", "leave it out; it belongs to \"https\"");
    refused(
        "icmp",
        "port = 80",
        "leave it out; it belongs to \"tcp\" and \"http\" and \"https\" and \"command\"",
    );
    wrong(
        &with_check("type = \"http\"\npaht = \"/\""),
        12,
        "paht",
        "the key `paht` is not known in [vip.check]",
        "did you mean `path`?",
    );
    wrong(
        &with_check("type = \"htps\""),
        11,
        "\"htps\"",
        "\"htps\" is not known here",
        "did you mean \"https\"?",
    );
}

#[test]
fn a_vip_of_any_port_says_where_to_check() {
    let any = |lines: &str| with_check(lines).replace("443", "\"any\"");
    for kind in ["tcp", "http", "https"] {
        wrong(
            &any(&format!("type = \"{kind}\"")),
            10,
            "[vip.check]",
            &format!("a check of type \"{kind}\" needs a port, and the VIP's is any"),
            "say which one, such as `port = 80`",
        );
        valid(&any(&format!("type = \"{kind}\"\nport = 80")));
    }
    valid(&any("type = \"icmp\""));
    let Some(check) = &valid(&any("type = \"command\"\ncommand = [\"/bin/true\"]")).vips[0].check else {
        panic!("it has a check")
    };
    assert_eq!(check.probe, Probe::Command { command: vec!["/bin/true".to_owned()], port: None });
}

#[test]
fn requests_must_be_such_as_can_be_made() {
    let refused = |line: &str, what: &str, help: &str| {
        let (_, value) = line.split_once(" = ").unwrap();
        wrong(&with_check(&format!("type = \"http\"\n{line}")), 12, value, what, help);
    };
    refused(
        "path = \"health\"",
        "the path \"health\" does not begin with a slash",
        "expected is what to ask for, such as \"/\" or \"/health\"",
    );
    let escaped = "write blanks and what is not ASCII as %20 and the like";
    refused("path = \"/a b\"", "the path \"/a b\" has a character that a request cannot have", escaped);
    refused("path = \"/ü\"", "the path \"/ü\" has a character that a request cannot have", escaped);
    refused(
        "path = \"/\\r\\nHost: x\"",
        "the path \"/\\r\\nHost: x\" has a character that a request cannot have",
        escaped,
    );
    let name = "expected is a name or an address, such as \"www.example.com\"";
    refused("host = \"\"", "\"\" is no name of a host", name);
    refused("host = \"a b\"", "\"a b\" is no name of a host", name);
    refused("host = \"a\\r\\nb\"", "\"a\\r\\nb\" is no name of a host", name);
    let statuses = "expected is \"200\", \"200-299\", or a list of these, from 100 to 599";
    for status in ["", "20", "600", "299-200", "200-", "2xx", "+20", "200,204"] {
        refused(
            &format!("status = \"{status}\""),
            &format!("\"{status}\" is no HTTP status, and no range of them"),
            statuses,
        );
    }
    refused("status = 200", "a whole number where a string is expected", statuses);
    refused("status = []", "the list of statuses is empty", "name some, or leave `status` out");
}

#[test]
fn commands_must_be_such_as_can_be_run() {
    let refused = |command: &str, what: &str| {
        wrong(
            &with_check(&format!("type = \"command\"\ncommand = {command}")),
            12,
            command,
            what,
            "expected is a list of the program and its arguments, such as [\"/usr/local/bin/check\", \"arg\"]",
        );
    };
    refused("\"/bin/true\"", "a string where a list is expected");
    refused("[]", "the command is empty");
    refused("[\"true\"]", "the program \"true\" is not named by its whole path");
    refused("[\"/bin/true\", 1]", "a whole number where a string is expected");
    refused("[\"/bin/true\", \"\\u0000\"]", "a program's argument cannot have the character 0");
    wrong(
        &with_check("type = \"command\""),
        10,
        "[vip.check]",
        "`command` is missing: what is to be run?",
        "add the program and its arguments, such as `command = [\"/usr/local/bin/check\"]`",
    );
}

#[test]
fn numbers_and_times_of_checks_have_their_bounds() {
    for (line, help) in [
        ("interval = \"99ms\"", "it can be 100ms to 1h"),
        ("interval = \"61m\"", "it can be 100ms to 1h"),
        ("timeout = \"9ms\"", "it can be 10ms to 1h"),
        ("flap_window = \"0s\"", "it can be 1s to 1d"),
        ("flap_hold = \"2d\"", "it can be 1s to 1d"),
        ("rise = 0", "expected is a number from 1 to 1000"),
        ("fall = 1001", "expected is a number from 1 to 1000"),
        ("jitter = 51", "expected is a number from 0 to 50"),
        ("flap_limit = -1", "expected is a number from 0 to 1000"),
        ("port = 65536", "expected is a number from 1 to 65535"),
    ] {
        let (_, value) = line.split_once(" = ").unwrap();
        let text = with_check(&format!("type = \"tcp\"\n{line}"));
        wrong(&text, 12, value, &format!("{value} is out of range"), help);
    }
    wrong(
        &with_check("type = \"https\"\nverify = \"no\""),
        12,
        "\"no\"",
        "a string where true or false is expected",
        "expected is true or false, without quotes",
    );
}
