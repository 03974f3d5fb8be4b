//! Offloads of an interface that do harm to what XDP receives.

use super::facts::Facts;
use super::{Finding, Remedy, Topic};
use crate::machine::Files;

const TOPIC: Topic = Topic::Interface;

pub(super) fn examine(files: &Files, facts: &Facts) -> Vec<Finding> {
    if facts.features.is_empty() {
        return vec![Finding::better(
            TOPIC,
            "offloads",
            "not known",
            "the kernel does not say: see `ethtool -k`",
        )];
    }
    let mut findings = vec![joining(facts, "LRO", "lro", "rx-lro")];
    findings.push(match host_features(files, facts) {
        Some(features) => host_offloads(&features),
        None => joining(facts, "hardware GRO", "rx-gro-hw", "rx-gro-hw"),
    });
    findings.push(software_gro(facts));
    // A veth has nothing that strips tags: what counts is how its other end sends them.
    if facts.peer.is_none() {
        findings.push(vlan(facts));
    }
    findings
}

/// Packets joined by the card, before XDP sees them.
fn joining(facts: &Facts, name: &'static str, short: &str, feature: &'static str) -> Finding {
    let Some(found) = facts.active(feature) else { return Finding::good(TOPIC, name, "off") };
    let why = "drivers refuse native XDP with it, or packets come joined and fit no frame";
    if found.changeable {
        let remedy = Remedy::offload_off(&facts.name, short, feature);
        return Finding::fails(TOPIC, name, "on", why).mend(remedy);
    }
    Finding::fails(TOPIC, name, "on, and the driver cannot turn it off", why)
}

/// What a virtio card's host and driver have agreed upon: one digit a bit, from the lowest on. None for other cards, and
/// where /sys is of another network namespace, which may have a card of this name.
fn host_features(files: &Files, facts: &Facts) -> Option<String> {
    let folder = format!("/sys/class/net/{}", facts.name);
    let is_ours = files.number(&format!("{folder}/ifindex")) == Some(facts.index.into());
    files.read(&format!("{folder}/device/features")).filter(|_| is_ours && facts.driver == "virtio_net")
}

/// Bits of `linux/virtio_net.h`: whether the guest can tell its host to stop, and what the host may give it: packets
/// with unfinished checksums, and joined ones.
const CTRL_GUEST_OFFLOADS: usize = 2;
const GUEST_OFFLOADS: [(usize, &str); 7] = [
    (1, "guest_csum"),
    (7, "guest_tso4"),
    (8, "guest_tso6"),
    (9, "guest_ecn"),
    (10, "guest_ufo"),
    (54, "guest_uso4"),
    (55, "guest_uso6"),
];

/// Where the guest can tell its host to stop, the driver does that while an XDP program is attached; else it refuses the
/// program (`virtnet_xdp_set` in `drivers/net/virtio_net.c`).
fn host_offloads(features: &str) -> Finding {
    const NAME: &str = "host's offloads";
    let has = |bit: usize| features.as_bytes().get(bit) == Some(&b'1');
    let there: Vec<_> = GUEST_OFFLOADS.iter().filter(|(bit, _)| has(*bit)).map(|(_, name)| *name).collect();
    if there.is_empty() {
        return Finding::good(TOPIC, NAME, "none");
    }
    let what = there.join(", ");
    if has(CTRL_GUEST_OFFLOADS) {
        let what = format!("{what}; the driver turns them off while an XDP program is attached");
        return Finding::good(TOPIC, NAME, what);
    }
    let options: Vec<_> = there.iter().map(|name| format!("{name}=off")).collect();
    let why = format!(
        "the driver refuses native XDP, and with generic XDP packets come joined and with unfinished checksums. Only \
         the host can turn them off: in QEMU with `{}` for the device, or by `ctrl_guest_offloads=on`",
        options.join(",")
    );
    Finding::fails(TOPIC, NAME, what, why)
}

/// Native XDP comes before it, generic XDP after.
fn software_gro(facts: &Facts) -> Finding {
    const NAME: &str = "GRO";
    let Some(found) = facts.active("rx-gro") else { return Finding::good(TOPIC, NAME, "off") };
    if facts.is_native() != Some(false) {
        return Finding::good(TOPIC, NAME, "on; native XDP comes before it");
    }
    let why = "TCP packets are joined before generic XDP sees them, and then fit no frame";
    let finding = Finding::better(TOPIC, NAME, "on", why);
    if found.changeable { finding.mend(Remedy::offload_off(&facts.name, "gro", "rx-gro")) } else { finding }
}

fn vlan(facts: &Facts) -> Finding {
    const NAME: &str = "VLAN stripping";
    let Some(found) = facts.active("rx-vlan-hw-parse") else { return Finding::good(TOPIC, NAME, "off") };
    let why =
        "the card takes VLAN tags out of packets before XDP sees them: those of all VLANs look untagged";
    if found.changeable {
        let remedy = Remedy::offload_off(&facts.name, "rxvlan", "rx-vlan-hw-parse");
        return Finding::better(TOPIC, NAME, "on", why).mend(remedy);
    }
    Finding::better(TOPIC, NAME, "on, and the driver cannot turn it off", why)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::facts::tests::{bridge, card, veth, virtio};
    use super::*;
    use crate::xsk::ethtool::Feature;

    /// No test's interface is in it.
    const BARE: Files = Files::Captured(std::collections::BTreeMap::new());

    fn find(findings: Vec<Finding>, name: &str) -> Finding {
        findings.into_iter().find(|finding| finding.name == name).unwrap()
    }

    #[test]
    fn what_joins_packets_will_not_work() {
        let mut facts = card();
        assert_eq!(find(examine(&BARE, &facts), "LRO").verdict, Verdict::Good);
        facts.features.push(Feature::of("rx-lro", true, true));
        let lro = find(examine(&BARE, &facts), "LRO");
        assert_eq!(lro.verdict, Verdict::WillNotWork);
        let remedy = lro.remedy.unwrap();
        assert!(remedy.is_safe());
        assert_eq!(remedy.command, "ethtool -K enp1s0 lro off");
    }

    #[test]
    fn a_virtio_card_depends_on_its_host() {
        // As Firecracker says it, and QEMU as it comes and without what joins packets.
        for (features, verdict, what) in [
            (
                "11000101101110110000000000000000100100000000000000000000000000000000",
                Verdict::WillNotWork,
                "guest_csum, guest_tso4, guest_tso6, guest_ufo",
            ),
            (
                "11100101111111111101111000000100110000000000000000000000000000000000",
                Verdict::Good,
                "guest_csum, guest_tso4, guest_tso6, guest_ecn, guest_ufo; the driver turns them off while an XDP \
                 program is attached",
            ),
            ("10000100000110110000000000000000100100000000000000000000000000000000", Verdict::Good, "none"),
        ] {
            let files = Files::captured([
                ("/sys/class/net/eth0/ifindex", "2"),
                ("/sys/class/net/eth0/device/features", features),
            ]);
            let found = find(examine(&files, &virtio()), "host's offloads");
            assert_eq!((found.verdict, found.what.as_str(), found.remedy), (verdict, what, None));
        }
        // Where /sys does not show it, or shows another card, what ethtool says has to do.
        let other = [
            ("/sys/class/net/eth0/ifindex", "3"),
            ("/sys/class/net/eth0/device/features", "10000100000110110000000000000000"),
        ];
        for files in [Files::captured([]), Files::captured(other)] {
            let found = find(examine(&files, &virtio()), "hardware GRO");
            assert_eq!((found.verdict, found.remedy), (Verdict::WillNotWork, None));
        }
    }

    #[test]
    fn gro_is_in_the_way_of_generic_xdp_alone() {
        assert_eq!(find(examine(&BARE, &veth()), "GRO").verdict, Verdict::Good);
        let generic = find(examine(&BARE, &bridge()), "GRO");
        assert_eq!(generic.verdict, Verdict::CouldBeBetter);
        assert!(generic.remedy.unwrap().is_safe());
    }

    #[test]
    fn tags_are_stripped_by_cards_alone() {
        let stripping = find(examine(&BARE, &card()), "VLAN stripping");
        assert_eq!(stripping.remedy.unwrap().command, "ethtool -K enp1s0 rxvlan off");
        assert!(!examine(&BARE, &veth()).iter().any(|finding| finding.name == "VLAN stripping"));
    }
}
