//! What a VIP's keys mean for those who use it: each on a network with real sockets.

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use afx_testbed::Link;
use common::download::{Download, Server};
use common::{Net, PATIENCE, VIP4, VIP6, echo, head, web};
use socket2::{Domain, Protocol, Socket, Type};

const IPIP: &str = "method = \"ipip\"";
const ECHO: u16 = 7007;

/// A VIP with these keys, and two reals with theirs.
fn vip(keys: &str, first: &str, second: &str) -> String {
    format!(
        "[[vip]]\n{keys}\n[[vip.real]]\naddress = \"10.0.0.11\"\n{first}\n[[vip.real]]\naddress = \"10.0.0.12\"\n\
         {second}\n"
    )
}

fn udp(keys: &str, first: &str, second: &str) -> String {
    let keys = format!("address = \"{VIP4}\"\nport = {ECHO}\nprotocol = \"udp\"\n{keys}");
    head(1, IPIP) + &vip(&keys, first, second)
}

fn echo_servers(net: &Net) -> Vec<echo::Server> {
    (1..).zip(&net.reals).map(|(number, real)| echo::Server::start(real, number, VIP4, ECHO)).collect()
}

/// Gives the client another address.
fn another_address(net: &Net, address: &str) -> IpAddr {
    net.client.ip(&format!("address add {address}/24 dev eth0")).unwrap();
    address.parse().unwrap()
}

#[test]
fn pings_are_answered_for_those_vips_that_say_so() {
    let net = Net::new("lb-ping", 1, 1);
    net.client.ip(&format!("route add 198.51.100.20/32 via {}", common::OWN)).unwrap();
    let vip = |address: &str, real: &str, ping: bool| {
        format!(
            "[[vip]]\naddress = \"{address}\"\nport = 80\nprotocol = \"tcp\"\nping = {ping}\n[[vip.real]]\naddress = \
             \"{real}\"\n"
        )
    };
    let vips = vip(VIP4, "10.0.0.11", true)
        + &vip(VIP6, "fd00::11", true)
        + &vip("198.51.100.20", "10.0.0.11", false);
    let balancer = net.start(&(head(1, IPIP) + &vips), &[]);
    let ping = |address: &str, size: u16| {
        let command =
            net.client.command("ping").args(["-c", "3", "-i", "0.2", "-W", "2", "-s", &size.to_string()]);
        command.arg(address).output().unwrap()
    };
    for address in [VIP4, VIP6] {
        for size in [56, 1000] {
            let answered = ping(address, size);
            assert!(answered.stdout.contains(" 3 received, 0% packet loss"), "{}", answered.stdout);
        }
    }
    let silent = ping("198.51.100.20", 56);
    assert!(silent.stdout.contains(" 0 received"), "{}", silent.stdout);
    assert_eq!(balancer.stop().sent, 12);
}

#[test]
fn errors_about_answers_reach_the_real_that_has_sent_them() {
    // Answers to the user meet a link that takes less than its ends do.
    let net = Net::new("lb-icmp", 2, 2);
    net.decapsulate();
    let (near, user) = (net.bed.host("near").unwrap(), net.bed.host("user").unwrap());
    net.client.forward().unwrap();
    near.forward().unwrap();
    let narrow =
        Link::between(net.client.end("eth1").address("10.8.0.1/24"), near.end("eth0").address("10.8.0.2/24"));
    net.bed.link(narrow.mtu(1300)).unwrap();
    let wide =
        Link::between(near.end("eth1").address("10.9.0.2/24"), user.end("eth0").address("10.9.0.1/24"));
    net.bed.link(wide).unwrap();
    net.client.route("10.9.0.0/24", "10.8.0.2").unwrap();
    near.route("default", "10.8.0.1").unwrap();
    user.route("default", "10.9.0.2").unwrap();
    let reals = net.reals.iter().zip(1..);
    let _servers: Vec<_> = reals
        .map(|(real, number)| {
            real.route("10.9.0.0/24", "10.0.0.1").unwrap();
            Server::start(real, number, VIP4, 80)
        })
        .collect();
    let config = web(&[("10.0.0.11", 1), ("10.0.0.12", 1)]).replace("count = 1", "count = 2");
    let balancer = net.start(&config, &[]);
    let mut seen = [false; 2];
    for _ in 0..16 {
        let download = Download::start(&user, VIP4, 80);
        seen[usize::from(download.real()) - 1] = true;
        download.advance(20_000);
        download.finish();
    }
    assert_eq!(seen, [true; 2]);
    // Each of them has been told, through the balancer.
    for real in &net.reals {
        let route = real.ip(&format!("route get 10.9.0.1 from {VIP4}")).unwrap();
        assert!(route.contains(" mtu 1300"), "{route}");
    }
    assert_eq!(balancer.stop().dropped, 0);
}

#[test]
fn fragments_are_served_together() {
    let net = Net::new("lb-fragments", 2, 2);
    net.decapsulate();
    let _servers = echo_servers(&net);
    let config = udp("fragments = \"together\"", "", "").replace("count = 1", "count = 2");
    let balancer = net.start(&config, &[]);
    let mut seen = [false; 2];
    for number in 0..16_u8 {
        let client = echo::Client::connect(&net.client, VIP4, ECHO);
        // Three fragments, and a packet that is none: all of one flow.
        let question = vec![number; 3000];
        let real = client.ask_this(&question);
        assert_eq!(client.ask(), real);
        assert_eq!(client.ask_this(&question), real);
        seen[usize::from(real) - 1] = true;
    }
    assert_eq!(seen, [true; 2]);
    assert_eq!(balancer.stop().dropped, 0);
}

#[test]
fn udp_flows_stay_with_a_real_that_is_down_or_leave_it() {
    let net = Net::new("lb-udp-down", 2, 1);
    net.decapsulate();
    let _servers = echo_servers(&net);
    for leaves in [true, false] {
        let keys = format!("udp_leaves_down = {leaves}");
        let balancer = net.start(&udp(&keys, "", ""), &[]);
        let clients: Vec<_> = (0..16).map(|_| echo::Client::connect(&net.client, VIP4, ECHO)).collect();
        let before: Vec<_> = clients.iter().map(echo::Client::ask).collect();
        assert!(before.contains(&1) && before.contains(&2), "{before:?}");
        balancer.reload(&udp(&keys, "state = \"down\"", ""));
        let after: Vec<_> = clients.iter().map(echo::Client::ask).collect();
        if leaves {
            assert_eq!(after, [2; 16]);
        } else {
            assert_eq!(after, before);
        }
        // Who comes now goes to the other one in both cases.
        let newcomers: Vec<_> =
            (0..16).map(|_| echo::Client::connect(&net.client, VIP4, ECHO).ask()).collect();
        assert_eq!(newcomers, [2; 16]);
        balancer.stop();
    }
}

#[test]
fn a_vip_may_be_a_prefix_with_any_port() {
    let net = Net::new("lb-prefix", 2, 1);
    net.decapsulate();
    net.client.ip(&format!("route add 198.51.100.0/24 via {} mtu 1460", common::OWN)).unwrap();
    for real in &net.reals {
        // All of the prefix is the real's own.
        real.ip("route add local 198.51.100.0/24 dev lo").unwrap();
    }
    let numbered = || (1..).zip(&net.reals);
    let ports = [80, 81, 50_000];
    let _servers: Vec<_> = ports
        .into_iter()
        .flat_map(|port| numbered().map(move |(number, real)| Server::start(real, number, "0.0.0.0", port)))
        .collect();
    let vip = |address: &str, port: &str, real: &str| {
        format!(
            "[[vip]]\naddress = \"{address}\"\nport = {port}\nprotocol = \"tcp\"\n[[vip.real]]\naddress = \"{real}\"\n"
        )
    };
    let vips = vip("198.51.100.0/24", "\"any\"", "10.0.0.11") + &vip("198.51.100.128/25", "81", "10.0.0.12");
    let balancer = net.start(&(head(1, IPIP) + &vips), &[]);
    for (address, port, real) in [
        ("198.51.100.1", 80, 1),
        ("198.51.100.1", 81, 1),
        ("198.51.100.255", 50_000, 1),
        // The longer prefix, where it has the port.
        ("198.51.100.129", 81, 2),
        ("198.51.100.129", 80, 1),
    ] {
        let download = Download::start(&net.client, address, port);
        assert_eq!(download.real(), real, "{address}:{port}");
        download.advance(3000);
        download.finish();
    }
    assert_eq!(balancer.stop().dropped, 0);
}

#[test]
fn clients_named_by_their_addresses_have_a_real_of_their_own() {
    let net = Net::new("lb-by-client", 2, 1);
    net.decapsulate();
    let _servers = echo_servers(&net);
    let (in_it, beside) = (another_address(&net, "10.0.0.129"), another_address(&net, "10.0.0.126"));
    let balancer = net.start(&udp("", "", "weight = 0\nsources = [\"10.0.0.128/25\"]"), &[]);
    for _ in 0..8 {
        assert_eq!(echo::Client::connect_from(&net.client, in_it, VIP4.parse().unwrap(), ECHO).ask(), 2);
        assert_eq!(echo::Client::connect_from(&net.client, beside, VIP4.parse().unwrap(), ECHO).ask(), 1);
    }
    assert_eq!(balancer.stop().dropped, 0);
}

#[test]
fn one_client_has_one_real_where_the_source_alone_is_hashed() {
    let net = Net::new("lb-by-source", 2, 1);
    net.decapsulate();
    let _servers = echo_servers(&net);
    let balancer = net.start(&udp("hash = \"source\"", "", ""), &[]);
    let mut seen = [false; 2];
    for number in 100..116 {
        let client = another_address(&net, &format!("10.0.0.{number}"));
        let ask = || echo::Client::connect_from(&net.client, client, VIP4.parse().unwrap(), ECHO).ask();
        let real = ask();
        seen[usize::from(real) - 1] = true;
        assert!((0..4).all(|_| ask() == real));
    }
    assert_eq!(seen, [true; 2]);
    assert_eq!(balancer.stop().dropped, 0);
}

#[test]
fn datagrams_that_name_their_server_get_there() {
    let net = Net::new("lb-udp-header", 2, 1);
    net.decapsulate();
    let _servers = echo_servers(&net);
    let config = udp("server_id = \"udp-header\"", "server_ids = [1000]", "server_ids = [66000]");
    let balancer = net.start(&config, &[]);
    // The first byte says that a server's id follows, in three bytes; the header has eight.
    let question = |id: u32| {
        let mut question = id.to_be_bytes().to_vec();
        question[0] = 0x52;
        question.extend_from_slice(b"....which real are you?");
        question
    };
    for _ in 0..8 {
        let client = echo::Client::connect(&net.client, VIP4, ECHO);
        let by_hash = client.ask();
        assert_eq!([66_000, 1000, 66_000].map(|id| client.ask_this(&question(id))), [2, 1, 2]);
        // An id that nobody has counts for nothing, and nothing was remembered of the others.
        assert_eq!(client.ask_this(&question(5)), by_hash);
        assert_eq!(client.ask(), by_hash);
    }
    assert_eq!(balancer.stop().dropped, 0);
}

#[test]
fn what_comes_in_a_tunnel_is_taken_out_and_balanced() {
    let net = Net::new("lb-tunnel-in", 2, 1);
    net.decapsulate();
    let _servers = echo_servers(&net);
    let config = udp("", "", "") + &format!("[decapsulation]\naddresses = [\"{}\"]\n", common::OWN);
    let balancer = net.start(&config, &[]);
    let client = SocketAddr::new("10.0.0.1".parse().unwrap(), 0);
    let socket = net.client.run(|| UdpSocket::bind(client)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let vip = SocketAddr::new(VIP4.parse().unwrap(), ECHO);
    let mut inner = vec![0; 200];
    let length =
        afx::packet::Builder::udp(socket.local_addr().unwrap(), vip).write(&mut inner, b"hello").unwrap();
    // In IP in IP the kernel writes the outer header, in IP in UDP that of UDP as well.
    let inner = &inner[14..length];
    let own = |port| SocketAddr::new(common::OWN.parse().unwrap(), port);
    let ipip = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_IPIP)));
    let ipip = net.client.run(ipip).unwrap().unwrap();
    let gue = net.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for _ in 0..4 {
        ipip.send_to(inner, &own(0).into()).unwrap();
        gue.send_to(inner, own(6080)).unwrap();
        for _ in 0..2 {
            let mut answer = [0; 100];
            let (length, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!(from, vip);
            assert_eq!(&answer[1..length], b"hello");
        }
    }
    let counts = balancer.stop();
    assert_eq!((counts.sent, counts.dropped), (8, 0));
}
