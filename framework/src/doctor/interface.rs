//! Whether an interface is ready: up, with a fitting MTU, and held by nobody else.

use afx_redirect::{Attached, Occupant};

use super::facts::Facts;
use super::netlink::{RX_SG, XdpFeatures, ZERO_COPY};
use super::peer::MTU_MOST;
use super::{Finding, Remedy, Topic};
use crate::port::{frame_size_of, longest_mtu};

const TOPIC: Topic = Topic::Interface;

/// The longest IP packet that fits a frame, of the size that the interface's driver has by itself.
pub(super) fn fits(facts: &Facts) -> u32 {
    longest_mtu(frame_size_of(&facts.driver, facts.link.mtu))
}

/// The name of the program by which afx takes packets.
const OURS: &str = "afx_redirect";

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let driver = if facts.driver.is_empty() { "none that has a name" } else { &facts.driver };
    vec![state(facts), mtu(facts), program(facts), Finding::good(TOPIC, "driver", driver)]
}

fn state(facts: &Facts) -> Finding {
    const NAME: &str = "state";
    let name = &facts.name;
    if !facts.link.is_up {
        let remedy = Remedy::command(format!("ip link set {name} up"));
        return Finding::fails(TOPIC, NAME, "it is down", "afx does not start on it").mend(remedy);
    }
    if !facts.link.has_carrier {
        let why = "nothing comes in: look at the cable, or at the other end";
        return Finding::better(TOPIC, NAME, "it is up, and has no carrier", why);
    }
    Finding::good(TOPIC, NAME, "it is up")
}

fn mtu(facts: &Facts) -> Finding {
    const NAME: &str = "MTU";
    let mtu = facts.link.mtu;
    let fits = fits(facts);
    if mtu <= fits {
        return Finding::good(TOPIC, NAME, format!("{mtu} bytes"));
    }
    let what = format!("{mtu} bytes, and up to {fits} fit a frame");
    let several = |xdp: &XdpFeatures| xdp.can(RX_SG);
    match facts.xdp.filter(several) {
        Some(xdp) if xdp.can(ZERO_COPY) && xdp.zero_copy_segments <= 1 => {
            let why = "the driver's zero-copy takes packets of one frame, and drops or cuts longer ones: with such an MTU \
                       packets are copied, unless zero-copy is demanded";
            return Finding::better(TOPIC, NAME, what, why);
        }
        Some(_) => return Finding::good(TOPIC, NAME, format!("{what}: longer packets take several")),
        None => {}
    }
    let refused = if mtu > MTU_MOST { "; many drivers refuse native XDP with such an MTU" } else { "" };
    let why = format!("longer packets go to the kernel, counted as `oversize`{refused}");
    let remedy = Remedy::command(format!("ip link set {} mtu {}", facts.name, mtu.min(1500)));
    Finding::better(TOPIC, NAME, what, why).mend(remedy)
}

fn program(facts: &Facts) -> Finding {
    const NAME: &str = "XDP program";
    let Some(occupant) = &facts.occupant else { return Finding::good(TOPIC, NAME, "none") };
    let Occupant { program_name, mode, .. } = occupant;
    if program_name == OURS {
        return Finding::good(TOPIC, NAME, format!("afx is at work here, in {mode} mode"));
    }
    let flag = match mode {
        Attached::Native => "xdpdrv",
        Attached::Generic => "xdpgeneric",
        _ => "xdpoffload",
    };
    let why = "afx does not push another program aside unless told to: say `coexist = \"chain\"` to have it get what afx \
               passes, or \"replace\" to put it aside meanwhile, for either of which the start takes CAP_SYS_ADMIN; \
               where a process holds it by a bpf_link, end that \
               process; where none does, it can be taken off for good:";
    let remedy = Remedy::command(format!("ip link set {} {flag} off", facts.name));
    Finding::fails(TOPIC, NAME, occupant.to_string(), why).mend(remedy)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::facts::tests::{card, veth};
    use super::*;

    #[test]
    fn an_interface_may_be_ready_or_not() {
        assert!(examine(&card()).iter().all(|finding| finding.verdict == Verdict::Good));
        let mut facts = veth();
        facts.link.has_carrier = false;
        assert_eq!(state(&facts).verdict, Verdict::CouldBeBetter);
        facts.link.is_up = false;
        assert_eq!(state(&facts).verdict, Verdict::WillNotWork);
        assert_eq!(state(&facts).remedy.unwrap().command, "ip link set eth0 up");
    }

    #[test]
    fn long_packets_do_not_fit() {
        let mut facts = card();
        facts.xdp = Some(XdpFeatures { actions: 1, ..XdpFeatures::default() });
        for (bytes, verdict, refused) in [
            (1500, Verdict::Good, false),
            (1774, Verdict::Good, false),
            (1775, Verdict::CouldBeBetter, false),
            (9000, Verdict::CouldBeBetter, true),
        ] {
            facts.link.mtu = bytes;
            let found = mtu(&facts);
            assert_eq!((found.verdict, found.why.contains("refuse")), (verdict, refused), "{bytes}");
        }
        // They do not where the driver has several frames for them, in the mode that is used.
        for (actions, zero_copy_segments, verdict) in [
            (1 | RX_SG, 0, Verdict::Good),
            (1 | RX_SG | ZERO_COPY, 5, Verdict::Good),
            (1 | RX_SG | ZERO_COPY, 1, Verdict::CouldBeBetter),
        ] {
            facts.xdp = Some(XdpFeatures { actions, zero_copy_segments, ..XdpFeatures::default() });
            let found = mtu(&facts);
            assert_eq!((found.verdict, found.why.contains("zero-copy")), (verdict, verdict != Verdict::Good));
        }
    }
}
