//! What the driver of an interface can do for XDP, as it says itself.

use afx_redirect::Kinds;

use super::facts::Facts;
use super::interface::fits;
use super::netlink::{RX_SG, XdpFeatures, ZERO_COPY};
use super::{Finding, Topic};

const TOPIC: Topic = Topic::Interface;

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    match facts.xdp {
        None => {
            let why = "drivers say it from Linux 6.3 on; `--try` finds out";
            ["native XDP", "zero-copy"].map(|name| Finding::better(TOPIC, name, "not known", why)).into()
        }
        Some(xdp) => vec![native(facts), zero_copy(xdp), multi_buffer(facts, xdp), metadata(xdp)],
    }
}

fn native(facts: &Facts) -> Finding {
    const NAME: &str = "native XDP";
    if facts.is_native() == Some(true) {
        return Finding::good(TOPIC, NAME, "the driver runs the redirect program");
    }
    if facts.driver == "veth" {
        let why = "a veth has it only while its other end sends on no more queues than receive here; generic XDP is used, \
                   which is slower";
        return Finding::better(TOPIC, NAME, "not as this veth is", why);
    }
    let why = "generic XDP is used, after the kernel has made a packet of its own of each: slower; a card whose driver \
               has native XDP would do better";
    Finding::better(TOPIC, NAME, "the driver has none", why)
}

fn zero_copy(xdp: XdpFeatures) -> Finding {
    const NAME: &str = "zero-copy";
    if !xdp.can(ZERO_COPY) {
        let why = "the kernel copies each packet, and sends by system calls; a card whose driver has zero-copy would do \
                   better";
        return Finding::better(TOPIC, NAME, "the driver has none", why);
    }
    let buffers = match xdp.zero_copy_segments {
        0 | 1 => "packets of one buffer".to_owned(),
        most => format!("packets of up to {most} buffers"),
    };
    Finding::good(TOPIC, NAME, format!("the driver has it, for {buffers}"))
}

fn multi_buffer(facts: &Facts, xdp: XdpFeatures) -> Finding {
    const NAME: &str = "multi-buffer";
    let mtu = facts.link.mtu;
    match (xdp.can(RX_SG), mtu <= fits(facts)) {
        (true, _) => Finding::good(TOPIC, NAME, "the driver has it"),
        (false, true) => {
            Finding::good(TOPIC, NAME, format!("the driver has none; with an MTU of {mtu} it is not needed"))
        }
        (false, false) => {
            let why = "packets that do not fit a frame come by generic XDP alone, which is slower";
            Finding::better(TOPIC, NAME, format!("the driver has none, and the MTU is {mtu}"), why)
        }
    }
}

/// What `rx_metadata` of a port shows to stages: none is no harm.
fn metadata(xdp: XdpFeatures) -> Finding {
    let what = match xdp.metadata.map(Kinds::from_bits) {
        None => "not known: drivers say it from Linux 6.7 on".to_owned(),
        Some(kinds) if kinds.is_empty() => "none".to_owned(),
        Some(kinds) => kinds.to_string(),
    };
    Finding::good(TOPIC, "metadata", what)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::facts::tests::{bridge, card, old_kernel, veth};
    use super::*;

    fn verdicts(facts: &Facts) -> Vec<(&'static str, Verdict)> {
        examine(facts).into_iter().map(|finding| (finding.name, finding.verdict)).collect()
    }

    #[test]
    fn drivers_differ() {
        let good = |name| (name, Verdict::Good);
        let better = |name| (name, Verdict::CouldBeBetter);
        assert_eq!(
            verdicts(&card()),
            [good("native XDP"), good("zero-copy"), good("multi-buffer"), good("metadata")]
        );
        assert_eq!(
            verdicts(&veth()),
            [good("native XDP"), better("zero-copy"), good("multi-buffer"), good("metadata")]
        );
        assert_eq!(
            verdicts(&bridge()),
            [better("native XDP"), better("zero-copy"), good("multi-buffer"), good("metadata")]
        );
        assert_eq!(verdicts(&old_kernel()), [better("native XDP"), better("zero-copy")]);
    }

    #[test]
    fn what_it_can_is_said() {
        let findings = examine(&card());
        assert_eq!(findings[1].what, "the driver has it, for packets of up to 5 buffers");
        assert_eq!(findings[3].what, "hash, timestamp");
        assert_eq!(examine(&bridge())[3].what, "none");
        // As from Linux 6.3 to 6.6.
        let mut silent = card();
        silent.xdp = silent.xdp.map(|xdp| XdpFeatures { metadata: None, ..xdp });
        assert_eq!(examine(&silent)[3].what, "not known: drivers say it from Linux 6.7 on");
        let mut jumbo = bridge();
        jumbo.link.mtu = 9000;
        assert_eq!(verdicts(&jumbo)[2], ("multi-buffer", Verdict::CouldBeBetter));
    }
}
