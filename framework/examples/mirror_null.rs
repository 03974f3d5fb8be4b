//! tmp
use afx::{Batch, MemoryPort, Runtime, Stage};
struct Mirror;
impl Stage for Mirror {
    #[inline(always)]
    fn process(&mut self, batch: &mut Batch) {
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            packet.swap_mac_addresses();
            packet.transmit(packet.ingress());
        }
    }
}
fn main() {
    let (port, mut peers) = MemoryPort::with_queues("null", 1, 4096);
    let mut peer = peers.remove(0);
    let mut worker = Runtime::builder().port(port).pipeline(|_| Mirror).inline().unwrap();
    worker.turn();
    let total: u64 = std::env::args().nth(1).map_or(50_000_000, |a| a.parse().unwrap());
    for _ in 0..if total < 50_000_000 { 1 } else { 5 } {
        let start = std::time::Instant::now();
        let mut n = 0u64;
        while n < total {
            n += u64::from(peer.null(64, 60));
            worker.turn();
        }
        println!("{:.2} ns", start.elapsed().as_nanos() as f64 / n as f64);
    }
    println!("{:?}", worker.stats().workers[0].ledger);
}
