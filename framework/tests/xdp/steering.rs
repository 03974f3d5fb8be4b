//! What afx takes from an interface, and what stays with the kernel.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use afx::Runtime;
use afx::port::{Protocol, Rule, Steering, XdpPort};
use afx_testbed::wait_for;

use crate::support::*;

pub(crate) fn udp_port(port: u16) -> Steering {
    let address: IpAddr = "10.0.0.2".parse().unwrap();
    let rule = Rule::new(address, Some(port), Some(Protocol::UDP));
    Steering::Match(vec![rule.unwrap()])
}

#[test]
fn only_what_matches_is_taken() {
    let (_net, a, b) = pair("afxsteer", 1);
    let builder = || Runtime::builder().port(XdpPort::new("eth0", udp_port(4433)));
    let running = start_on(&b, builder, |_| Mirror).unwrap();

    // Everything else is the kernel's: ping, TCP, UDP to another port.
    a.command("ping").args(["-c", "2", "-i", "0.2", "-W", "30", "10.0.0.2"]).check().unwrap();
    let listener = b.run(|| TcpListener::bind("10.0.0.2:4433")).unwrap().unwrap();
    let mut stream = a.run(|| TcpStream::connect("10.0.0.2:4433")).unwrap().unwrap();
    let mut accepted = listener.accept().unwrap().0;
    stream.write_all(b"through the kernel").unwrap();
    drop(stream);
    let mut received = String::new();
    accepted.read_to_string(&mut received).unwrap();
    assert_eq!(received, "through the kernel");
    assert_eq!(running.stats().received(), 0);

    let kernels = b.run(|| UdpSocket::bind("10.0.0.2:4434")).unwrap().unwrap();
    let taken = b.run(|| UdpSocket::bind("10.0.0.2:4433")).unwrap().unwrap();
    kernels.set_read_timeout(Some(PATIENCE)).unwrap();
    taken.set_nonblocking(true).unwrap();
    let client = a.run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
    for _ in 0..20 {
        client.send_to(b"taken", "10.0.0.2:4433").unwrap();
    }
    client.send_to(b"passed", "10.0.0.2:4434").unwrap();
    let mut buffer = [0; 16];
    let len = kernels.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"passed");
    wait_for("what matches", PATIENCE, || running.stats().received() == 20).unwrap();
    assert!(taken.recv(&mut buffer).is_err(), "the kernel has not seen it");

    // Steered elsewhere, the two change places.
    running.steer("eth0", &udp_port(4434)).unwrap();
    client.send_to(b"passed", "10.0.0.2:4433").unwrap();
    client.send_to(b"taken", "10.0.0.2:4434").unwrap();
    taken.set_nonblocking(false).unwrap();
    taken.set_read_timeout(Some(PATIENCE)).unwrap();
    let len = taken.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"passed");
    wait_for("what matches now", PATIENCE, || running.stats().received() == 21).unwrap();
    let error = running.steer("eth1", &udp_port(1)).unwrap_err();
    assert_eq!(error.to_string(), "there is no port eth1");

    let counters = running.redirect_counters("eth0").unwrap();
    assert_eq!(counters.redirected, 21, "{counters:?}");
    let stats = running.stop().unwrap();
    assert_settled(&stats);
    assert_untouched(&b, "eth0");
}
