//! A UDP server on each real, and a client.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afx_testbed::Host;

use super::PATIENCE;

/// Answers with its number before what was asked.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Bound to the VIP: answers come from there.
    pub(crate) fn start(real: &Host, number: u8, vip: &str, port: u16) -> Self {
        let address = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), port);
        let socket = real.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stopping.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut buffer[1..]) {
                    buffer[0] = number;
                    let _ = socket.send_to(&buffer[..=length], client);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// A client of one flow.
pub(crate) struct Client(UdpSocket);

impl Client {
    pub(crate) fn connect(client: &Host, vip: &str, port: u16) -> Self {
        let vip: IpAddr = vip.parse().unwrap();
        let any: IpAddr = if vip.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        Self::connect_from(client, any, vip, port)
    }

    /// From this address of the client.
    pub(crate) fn connect_from(client: &Host, from: IpAddr, vip: IpAddr, port: u16) -> Self {
        let connect = || {
            let socket = UdpSocket::bind((from, 0))?;
            socket.connect((vip, port)).map(|()| socket)
        };
        let socket = client.run(connect).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Self(socket)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Sends what nobody answers.
    pub(crate) fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).unwrap();
    }

    /// The number of the real that answers; asks again where nobody does.
    pub(crate) fn ask(&self) -> u8 {
        self.ask_this(b"which real are you?")
    }

    /// As [`ask`](Self::ask), in these words. The answer repeats them.
    pub(crate) fn ask_this(&self, question: &[u8]) -> u8 {
        let deadline = Instant::now() + PATIENCE;
        let mut answer = vec![0; 1 << 16];
        loop {
            self.0.send(question).unwrap();
            match self.0.recv(&mut answer) {
                // Late answers to what was asked before come as well.
                Ok(length) if answer[1..length] == *question => return answer[0],
                Ok(_) => {}
                Err(error) => assert!(Instant::now() < deadline, "no answer: {error}"),
            }
        }
    }
}
