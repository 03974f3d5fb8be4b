//! What the tests share.

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
