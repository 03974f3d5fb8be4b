//! Why the balancer drops packets.

use crate::batch::Reason;
use crate::stage::Malformed;
use crate::worker::Build;

/// The drop reasons, by name.
pub(super) struct Reasons {
    pub(super) malformed: Malformed,
    pub(super) not_ip: Reason,
    pub(super) ip_options: Reason,
    pub(super) no_vip: Reason,
    pub(super) fragment: Reason,
    pub(super) no_real: Reason,
    pub(super) no_next_hop: Reason,
    pub(super) too_big: Reason,
    pub(super) no_headroom: Reason,
    pub(super) trailing: Reason,
    pub(super) ttl_exceeded: Reason,
}

impl Reasons {
    pub(super) fn new(build: &mut Build<'_>) -> Self {
        let mut reason = |name, sentence| build.drop_reason(name, sentence);
        Self {
            not_ip: reason("balancer.not_ip", "The packet is no IP packet, so it is for no VIP."),
            ip_options: reason("balancer.ip_options", "The packet has IPv4 options."),
            no_vip: reason("balancer.no_vip", "No VIP has this address, port and protocol."),
            fragment: reason(
                "balancer.fragment",
                "The packet is a fragment: of a VIP that takes none, or its packet's first one did not come.",
            ),
            no_real: reason("balancer.no_real", "The VIP has no real that takes new flows."),
            no_next_hop: reason(
                "balancer.no_next_hop",
                "The way to the real is not known: no route, no answer from its next hop, or it leads to an \
                 interface that is no port.",
            ),
            too_big: reason(
                "balancer.too_big",
                "The packet exceeds the MTU for clients, or with its outer header that of the way.",
            ),
            no_headroom: reason("balancer.no_headroom", "The frame has no room for the outer header."),
            trailing: reason(
                "balancer.trailing",
                "The packet came in several segments and is longer than its IP header says.",
            ),
            ttl_exceeded: reason(
                "balancer.ttl_exceeded",
                "The packet came in a tunnel and may not be forwarded any further.",
            ),
            malformed: Malformed::new(build),
        }
    }
}
