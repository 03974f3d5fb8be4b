//! What comes of trying: the redirect program attached, a socket opened, both for a moment and without taking a packet.

use std::time::Duration;

use afx_redirect::{AttachMode, Attached, Options, Redirect, Steering};

use super::facts::Facts;
use super::{Finding, Topic};
use crate::port::{Mode, ModeWanted};
use crate::xsk::ethtool;
use crate::xsk::{Socket, SocketConfig, Umem, UmemConfig};

const TOPIC: Topic = Topic::Trying;

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    const HELD: &str = "another program holds the interface";
    if facts.occupant.is_some() {
        let why = "the kernel lets no second one on it";
        return vec![Finding::better(TOPIC, "trying", format!("not done: {HELD}"), why)];
    }
    // The program stays for the sockets: some drivers have zero-copy only with one.
    let native = attach(facts, AttachMode::Native);
    let mut findings = Vec::new();
    let program = match native {
        Ok(program) => {
            findings.push(Finding::good(TOPIC, "native XDP, tried", "the redirect program was attached"));
            findings.push(Finding::good(TOPIC, "generic XDP, tried", "not needed"));
            Some(program)
        }
        Err(error) => {
            let why = "generic XDP is used instead, which is slower";
            findings.push(Finding::better(TOPIC, "native XDP, tried", error, why));
            if let Some(name) = cannot_be_turned_off(facts) {
                let why = format!(
                    "{name} cannot be turned off, of which the kernel complains with a warning in its log"
                );
                findings.push(Finding::better(TOPIC, "generic XDP, tried", "not done", why));
                return findings;
            }
            match attach(facts, AttachMode::Generic) {
                Ok(program) => {
                    let what = "the redirect program was attached";
                    findings.push(Finding::good(TOPIC, "generic XDP, tried", what));
                    Some(program)
                }
                Err(error) => {
                    let why = "no packet can be had from this interface";
                    findings.push(Finding::fails(TOPIC, "generic XDP, tried", error, why));
                    None
                }
            }
        }
    };
    findings.extend(sockets(facts, program.as_ref().map(Redirect::mode)));
    let put_back = program.map_or(Ok(()), |program| program.detach().map_err(|error| chain(&error)));
    if let Err(error) = put_back.and_then(|()| turn_on_again(facts)) {
        let why = "`ip link show` and `ethtool -k` tell how the interface is now";
        findings.push(Finding::fails(TOPIC, "putting back", error, why));
    }
    findings
}

/// What joins packets, and is on whatever the kernel asks of the driver: a program in generic mode has it ask
/// (`generic_xdp_install` in `net/core/dev.c`).
fn cannot_be_turned_off(facts: &Facts) -> Option<&'static str> {
    JOINING.into_iter().find(|name| facts.active(name).is_some_and(|feature| !feature.changeable))
}

/// What joins packets in the card or its driver.
const JOINING: [&str; 2] = ["rx-lro", "rx-gro-hw"];

/// The kernel turns off what joins packets when a program comes in generic mode, and leaves it so (`generic_xdp_install`
/// in `net/core/dev.c`).
fn turn_on_again(facts: &Facts) -> Result<(), String> {
    for name in JOINING {
        let before = facts.active(name).is_some_and(|feature| feature.changeable);
        if before {
            ethtool::set_feature(&facts.name, name, true)
                .map_err(|error| format!("{name} was on, and cannot be turned on again: {error}"))?;
        }
    }
    Ok(())
}

/// Attaches a redirect program that takes nothing.
fn attach(facts: &Facts, mode: AttachMode) -> Result<Redirect, String> {
    let multi_buffer = facts.takes_long_packets();
    let options =
        Options { mode, multi_buffer, queues: 1, max_rules: 16, max_blocked: 16, ..Options::default() };
    Redirect::attach(facts.index, &Steering::Match(Vec::new()), &options).map_err(|error| chain(&error))
}

fn sockets(facts: &Facts, attached: Option<Attached>) -> Vec<Finding> {
    let zero_copy = match attached {
        Some(Attached::Native) => match open(facts, Mode::ZeroCopy) {
            Ok(()) => Finding::good(TOPIC, "zero-copy, tried", "a socket was opened on queue 0"),
            Err(error) => {
                Finding::better(TOPIC, "zero-copy, tried", error, "the kernel copies each packet instead")
            }
        },
        _ => Finding::better(TOPIC, "zero-copy, tried", "not tried", "it takes native XDP"),
    };
    let copy = match open(facts, Mode::Copy) {
        Ok(()) => Finding::good(TOPIC, "copy, tried", "a socket was opened on queue 0"),
        Err(error) => Finding::fails(TOPIC, "copy, tried", error, "no packet can be had from this interface"),
    };
    vec![zero_copy, copy]
}

/// Opens a socket on the first queue, with as little memory as a socket can have.
fn open(facts: &Facts, mode: Mode) -> Result<(), String> {
    const ENTRIES: u32 = 64;
    let memory = UmemConfig {
        frames: 2 * ENTRIES,
        fill_entries: ENTRIES,
        completion_entries: ENTRIES,
        huge_pages: false,
        ..UmemConfig::default()
    };
    let umem = Umem::new(memory).map_err(|error| chain(&error))?;
    let config = SocketConfig {
        rx_entries: ENTRIES,
        tx_entries: ENTRIES,
        mode: ModeWanted::Demand(mode),
        patience: Duration::from_secs(2),
        ..SocketConfig::default()
    };
    Socket::bind(&umem, &facts.name, 0, &config).map(drop).map_err(|error| chain(&error))
}

/// An error and what it came of.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
