//! Downloads that last as long as the test needs, every byte checked.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use afx_testbed::{Host, wait_for};

use super::PATIENCE;

/// What a server sends at a time, and how often: some 300 KB/s.
const BLOCK: usize = 3000;
const EVERY: Duration = Duration::from_millis(10);

/// The byte of a download at a place: of server `number` alone, and not the same at a shifted place.
fn byte(number: u8, place: u64) -> u8 {
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(number) << 56) >> 56) as u8
}

/// A server on a real: sends its number, then bytes without end, until the client says something or leaves.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(real: &Host, number: u8, address: &str, port: u16) -> Self {
        let address = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
        let listener = real.run(|| TcpListener::bind(address)).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let stopping = stopping.clone();
                        threads.push(std::thread::spawn(move || serve(stream, number, &stopping)));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
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

fn serve(mut stream: TcpStream, number: u8, stop: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(EVERY)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut place = 0;
    let mut block = vec![number];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&block[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if sent == block.len() {
            block = (place..place + BLOCK as u64).map(|place| byte(number, place)).collect();
            place += BLOCK as u64;
            sent = 0;
        }
        // The pause between blocks, unless the client says that it has enough.
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// A download under way on a client.
pub(crate) struct Download {
    real: u8,
    place: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Download {
    pub(crate) fn start(client: &Host, vip: &str, port: u16) -> Self {
        let address = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), port);
        let connected = client.run(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
        let mut stream = connected.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut number = [0];
        stream.read_exact(&mut number).unwrap();
        let place = Arc::new(AtomicU64::new(0));
        let enough = Arc::new(AtomicBool::new(false));
        let (progress, real, end) = (place.clone(), number[0], enough.clone());
        let thread = std::thread::spawn(move || receive(stream, real, &progress, &end));
        Self { real, place, enough, thread }
    }

    /// The number of the real that serves it.
    pub(crate) fn real(&self) -> u8 {
        self.real
    }

    pub(crate) fn received(&self) -> u64 {
        self.place.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes more have come.
    pub(crate) fn advance(&self, bytes: u64) {
        let target = self.received() + bytes;
        let what = format!("the download from real {} to go on", self.real);
        wait_for(&what, PATIENCE, || self.received() >= target || self.thread.is_finished()).unwrap();
        assert!(!self.thread.is_finished(), "it has ended early: `finish` says why");
    }

    /// Ends it. Every byte was right, and the connection is whole.
    pub(crate) fn finish(self) {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap_or_else(|error| panic!("real {}: {error}", self.real));
    }
}

fn receive(mut stream: TcpStream, real: u8, progress: &AtomicU64, enough: &AtomicBool) -> Result<(), String> {
    let mut buffer = [0; 8192];
    let mut place = 0;
    while !enough.load(Ordering::Relaxed) {
        let count = stream.read(&mut buffer).map_err(|error| format!("after {place} bytes: {error}"))?;
        if count == 0 {
            return Err(format!("after {place} bytes: the server has ended it"));
        }
        for received in &buffer[..count] {
            if *received != byte(real, place) {
                return Err(format!("byte {place} is wrong"));
            }
            place += 1;
        }
        progress.store(place, Ordering::Relaxed);
    }
    // To the very end: the way to the real works still.
    stream.write_all(b".").map_err(|error| error.to_string())?;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(format!("at the end: {error}")),
        }
    }
}
