//! What the balancer counts of reals, for readers on the control side.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::connections::{Connections, Counters};
use super::decision::How;
use super::real::RealId;

/// Reads what the balancers of all workers count. Clones read the same.
#[derive(Debug, Clone, Default)]
pub struct Monitor(Arc<Mutex<Vec<Arc<Cells>>>>);

/// What was counted of one real, on all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RealStats {
    /// Packets sent to it.
    pub packets: u64,
    /// Their bytes as the client sent them, from the IP header on.
    pub bytes: u64,
    /// Connections that it was chosen for.
    pub opened: u64,
    /// Connections that it has now, as of a moment ago.
    pub connections: u64,
}

/// The connection tables of all workers together, as of a moment ago.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableStats {
    /// Connections there are.
    pub connections: u64,
    /// Those of them whose client has said FIN or RST.
    pub closing: u64,
    /// Connections there is room for.
    pub capacity: u64,
    /// Connections made since the start.
    pub inserted: u64,
    /// Connections that were silent for too long.
    pub expired: u64,
    /// Connections in use that had to go for lack of room.
    pub evicted_live: u64,
    /// Connections about to end that had to go for lack of room.
    pub evicted_closing: u64,
}

/// Counters that exporters can walk: each with its name and its sentence.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $(#[doc = $sentence:literal] $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $(#[doc = $sentence] pub $field: u64,)*
        }

        impl $name {
            /// Each counter: its name, the sentence that documents it, and its value.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + use<> {
                [$((stringify!($field), $sentence.trim_ascii(), self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    /// What the balancers of all workers have done, as of a moment ago.
    WorkStats {
        /// Packets that went to the real that their flow had; later fragments of a packet among them.
        by_connection,
        /// Packets for which the VIP's table chose the real, or would have if they had begun a flow.
        by_maglev,
        /// Packets that went to a real because of the client's address.
        by_source,
        /// Packets that named their real.
        by_server_id,
        /// Pings answered.
        echo_replies,
        /// Clients told that a packet was too big.
        too_big_answers,
        /// Clients not told, because that would have been too many answers at the time.
        too_big_suppressed,
        /// Packets taken out of tunnels.
        decapsulated,
        /// Fragments that had to wait for their packet's first one.
        fragments_held,
    }
}

impl Monitor {
    /// Nothing to read yet: balancers add themselves.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was counted of a real. Counts of an earlier real with the same index are in it.
    pub fn real(&self, id: RealId) -> RealStats {
        let mut stats = RealStats::default();
        for cells in self.cells().iter() {
            let cell = &cells.reals[usize::from(id.index())];
            stats.packets += cell.packets.load(Ordering::Relaxed);
            stats.bytes += cell.bytes.load(Ordering::Relaxed);
            stats.opened += cell.opened.load(Ordering::Relaxed);
            stats.connections += cell.connections.load(Ordering::Relaxed);
        }
        stats
    }

    /// The connection tables.
    pub fn table(&self) -> TableStats {
        let mut stats = TableStats::default();
        for cells in self.cells().iter() {
            let [connections, closing, capacity, inserted, expired, evicted_live, evicted_closing] =
                cells.table.each_ref().map(|word| word.load(Ordering::Relaxed));
            stats.connections += connections;
            stats.closing += closing;
            stats.capacity += capacity;
            stats.inserted += inserted;
            stats.expired += expired;
            stats.evicted_live += evicted_live;
            stats.evicted_closing += evicted_closing;
        }
        stats
    }

    /// What was done to packets, and how reals were chosen.
    pub fn work(&self) -> WorkStats {
        let mut stats = WorkStats::default();
        for cells in self.cells().iter() {
            let [connection, maglev, source, server_id, echo, told, suppressed, decapsulated, held] =
                cells.work.each_ref().map(|word| word.load(Ordering::Relaxed));
            stats.by_connection += connection;
            stats.by_maglev += maglev;
            stats.by_source += source;
            stats.by_server_id += server_id;
            stats.echo_replies += echo;
            stats.too_big_answers += told;
            stats.too_big_suppressed += suppressed;
            stats.decapsulated += decapsulated;
            stats.fragments_held += held;
        }
        stats
    }

    fn cells(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Cells>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's own cells, which it alone writes.
    pub(super) fn register(&self) -> Arc<Cells> {
        let cells = Arc::new(Cells {
            reals: (0..RealId::LIMIT).map(|_| Cell::default()).collect(),
            table: Default::default(),
            work: Default::default(),
        });
        self.cells().push(cells.clone());
        cells
    }
}

/// One worker's counters. It is their only writer: no read-modify-write is needed.
#[derive(Debug)]
pub(super) struct Cells {
    reals: Box<[Cell]>,
    table: [AtomicU64; 7],
    work: [AtomicU64; 9],
}

/// What a worker counts for itself until it shows it.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Packets, by how their real was chosen: in the order of [`How::ALL`].
    pub(super) chosen: [u64; How::ALL.len()],
    pub(super) echo_replies: u64,
    pub(super) too_big_answers: u64,
    pub(super) too_big_suppressed: u64,
    pub(super) decapsulated: u64,
    pub(super) fragments_held: u64,
}

#[derive(Debug, Default)]
struct Cell {
    packets: AtomicU64,
    bytes: AtomicU64,
    opened: AtomicU64,
    connections: AtomicU64,
}

#[inline(always)]
fn add(word: &AtomicU64, amount: u64) {
    word.store(word.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
}

impl Cells {
    #[inline(always)]
    pub(super) fn sent(&self, id: RealId, bytes: u64) {
        let cell = &self.reals[usize::from(id.index())];
        add(&cell.packets, 1);
        add(&cell.bytes, bytes);
    }

    #[inline(always)]
    pub(super) fn opened(&self, id: RealId) {
        add(&self.reals[usize::from(id.index())].opened, 1);
    }

    /// Shows how many connections the reals with these indices have, defined still or not.
    pub(super) fn publish_reals(&self, indices: Range<usize>, connections: &Connections) {
        for (index, cell) in indices.clone().zip(&self.reals[indices]) {
            let count = connections.connections_of(RealId::new(index as u16, 0));
            cell.connections.store(count.into(), Ordering::Relaxed);
        }
    }

    /// Shows what there is to say of the table, and what the worker has counted.
    pub(super) fn publish(&self, connections: &Connections, counts: &Counts) {
        let Counters { inserted, expired, evicted_live, evicted_closing, .. } = connections.counters();
        let (len, closing) = (connections.len() as u64, connections.closing() as u64);
        let capacity = connections.capacity() as u64;
        let words = [len, closing, capacity, inserted, expired, evicted_live, evicted_closing];
        for (place, word) in self.table.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        let Counts {
            chosen,
            echo_replies,
            too_big_answers,
            too_big_suppressed,
            decapsulated,
            fragments_held,
        } = *counts;
        let others = [echo_replies, too_big_answers, too_big_suppressed, decapsulated, fragments_held];
        for (place, word) in self.work.iter().zip(chosen.into_iter().chain(others)) {
            place.store(word, Ordering::Relaxed);
        }
    }
}
