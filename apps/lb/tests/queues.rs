//! Two queues, two workers, and a network that does not keep to them.

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use afx_testbed::wait_for;
use common::{Net, PATIENCE, VIP4, echo, head, vip};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

const PORT: u16 = 53;

/// Has the switch send all packets to the balancer, its second port, by one of its queues.
fn arrive_on(net: &Net, queue: u32) {
    net.switch.as_host().send_by_queue("p1", queue).unwrap();
}

/// How many packets have come to the balancer by a queue.
fn received_on(net: &Net, queue: u32) -> u64 {
    let statistics = net.lb.command("ethtool").args(["-S", "eth0"]).check().unwrap();
    let name = format!("rx_queue_{queue}_xdp_packets: ");
    let count = statistics.lines().find_map(|line| line.trim().strip_prefix(&name));
    count.unwrap_or_else(|| panic!("{statistics}")).parse().unwrap()
}

/// Sends an ICMP message to the VIP, as a router or the client's kernel would.
fn send_icmp(net: &Net, message: &[u8]) {
    let to = SockaddrIn::from(SocketAddrV4::new(VIP4.parse().unwrap(), 0));
    let send = || {
        let raw =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp).unwrap();
        sendto(raw.as_raw_fd(), message, &to, MsgFlags::empty()).unwrap();
    };
    net.client.run(send).unwrap();
}

/// "Fragmentation needed" about an answer from the VIP to that port of the client.
fn too_big(client_port: u16, mtu: u16) -> Vec<u8> {
    use afx::packet::{Builder, checksum::Sum};
    let client = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), client_port);
    let vip = SocketAddrV4::new(VIP4.parse().unwrap(), PORT);
    let mut quoted = [0; 64];
    Builder::udp(vip.into(), client.into()).dont_fragment().write(&mut quoted, b"big").unwrap();
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(&quoted[14..14 + 28]);
    let checksum = Sum::new().add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// What a real believes to be the longest packet that reaches the client from the VIP.
fn path_mtu(net: &Net, real: u8) -> Option<String> {
    let route = net.reals[usize::from(real) - 1].ip(&format!("route get 10.0.0.1 from {VIP4}")).unwrap();
    route.split_whitespace().skip_while(|word| *word != "mtu").nth(1).map(str::to_owned)
}

fn config(weights: [u32; 2]) -> String {
    let reals = [("10.0.0.11", weights[0]), ("10.0.0.12", weights[1])];
    head(2, "method = \"ipip\"") + &vip(VIP4, PORT, "udp", &reals)
}

#[test]
fn path_mtu_discovery_works_whatever_queue_it_comes_by() {
    let net = Net::new("lb-queues", 2, 2);
    net.decapsulate();
    let _servers: Vec<_> =
        (1..).zip(&net.reals).map(|(number, real)| echo::Server::start(real, number, VIP4, PORT)).collect();
    let balancer = net.start(&config([1, 0]), &[]);
    // A flow on each queue, served by the first real; from then on new flows go to the second.
    let flow = |queue| {
        arrive_on(&net, queue);
        let client = echo::Client::connect(&net.client, VIP4, PORT);
        assert_eq!(client.ask(), 1);
        client
    };
    let flows = [flow(0), flow(1)];
    assert!(balancer.reload(&config([0, 1])).contains("INFO reloaded"));

    let mut mtu = 1400;
    for (queue, client) in [(1, &flows[0]), (0, &flows[1]), (0, &flows[0]), (1, &flows[1])] {
        mtu -= 50;
        arrive_on(&net, queue);
        let before = received_on(&net, queue);
        send_icmp(&net, &too_big(client.port(), mtu));
        let learnt = || path_mtu(&net, 1) == Some(mtu.to_string());
        wait_for("the real to learn of it", PATIENCE, learnt).unwrap();
        assert!(received_on(&net, queue) > before, "it came by the queue that was meant");
        assert_eq!(path_mtu(&net, 2), None, "the other one has nothing to do with it");
    }
    // The flows are where they were.
    for (queue, client) in flows.iter().enumerate() {
        arrive_on(&net, queue as u32);
        assert_eq!(client.ask(), 1);
    }
    assert_eq!(echo::Client::connect(&net.client, VIP4, PORT).ask(), 2);
    assert_eq!(balancer.stop().dropped, 0);
}

#[test]
fn fragments_are_dropped_and_the_rest_of_the_flow_is_not() {
    let net = Net::new("lb-fragments", 1, 2);
    net.decapsulate();
    let _server = echo::Server::start(&net.reals[0], 1, VIP4, PORT);
    let balancer =
        net.start(&(head(2, "method = \"ipip\"") + &vip(VIP4, PORT, "udp", &[("10.0.0.11", 1)])), &[]);
    let client = echo::Client::connect(&net.client, VIP4, PORT);
    assert_eq!(client.ask(), 1);
    for queue in [0, 1, 0, 1] {
        arrive_on(&net, queue);
        // Two fragments, by the smaller MTU of the way to the VIP.
        client.send(&[0x55; 2000]);
    }
    assert_eq!(client.ask(), 1);
    assert_eq!(balancer.stop().dropped, 4 * 2);
}
