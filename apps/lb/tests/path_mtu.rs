//! Packets that do not fit the way to a real: clients learn how long theirs may be, and their uploads arrive whole.
//!
//! A user is behind a router, in front of the balancer. Behind the balancer is a real, on a link with a small MTU, or a
//! router further. The real answers past the balancer.
//!
//! An IPv6 packet may always be 1280 bytes long (RFC 8200, section 5), and clients do not send shorter ones whatever
//! they are told: a way on which IPv6 is carried in another header has to take that header more than 1280.

mod common;

use std::io::Read;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use afx_redirect::{Decap, DecapOptions};

use afx_testbed::{Capture, Host, Link};
use common::upload::upload;
use common::{Net, OWN, VIP4, VIP6, head, vip};
use socket2::{Domain, Protocol, Socket, Type};

const PORT: u16 = 80;
const IPIP: &str = "method = \"ipip\"";
const GUE: &str = "method = \"gue\"";

/// The real's addresses on the link that its packets from the balancer come by.
const REAL4: &str = "10.4.0.11";
const REAL6: &str = "fd04::11";

/// Net's client is the router in front.
struct Routed {
    net: Net,
    user: Host,
    real: Host,
}

impl Routed {
    /// The real on a link of this MTU, at the balancer itself or behind a router there.
    fn new(name: &str, mtu: u32, far: bool) -> Self {
        let net = Net::new(name, 0, 1);
        let (user, real) = (net.bed.host("user").unwrap(), net.bed.host("real").unwrap());
        let end = |host: &Host, interface: &str, subnet: u8, number: u8| {
            let end = host.end(interface).address(format!("10.{subnet}.0.{number}/24"));
            end.address(format!("fd{subnet:02}::{number}/64"))
        };
        // In front.
        net.client.forward().unwrap();
        net.bed.link(Link::between(end(&user, "eth0", 9, 1), end(&net.client, "eth1", 9, 2))).unwrap();
        user.route("default", "10.9.0.2").unwrap();
        user.route("default", "fd09::2").unwrap();
        // No MTU is set by hand here.
        net.client.ip(&format!("route replace {VIP4}/32 via {OWN}")).unwrap();
        net.client.ip(&format!("-6 route replace {VIP6}/128 via fd00::2")).unwrap();
        // Behind.
        if far {
            let middle = net.bed.host("middle").unwrap();
            middle.forward().unwrap();
            net.bed.link(Link::between(end(&net.lb, "eth1", 2, 2), end(&middle, "eth0", 2, 3))).unwrap();
            net.bed
                .link(Link::between(end(&middle, "eth1", 4, 2), end(&real, "eth0", 4, 11)).mtu(mtu))
                .unwrap();
            net.lb.route("10.4.0.0/24", "10.2.0.3").unwrap();
            net.lb.route("fd04::/64", "fd02::3").unwrap();
        } else {
            net.bed
                .link(Link::between(end(&net.lb, "eth1", 4, 2), end(&real, "eth0", 4, 11)).mtu(mtu))
                .unwrap();
        }
        // The real's own way back.
        net.bed.link(Link::between(end(&real, "eth1", 0, 11), net.switch.port())).unwrap();
        real.route("default", "10.0.0.1").unwrap();
        real.route("default", "fd00::1").unwrap();
        real.sysctl("net.ipv4.conf.all.arp_ignore", "1").unwrap();
        real.ip(&format!("address add {VIP4}/32 dev lo")).unwrap();
        real.ip(&format!("address add {VIP6}/128 dev lo nodad")).unwrap();
        Self { net, user, real }
    }

    fn config(&self, forwarding: &str, address: &str, real: &str) -> String {
        let head = head(1, forwarding).replace("[workers]", "[[port]]\ninterface = \"eth1\"\n[workers]");
        head + &vip(address, PORT, "tcp", &[(real, 1)])
    }
}

/// What a host's kernel believes to be the longest packet that gets to an address.
fn path_mtu(host: &Host, to: &str) -> Option<u32> {
    let route = host.ip(&format!("route get {to}")).unwrap();
    let mtu = route.split_whitespace().skip_while(|word| *word != "mtu").nth(1)?;
    Some(mtu.parse().unwrap())
}

/// What tcpdump prints of a capture.
fn text(capture: Capture, host: &Host) -> String {
    let file = capture.stop().unwrap();
    host.command("tcpdump").args(["-n", "-t", "-r"]).arg(file).check().unwrap()
}

/// A case: the way the real is reached, and what a client is told of it.
struct Case {
    name: &'static str,
    forwarding: &'static str,
    vip: &'static str,
    real: &'static str,
    /// The MTU of the real's link, and what is left of it for a client's packet.
    link: u32,
    left: u32,
    /// Whether a router is between the balancer and that link.
    far: bool,
}

/// A prefix of outer sources, with a flow's own address for each.
const PREFIX: &str = "fd00:afb::/64";
const IPIP_FROM_PREFIX: &str = "method = \"ipip\"\nsource_v6 = \"fd00:afb::/64\"";

/// An upload in packets of 1500 bytes at first. The user is told in the VIP's name what fits, believes it, and all arrives.
fn uploads(case: &Case) {
    let routed = Routed::new(case.name, case.link, case.far);
    let port = if case.forwarding == GUE { NonZero::new(6080) } else { None };
    let index = routed.real.interface_index("eth0").unwrap();
    let options = DecapOptions { gue_port: port, ..DecapOptions::default() };
    let _decap = routed.real.run(|| Decap::attach(index, &options)).unwrap().unwrap();
    if case.forwarding == IPIP_FROM_PREFIX {
        // Where what routers say of its packets gets to, and counts.
        routed.net.bed.find("middle").unwrap().route(PREFIX, "fd02::2").unwrap();
        routed.net.lb.ip(&format!("route add local {PREFIX} dev lo")).unwrap();
    }
    let balancer = routed.net.start(&routed.config(case.forwarding, case.vip, case.real), &[]);
    let capture = routed.user.capture("eth0", "icmp or icmp6").unwrap();
    upload(&routed.user, &routed.real, (case.vip, PORT), 500_000);

    let said = text(capture, &routed.user);
    let expected = if case.vip == VIP4 {
        format!("IP {VIP4} > 10.9.0.1: ICMP {VIP4} unreachable - need to frag (mtu {})", case.left)
    } else {
        format!("IP6 {VIP6} > fd09::1: ICMP6, packet too big, mtu {}", case.left)
    };
    assert!(said.contains(&expected), "{said}");
    assert_eq!(path_mtu(&routed.user, case.vip), Some(case.left));
    if case.far {
        // The router there has said so, and the balancer's kernel has listened.
        assert_eq!(path_mtu(&routed.net.lb, case.real), Some(case.link));
    }
    // The first packets, sent before the user knew; it has not gone on like that. Each of them was answered.
    let counts = balancer.stop_having_answered();
    assert!((1..100).contains(&counts.dropped), "{counts:?}");
    assert_eq!(counts.received, counts.sent, "{counts:?}");
}

#[test]
fn ipip_of_ipv4_in_ipv4_by_a_link_of_1280() {
    let name = "lb-mtu-4in4";
    uploads(&Case { name, forwarding: IPIP, vip: VIP4, real: REAL4, link: 1280, left: 1260, far: false });
}

#[test]
fn ipip_of_ipv4_in_ipv6_by_a_link_of_1280() {
    let name = "lb-mtu-4in6";
    uploads(&Case { name, forwarding: IPIP, vip: VIP4, real: REAL6, link: 1280, left: 1240, far: false });
}

#[test]
fn ipip_of_ipv6_by_a_link_that_takes_the_shortest_long_packet() {
    let name = "lb-mtu-6in6";
    uploads(&Case { name, forwarding: IPIP, vip: VIP6, real: REAL6, link: 1320, left: 1280, far: false });
}

#[test]
fn gue_of_ipv4_in_ipv4_by_a_link_of_1280() {
    let name = "lb-mtu-gue44";
    uploads(&Case { name, forwarding: GUE, vip: VIP4, real: REAL4, link: 1280, left: 1252, far: false });
}

#[test]
fn gue_of_ipv4_in_ipv6_by_a_link_of_1280() {
    let name = "lb-mtu-gue46";
    uploads(&Case { name, forwarding: GUE, vip: VIP4, real: REAL6, link: 1280, left: 1232, far: false });
}

#[test]
fn gue_of_ipv6_by_a_link_that_takes_the_shortest_long_packet() {
    let name = "lb-mtu-gue66";
    uploads(&Case { name, forwarding: GUE, vip: VIP6, real: REAL6, link: 1328, left: 1280, far: false });
}

#[test]
fn ipip_in_ipv6_by_a_router_that_says_what_fits() {
    let name = "lb-mtu-far66";
    uploads(&Case { name, forwarding: IPIP, vip: VIP6, real: REAL6, link: 1400, left: 1360, far: true });
}

#[test]
fn ipip_from_a_prefix_by_a_router_that_says_what_fits() {
    let (name, forwarding) = ("lb-mtu-prefix", IPIP_FROM_PREFIX);
    uploads(&Case { name, forwarding, vip: VIP6, real: REAL6, link: 1400, left: 1360, far: true });
}

#[test]
fn gue_in_ipv6_by_a_router_that_says_what_fits() {
    let name = "lb-mtu-far-gue";
    uploads(&Case { name, forwarding: GUE, vip: VIP4, real: REAL6, link: 1280, left: 1232, far: true });
}

/// Takes outer headers off as a tunnel device does, after the kernel has put fragments together.
fn decapsulate_whole(real: &Host, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    let open = |protocol| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol))).unwrap();
    let (tunnel, stack) = real.run(|| (open(libc::IPPROTO_IPIP), open(libc::IPPROTO_RAW))).unwrap();
    tunnel.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    tunnel.set_recv_buffer_size(1 << 20).unwrap();
    let vip = SocketAddr::new(VIP4.parse().unwrap(), 0).into();
    std::thread::spawn(move || {
        let mut packet = vec![0; 1 << 16];
        while !stop.load(Ordering::Relaxed) {
            // The outer header has no options: 20 bytes.
            if let Ok(length) = (&tunnel).read(&mut packet) {
                let _ = stack.send_to(&packet[20..length], &vip);
            }
        }
    })
}

#[test]
fn outer_ipv4_packets_are_for_routers_to_fragment() {
    let routed = Routed::new("lb-mtu-fragments", 1280, true);
    let stop = Arc::new(AtomicBool::new(false));
    let thread = decapsulate_whole(&routed.real, stop.clone());
    let balancer = routed.net.start(&routed.config(IPIP, VIP4, REAL4), &[]);
    let capture = routed.real.capture("eth0", "ip proto 4").unwrap();
    // Segments of 1480 bytes: with their outer header they fit the balancer's own links.
    routed.net.client.ip(&format!("route replace {VIP4}/32 via {OWN} mtu 1480")).unwrap();
    upload(&routed.user, &routed.real, (VIP4, PORT), 500_000);
    let text = text(capture, &routed.real);
    // tcpdump names what a whole packet carries, and fragments by their outer protocol alone.
    assert!(text.contains("IP 10.2.0.2 > 10.4.0.11: IP 10.9.0.1."), "{text}");
    assert!(text.contains("IP 10.2.0.2 > 10.4.0.11: ip-proto-4"), "{text}");
    assert_eq!(balancer.stop().dropped, 0);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}
