//! The guest's cables, and plugging their ends into hosts.

use std::fs;

use afx_testbed::{Host, wait_for, wait_for_some};

use crate::support::PATIENCE;

/// A cable between two cards. There is one of each: a test that has plugged it in has it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    /// virtio-net, one queue, zero copy where the kernel has it.
    First,
    /// As the first.
    Second,
    /// virtio-net whose memory the kernel may not map: it refuses zero copy with EINVAL.
    Unmappable,
    /// virtio-net of two queues.
    TwoQueues,
    /// virtio-net of two queues that the card itself chooses between, by the hash of RSS.
    Rss,
    /// igb, two queues. Its link goes down and up when a socket opens, and it loses packets.
    Igb,
    /// vmxnet3, whose driver joins packets (LRO) unless told not to.
    Joining,
    /// virtio-net whose host joins packets, and does not let the guest turn that off: its driver refuses XDP.
    Unyielding,
}

/// A cable's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Near,
    Far,
}

impl Cable {
    /// The address of the card at one end, as `scripts/guest` gives it.
    pub(crate) fn mac(self, end: End) -> [u8; 6] {
        let cable = match self {
            Self::First => 1,
            Self::Second => 2,
            Self::Unmappable => 3,
            Self::TwoQueues => 4,
            Self::Igb => 5,
            Self::Rss => 6,
            Self::Joining => 7,
            Self::Unyielding => 8,
        };
        [2, 0, 0, 0, cable, if end == End::Near { 1 } else { 2 }]
    }

    /// The name of the card at one end, which is the guest's own: once the test that has had it is over.
    pub(crate) fn card(self, end: End) -> String {
        let what = format!("the card at the {end:?} end of {self:?}");
        wait_for_some(&what, PATIENCE, || card_of(self.mac(end))).unwrap()
    }

    /// Gives the card at one end to a host, under a name. It goes back to the guest with the host.
    pub(crate) fn plug(self, end: End, host: &Host, name: &str) {
        let card = self.card(end);
        let move_it = ["link", "set", "dev", &card, "netns", host.namespace(), "name", name];
        let output = std::process::Command::new("ip").args(move_it).output().unwrap();
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
        // A test's packets may bear the address of another card.
        host.ip(&format!("link set dev {name} promisc on up")).unwrap();
        // No solicitations between a test's packets.
        let _ = host.sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1");
    }
}

/// Waits until an interface's link is up.
pub(crate) fn wait_for_link(host: &Host, name: &str) {
    let is_up = || host.ip(&format!("link show dev {name}")).unwrap().contains("LOWER_UP");
    wait_for("the link", PATIENCE, is_up).unwrap();
}

/// The name of the guest's own interface with that address; none while it is elsewhere.
fn card_of(mac: [u8; 6]) -> Option<String> {
    let wanted = mac.map(|byte| format!("{byte:02x}")).join(":");
    fs::read_dir("/sys/class/net").unwrap().flatten().find_map(|entry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        (address.trim() == wanted).then(|| entry.file_name().into_string().ok()).flatten()
    })
}
