//! What an operator sees: commands as they are typed, answers as they are printed, over a real socket.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;

use clap::Parser as _;

use super::super::fake::{Balancer, Fake};
use super::super::protocol::RealState;
use super::*;
use crate::{Arguments, Command};

/// What a command line asks.
fn asked(line: &str) -> Ask {
    let arguments = Arguments::try_parse_from(std::iter::once("afx-lb").chain(line.split(' ')));
    match arguments.unwrap_or_else(|error| panic!("{line}: {error}")).command {
        Command::Status { .. } => Ask::Status {},
        Command::Ctl { command, .. } => command.into(),
        Command::Explain { flow, .. } => flow.into(),
        _ => panic!("{line} asks nothing"),
    }
}

/// What is printed where a command line asks this balancer.
fn printed_by(balancer: &Balancer, line: &str, style: Style) -> String {
    let mut out = Vec::new();
    let json = line.ends_with(" --json");
    let mut screen = Screen { out: &mut out, style, json };
    let said = screen.converse(&mut balancer.client(), &asked(line));
    let mut text = String::from_utf8(out).unwrap();
    if let Err(failure) = said {
        text += &format!("afx-lb: {failure}\n");
    }
    text
}

const PLAIN: Style = Style { colour: false, terminal: false };
const COLOUR: Style = Style { colour: true, terminal: true };

fn printed(line: &str) -> String {
    printed_by(&Balancer::start(Fake::new()), line, PLAIN)
}

/// Compares texts line by line, and shows the whole where they differ.
#[track_caller]
fn same(printed: &str, expected: &str) {
    assert!(printed == expected, "printed:\n{printed}\nexpected:\n{expected}");
}

const DOCUMENT: &str = include_str!("../../../../../docs/control.md");

/// The document's blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    let blocks: Vec<_> =
        DOCUMENT.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 3);
    blocks
}

#[test]
fn what_the_document_shows_is_what_is_printed() {
    for block in blocks("text") {
        let (line, shown) = block.strip_prefix("$ afx-lb ").and_then(|rest| rest.split_once('\n')).unwrap();
        same(&printed(line), shown);
    }
}

#[test]
fn the_document_shows_every_request_and_its_answer() {
    let mut shown = BTreeSet::new();
    for block in blocks("json") {
        let mut values = serde_json::Deserializer::from_str(block).into_iter::<Value>();
        let request = values.next().unwrap().unwrap();
        let expected: Vec<Value> = values.map(Result::unwrap).collect();
        let balancer = Balancer::start(Fake { drains_by: 6000, ..Fake::new() });
        let mut stream = UnixStream::connect(&balancer.socket).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut answers: Vec<Value> = Vec::new();
        for line in BufReader::new(stream).lines() {
            let mut answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let last = answer.get("more").is_none();
            if let Some(took) = answer.pointer_mut("/ok/took_seconds") {
                *took = 41.7.into();
            }
            // A drain on a slow machine may tell twice how far it is.
            if last || answers.is_empty() {
                answers.push(answer);
            }
            if last {
                break;
            }
        }
        assert_eq!(answers, expected, "{request:#}");
        let parsed: Ask = serde_json::from_value(request.clone()).unwrap();
        assert_eq!(serde_json::from_value::<Ask>(serde_json::to_value(&parsed).unwrap()).unwrap(), parsed);
        shown.insert(request["do"].as_str().unwrap().to_owned());
    }
    // The error about a request that there is not names all that there are.
    let unknown = serde_json::from_value::<Ask>(json!({"do": "nothing"})).unwrap_err().to_string();
    let all: BTreeSet<_> = unknown.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(all.contains("status") && all.contains("vip-remove"), "{unknown}");
    assert_eq!(shown, all);
}

#[test]
fn vips_and_counters() {
    same(
        &printed("ctl vips"),
        "\
vip                    reals up  connections   opened     packets     pps        bit/s  hash     check  options
198.51.100.10:443/tcp    3 of 5       36,003  617,280  50,000,000  50,000  200,000,000  5-tuple  https  ping
[2001:db8::10]:53/udp    0 of 1            0  123,456           0       0            0  source   -      server id in quic, fragments
198.51.100.0/24:*/tcp    0 of 0            0        0           0       0            0  5-tuple  -      -
",
    );
    same(
        &printed("ctl counters"),
        "\
group     counter                value  meaning
worker 0  turns            123,456,789  Turns of the loop.
drops     balancer.no_vip        2,000  No VIP has this address, port and protocol.
",
    );
    same(
        &printed("ctl counters --all"),
        "\
group     counter                 value  meaning
worker 0  turns             123,456,789  Turns of the loop.
          sleeps                      0  Times that the worker went to sleep.
drops     balancer.no_vip         2,000  No VIP has this address, port and protocol.
          balancer.too_big            0  The packet and its outer header exceed the MTU of the way.
",
    );
}

#[test]
fn a_vip_without_reals_and_a_filter_that_nothing_passes_say_so() {
    same(&printed("ctl reals --vip 198.51.100.0/24:*/tcp"), "There is no real.\n");
    same(&printed("ctl connections --idle-over 1h"), "There is no such connection.\n");
    same(&printed("ctl connections --state udp --count"), "0 connections\n");
    let nothing = Fake { vips: Vec::new(), reals: Vec::new(), ..Fake::new() };
    same(&printed_by(&Balancer::start(nothing.clone()), "ctl vips", PLAIN), "There is no VIP.\n");
    same(
        &printed_by(&Balancer::start(nothing), "ctl reals --vip 192.0.2.1:1/tcp", PLAIN),
        "afx-lb: there is no VIP 192.0.2.1:1/tcp; there are: none\n",
    );
}

#[test]
fn connections_pass_all_filters_given() {
    let listed = |filters: &str| printed(&format!("ctl connections {filters}")).lines().count() - 1;
    assert_eq!(listed("--real 10.0.0.12"), 2);
    assert_eq!(listed("--real 10.0.0.12 --idle-over 1s"), 1);
    assert_eq!(listed("--state closing"), 2);
    assert_eq!(listed("--vip 198.51.100.10:443/tcp"), 5);
    assert_eq!(listed("--vip 198.51.100.10:443/tcp --state closing --limit 0"), 1);
    same(&printed("ctl connections --count --limit 1"), "6 connections\n");
    let json: Value = serde_json::from_str(&printed("ctl connections --limit 6 --json")).unwrap();
    assert_eq!((&json["matched"], &json["complete"]), (&6.into(), &true.into()));
    assert_eq!(json["connections"].as_array().unwrap().len(), 6);
}

#[test]
fn colours_say_at_a_glance_how_it_is() {
    let coloured = printed_by(&Balancer::start(Fake::new()), "ctl reals", COLOUR);
    for text in [
        "\u{1b}[1mvip\u{1b}[0m",
        "\u{1b}[38;5;10mup\u{1b}[39m",
        "\u{1b}[38;5;11mdrain, 1m 20s left\u{1b}[39m",
        "\u{1b}[38;5;9mdown (check)\u{1b}[39m",
        "\u{1b}[38;5;9munreachable\u{1b}[39m",
    ] {
        assert!(coloured.contains(text), "{text:?} in {coloured:?}");
    }
    // Beside its colours it is what is printed without them.
    let mut bare = coloured;
    for code in ["[1m", "[0m", "[39m", "[38;5;9m", "[38;5;10m", "[38;5;11m"] {
        bare = bare.replace(&format!("\u{1b}{code}"), "");
    }
    same(&bare, &printed("ctl reals"));
}

#[test]
fn what_is_explained_depends_on_the_flow() {
    same(
        &printed("explain 192.0.2.1:40001 198.51.100.10:443 tcp"),
        "\
192.0.2.1:40001 -> 198.51.100.10:443 tcp
  vip        198.51.100.10:443/tcp
  real       10.0.0.11 (up), from the Maglev table
  known      by no worker: the one that gets its first packet decides, as all would
  goes out   on port eth0, IP in UDP (GUE)
  Ethernet   02:00:00:00:00:01 -> 02:00:00:00:00:0b
  IPv4       10.200.1.2 -> 10.0.0.11, protocol 17, TTL 64
  UDP        50001 -> 6080
  MTU        1,500 bytes on the way, so that the client's packets may have 1,472
",
    );
    same(
        &printed("explain [2001:db8::1]:1 [2001:db8::2]:2 udp"),
        "\
[2001:db8::1]:1 -> [2001:db8::2]:2 udp
  vip        none
             no VIP has this address, port and protocol: the kernel gets its packets
",
    );
    same(
        &printed("explain 192.0.2.1:1 [2001:db8::2]:2 udp"),
        "afx-lb: 192.0.2.1:1 and [2001:db8::2]:2 are of different families: no packet has both\n",
    );
}

#[test]
fn changes_are_told_and_reach_the_balancer() {
    let balancer = Balancer::start(Fake::new());
    let said = |line: &str| printed_by(&balancer, line, PLAIN);
    let vip = "198.51.100.10:443/tcp";
    same(
        &said("ctl reload"),
        "\
vip 198.51.100.10:443/tcp: real 10.0.0.12 weight 100 -> 200
vip 198.51.100.10:443/tcp: real 10.0.0.16 added, weight 100
warning: the real 10.0.0.16 is not reachable: no route to it
",
    );
    same(
        &said(&format!("ctl real weight {vip} 10.0.0.11 7")),
        "vip 198.51.100.10:443/tcp: real 10.0.0.11 weight 100 -> 7\n",
    );
    same(&said(&format!("ctl real weight {vip} 10.0.0.12 200")), "Nothing to change: all is so already.\n");
    same(
        &said(&format!("ctl real remove {vip} 10.0.0.99")),
        "afx-lb: the VIP 198.51.100.10:443/tcp has no real 10.0.0.99\n",
    );
    said(&format!("ctl real add {vip} 10.0.0.16 --weight 5 --next-hop 02:00:00:00:00:16"));
    said("ctl vip add [2001:db8::11]:443/udp --hash source --server-id quic --fragments together --ping");
    said("ctl vip add 192.0.2.0/24:*/tcp");
    let reached: Vec<_> =
        balancer.stop().asked.iter().map(|ask| serde_json::to_value(ask).unwrap()).collect();
    assert_eq!(
        reached,
        [
            json!({"do": "reload"}),
            json!({"do": "real-weight", "vip": vip, "real": "10.0.0.11", "weight": 7}),
            json!({"do": "real-add", "vip": vip, "real": "10.0.0.16", "weight": 5, "next_hop": "02:00:00:00:00:16"}),
            json!({"do": "vip-add", "vip": "[2001:db8::11]:443/udp", "hash": "source", "server_id": "quic",
                "fragments": "together", "ping": true}),
            json!({"do": "vip-add", "vip": "192.0.2.0/24:*/tcp"}),
        ]
    );
}

#[test]
fn a_bad_file_is_shown_with_all_that_is_wrong() {
    let balancer = Balancer::start(Fake { bad_file: true, ..Fake::new() });
    same(
        &printed_by(&balancer, "ctl reload", PLAIN),
        "\
afx-lb: /etc/afx-lb.toml is not valid; nothing was changed:
/etc/afx-lb.toml:3:1: error: the key `mod` is not known in [[port]]
    mod = 1
    ^^^
    did you mean `mode`?
",
    );
    assert!(balancer.stop().asked.is_empty());
}

const DRAIN: &str = "ctl real drain 198.51.100.10:443/tcp 10.0.0.11 --deadline 5m --wait";

/// A text with the time that something took replaced.
fn without_time(text: &str) -> String {
    let (before, rest) = text.split_once(" after ").unwrap_or_else(|| panic!("{text}"));
    let (_, after) = rest.split_once(": ").unwrap();
    format!("{before} after TIME: {after}")
}

#[test]
fn a_drain_that_is_waited_for_shows_how_far_it_is() {
    let drained = |style| {
        let balancer = Balancer::start(Fake { drains_by: 6000, ..Fake::new() });
        let mut text = without_time(&printed_by(&balancer, DRAIN, style));
        // A slow machine may tell of the next second too.
        if let Some(end) = text.rfind("connections, 5m 0s left") {
            text = text[..text.find("connections, 5m 0s left").unwrap()].to_owned() + &text[end..];
        }
        text
    };
    same(
        &drained(PLAIN),
        "\
10.0.0.11 in 198.51.100.10:443/tcp drains: 5,000 connections, 5m 0s left
vip 198.51.100.10:443/tcp: real 10.0.0.11 state up -> drain
Drained after TIME: no connection is left.
",
    );
    assert_eq!(
        drained(COLOUR),
        "\r10.0.0.11 in 198.51.100.10:443/tcp drains: 5,000 connections, 5m 0s left\u{1b}[K\r\u{1b}[K\
         vip 198.51.100.10:443/tcp: real 10.0.0.11 state up -> drain\n\
         Drained after TIME: no connection is left.\n"
    );
}

#[test]
fn a_drain_may_end_otherwise() {
    let mut over = Fake::new();
    over.stays = Some(RealState::Out);
    let text = printed_by(&Balancer::start(over), DRAIN, PLAIN);
    assert!(
        without_time(&text).ends_with(
            "The deadline is over after TIME: 11,000 connections left, which other reals get now.\n"
        ),
        "{text}"
    );
    let mut undone = Fake::new();
    undone.stays = Some(RealState::Up);
    same(
        &printed_by(&Balancer::start(undone), DRAIN, PLAIN),
        "afx-lb: the drain has ended: 10.0.0.11 in 198.51.100.10:443/tcp gets new flows again\n",
    );
}

#[test]
fn what_a_server_made_a_check_say_does_nothing_to_the_terminal() {
    let mut fake = Fake::new();
    fake.reals[3].health.as_mut().unwrap().error = Some("\u{1b}]0;owned\u{7}\u{9b}2J".into());
    let text = printed_by(&Balancer::start(fake), "ctl reals", PLAIN);
    assert!(text.contains("the newest check failed: \u{fffd}]0;owned\u{fffd}\u{fffd}2J\n"), "{text:?}");
}

#[test]
fn a_line_that_makes_no_sense_is_refused_before_anything_is_asked() {
    let refused = |line: &str| {
        let arguments = Arguments::try_parse_from(std::iter::once("afx-lb").chain(line.split(' ')));
        let Err(error) = arguments else { panic!("{line}") };
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert!(refused("ctl reals --vip 198.51.100.10:443").contains("the protocol is missing"));
    assert!(refused("ctl reals --vip 198.51.100.10/tcp").contains("the port is missing"));
    assert!(refused("ctl vip add 198.51.100.10/24:443/tcp").contains("198.51.100.0/24"));
    assert!(refused("ctl vip add 2001:db8::1:443/tcp").contains("an IPv6 address is written in brackets"));
    assert!(refused("ctl vip add 192.0.2.1:0/tcp").contains("1 to 65535"));
    assert!(refused("ctl vip add 192.0.2.1:443/sctp").contains("expected is tcp or udp"));
    assert!(refused("ctl real weight 192.0.2.1:443/tcp 10.0.0.1 65536").contains("65535"));
    assert!(refused("ctl real add 192.0.2.1:443/tcp 10.0.0.1 --next-hop 1").contains("is not a MAC address"));
    assert!(refused("ctl real drain 192.0.2.1:443/tcp 10.0.0.1 --deadline soon").contains("--deadline"));
    assert!(refused("ctl connections --state open").contains("established"));
    assert!(refused("explain 192.0.2.1 192.0.2.2:1 tcp").contains("192.0.2.1"));
}

#[test]
fn socket_and_json_may_stand_anywhere() {
    for line in ["ctl --json reals --socket /x", "ctl reals --json --socket /x", "status --socket /x --json"]
    {
        let arguments = Arguments::try_parse_from(std::iter::once("afx-lb").chain(line.split(' '))).unwrap();
        let (Command::Ctl { options, .. } | Command::Status { options }) = arguments.command else {
            panic!()
        };
        assert!(options.json && options.socket.as_os_str() == "/x", "{line}");
    }
}
