//! A download over TCP, byte for byte.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use afx_testbed::Host;

use crate::support::PATIENCE;

/// Has a client read 8,000,000 bytes from a server over TCP, which checks every segment's sum; compares the bytes.
pub(crate) fn download(client: &Host, server: &Host, address: &str) {
    let sent: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    let listener = server.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let mut stream = client.run(|| TcpStream::connect(address)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut accepted = listener.accept().unwrap().0;
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            accepted.write_all(&sent).unwrap();
            drop(accepted);
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}
