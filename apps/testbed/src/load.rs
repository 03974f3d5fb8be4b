//! Packets, as long as somebody wants them.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Up to 16,000 datagrams a second to where a socket is connected, as long as this lives.
///
/// ```no_run
/// use std::net::UdpSocket;
/// use afx_testbed::{Load, Testbed};
///
/// let bed = Testbed::new("docs-load")?;
/// let host = bed.host("a")?;
/// let socket = host.run(|| UdpSocket::bind("0.0.0.0:0"))?.expect("a port is free");
/// socket.connect("10.0.0.2:9").expect("an address is one");
/// let load = Load::start(socket);
/// # Ok::<(), afx_testbed::Error>(())
/// ```
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Sends on a thread of its own. That nobody listens is no end of it.
    #[must_use]
    pub fn start(socket: UdpSocket) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                (0..16).for_each(|_| drop(socket.send(&[0; 18])));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
