//! What the tests share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use afx::worker::Build;
use afx::{Batch, Inline, MemoryPeer, MemoryPort, Pipeline, Runtime, Stage};

/// A stage that is one function.
pub(crate) struct Each<F>(pub(crate) F);

impl<F: FnMut(&mut Batch)> Stage for Each<F> {
    fn process(&mut self, batch: &mut Batch) {
        (self.0)(batch);
    }
}

/// Sends everything back.
pub(crate) struct Reflect;

impl Stage for Reflect {
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.transmit(packet.ingress());
        }
    }
}

/// One memory port and a worker on this thread, which has lent its frames.
pub(crate) fn one_port<P: Pipeline>(
    build: impl Fn(&mut Build<'_>) -> P + Send + Sync + 'static,
) -> (Inline<P>, MemoryPeer) {
    with_frames(8192, 2048, build)
}

/// As above, with so many frames and so long rings.
pub(crate) fn with_frames<P: Pipeline>(
    frames: usize,
    ring: u32,
    build: impl Fn(&mut Build<'_>) -> P + Send + Sync + 'static,
) -> (Inline<P>, MemoryPeer) {
    let (port, mut peers) = MemoryPort::with_queues("cable", 1, ring);
    let mut worker = Runtime::builder().port(port).frames_per_queue(frames).pipeline(build).inline().unwrap();
    worker.turn();
    (worker, peers.remove(0))
}

/// A packet of 60 bytes that is told from others by its number.
pub(crate) fn numbered(number: u8) -> Vec<u8> {
    vec![number; 60]
}

/// Everything that the port has sent.
pub(crate) fn received(peer: &mut MemoryPeer) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| peer.receive()).collect()
}

/// The first byte of everything that the port has sent.
pub(crate) fn numbers(peer: &mut MemoryPeer) -> Vec<u8> {
    received(peer).iter().map(|packet| packet[0]).collect()
}

/// Demands that no frame is missing, and that all that stages held was released.
pub(crate) fn assert_balanced<P: Pipeline>(worker: &mut Inline<P>) {
    let stats = worker.stats();
    assert!(stats.balanced(), "{:?}", stats.workers[0].ledger);
}

/// Waits for what another thread does.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes off what ports send while something else happens, as a network does; returns the packets by port.
pub(crate) fn while_collecting<R>(peers: Vec<MemoryPeer>, act: impl FnOnce() -> R) -> (R, Vec<Vec<Vec<u8>>>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut peers = peers;
            let mut all = vec![Vec::new(); peers.len()];
            loop {
                // Asked before the last look, so that nothing is left behind.
                let last = done.load(Ordering::Acquire);
                for (peer, packets) in peers.iter_mut().zip(&mut all) {
                    packets.extend(received(peer));
                }
                if last {
                    return all;
                }
                std::thread::yield_now();
            }
        });
        let result = act();
        done.store(true, Ordering::Release);
        (result, collector.join().unwrap())
    })
}

/// A gate that stages wait at, so that a test may do something while a worker stands still.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    /// Waits until the gate is open.
    pub(crate) fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.1 += 1;
        changed.notify_all();
        // Not for ever: a test that fails before it opens the gate shall still end.
        drop(changed.wait_timeout_while(state, Duration::from_secs(60), |state| !state.0).unwrap());
    }

    /// Waits until someone has come to the gate.
    pub(crate) fn wait_for_someone(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        while state.1 == 0 {
            state = changed.wait(state).unwrap();
        }
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }
}

/// Sends a packet, as soon as there is room.
pub(crate) fn send(peer: &mut MemoryPeer, bytes: &[u8]) {
    eventually("room for a packet", || peer.send(bytes));
}
