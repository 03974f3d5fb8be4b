//! An upload to a VIP, byte for byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use afx_testbed::Host;

use super::PATIENCE;

/// Bytes that show when one is out of place.
pub(crate) fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|place| ((place + seed).wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

/// Sends so much from a client to a VIP over TCP, and compares what the real has received.
pub(crate) fn upload(client: &Host, real: &Host, (vip, port): (&str, u16), len: usize) {
    let address = SocketAddr::new(vip.parse().unwrap(), port);
    let sent = bytes(1, len);
    let listener = real.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).map(|_| received)
    });
    let stream = client.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
    let mut stream = stream.unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let received = server.join().unwrap().unwrap();
    assert!(received == sent, "{} of {} bytes, or others", received.len(), sent.len());
}
