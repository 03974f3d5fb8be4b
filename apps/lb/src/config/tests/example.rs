//! The example, which is what operators begin with.

use std::collections::BTreeSet;

use super::*;

const EXAMPLE: &str = include_str!("../../../lb.example.toml");

/// Commented lines whose keys have no default that could be written down, or whose type or method is not the
/// example's.
const NO_DEFAULTS: [&str; 7] =
    ["channels", "rss_key", "count", "gue_port", "next_hop", "client_mtu", "command"];

/// The key of a line that shows one, and whether it is commented out.
fn shown(line: &str) -> Option<(&str, bool)> {
    let (text, is_comment) = match line.strip_prefix("# ") {
        Some(text) => (text, true),
        None => (line, false),
    };
    let (key, _) = text.split_once(" = ")?;
    key.bytes().all(|byte| byte.is_ascii_lowercase() || b"_46".contains(&byte)).then_some((key, is_comment))
}

/// The example, with the comment signs taken off the lines of these keys.
fn spelled_out(is_wanted: impl Fn(&str) -> bool) -> String {
    let spell = |line| match shown(line) {
        Some((key, true)) if is_wanted(key) => line.trim_start_matches("# "),
        _ => line,
    };
    EXAMPLE.lines().map(spell).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn it_is_valid_and_says_what_it_seems_to() {
    let config = valid(EXAMPLE);
    assert_eq!(config.workers, Workers::Cores(vec![2, 3]));
    assert_eq!(
        config.forwarding,
        Forwarding::Ipip {
            source_v4: Some("10.200.0.0/16".parse().unwrap()),
            source_v6: Some("fd00:afb::/64".parse().unwrap())
        }
    );
    let vips: Vec<_> = config.vips.iter().map(|vip| (vip.key().to_string(), vip.reals.len())).collect();
    assert_eq!(
        vips,
        [
            ("198.51.100.10:443/tcp".to_owned(), 3),
            ("198.51.100.10:443/udp".to_owned(), 1),
            ("[2001:db8:0:10::/64]:*/udp".to_owned(), 1)
        ]
    );
    let reals: Vec<_> = config.vips[0].reals.iter().map(|real| (real.weight, real.state)).collect();
    assert_eq!(reals, [(100, RealState::Up), (200, RealState::Up), (100, RealState::Drain)]);
    let Some(Check { probe: Probe::Http { port, host, tls, .. }, .. }) = &config.vips[0].check else {
        panic!("{:?}", config.vips[0].check)
    };
    assert_eq!((*port, host.as_deref(), *tls), (443, Some("www.example.com"), Tls::On { verify: true }));
    assert_eq!((config.vips[1].server_id, &config.vips[1].check), (ServerIdIn::Quic, &None));
    assert_eq!(config.vips[1].reals[0].server_ids, [1022, 197_630]);
    assert_eq!(config.vips[2].reals[0].next_hop, Some(MacAddress([2, 0, 0, 0, 0, 0x11])));
}

#[test]
fn what_it_calls_a_default_is_one() {
    let count = EXAMPLE.lines().filter(|line| matches!(shown(line), Some((_, true)))).count();
    assert_eq!(count, 51);
    assert_eq!(valid(&spelled_out(|key| !NO_DEFAULTS.contains(&key))), valid(EXAMPLE));
}

#[test]
fn what_has_no_default_is_right_where_it_belongs() {
    let spelled = |keys: &[&str]| spelled_out(|key| keys.contains(&key));
    let gue = spelled(&["gue_port"]).replace("\"ipip\"", "\"gue\"");
    assert!(matches!(valid(&gue).forwarding, Forwarding::Gue { port: 6080, .. }));
    let config = valid(&spelled(&["next_hop", "client_mtu"]));
    assert_eq!((config.next_hop, config.client_mtu), (Some(MacAddress([2, 0, 0, 0, 0, 1])), Some(1500)));
    let settings = valid(&spelled(&["channels", "rss_key"])).ports[0].settings.clone();
    let (channels, rss_key) = (NonZeroU16::new(4), "symmetric".parse().ok());
    assert_eq!(settings, Settings { channels, rss_key, ..Settings::DEFAULT });
    let counted = spelled(&["count"]).replace("cores = [2, 3]", "");
    assert_eq!(valid(&counted).workers, Workers::Count(NonZeroU16::new(2).unwrap()));
    let command = spelled(&["command"])
        .replace("type = \"https\"", "type = \"command\"")
        .replace("host = \"www.example.com\"", "");
    let Some(Check { probe: Probe::Command { command, port }, .. }) = &valid(&command).vips[0].check else {
        panic!("it has a check by a command")
    };
    assert_eq!(
        (&command[..], *port),
        (&["/usr/local/bin/check".to_owned(), "--quick".to_owned()][..], Some(443))
    );
}

#[test]
fn it_shows_every_key() {
    // A key that nobody knows has all that are known named.
    let nonsense = |section: &str| format!("{section}\nzzzzzzzzzzzz = 1\n");
    let text =
        ["[[port]]", "[workers]", "[control]", "[forwarding]", "[icmp]", "[decapsulation]", "[maglev]"]
            .map(nonsense)
            .concat()
            + &["[connections]", "[[vip]]", "[vip.check]", "[[vip.real]]"].map(nonsense).concat();
    let text = format!("version = 1\nzzzzzzzzzzzz = 1\n{text}");
    let mut known = BTreeSet::new();
    for message in messages(&text) {
        let Some((_, rest)) = message.split_once("the key `zzzzzzzzzzzz` is not known") else { continue };
        let section = rest.lines().next().unwrap().trim_start_matches(" in ").to_owned();
        let (_, list) = rest.split_once("known are ").unwrap();
        known.extend(list.split(", ").map(|key| (section.clone(), key.trim_matches('`').to_owned())));
    }
    let mut shows = BTreeSet::new();
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        if line.starts_with('[') {
            let (outer, name) = line.trim_matches(['[', ']']).rsplit_once('.').unwrap_or(("", line));
            let outer = if outer.is_empty() { String::new() } else { format!("[[{outer}]]") };
            shows.insert((outer, name.trim_matches(['[', ']']).to_owned()));
            section = line.to_owned();
        } else if let Some((key, _)) = shown(line) {
            shows.insert((section.clone(), key.to_owned()));
        }
    }
    assert!(known.len() > 60, "{known:?}");
    assert_eq!(shows, known);
}
