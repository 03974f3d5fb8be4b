//! The connection table: which real serves a flow that was seen before.
//!
//! One table per worker, of fixed size: nothing is allocated and nothing is locked once it is made.
//!
//! # Layout
//!
//! A bucket is one cache line of four entries. A flow may stand in either of two buckets; the second follows
//! from the first and the tag alone, so that an entry can be moved to its other bucket (Fan et al., CoNEXT
//! 2014). The table has room for half as many again as its capacity, rounded up to a power of two; filled to
//! capacity it finds a place for all. An entry has 16 bytes, hence 24 to 48 bytes per connection (32 where
//! the capacity is a power of two), IPv6 as IPv4.
//!
//! An entry stands in its first bucket while there is room, and comes back to it by a lookup when there is room again:
//! 96 % of them do in a table that was filled to half of its lanes, 91 % where two thirds are taken, as many as it is
//! ever meant for; some less where connections come and go. Each bucket counts those that had to go to their second
//! one, so that a lookup needs the second only where there are any. Mostly it touches one cache line, whether the flow
//! is in the table or not: that is what [`lookup_first`](Connections::lookup_first) does for a whole batch, before
//! [`lookup`](Connections::lookup) sees to the rest.
//!
//! # Flows are known by hash
//!
//! An entry holds not the flow's 13 or 37 bytes but 64 bits of a hash under a secret key, compared in
//! buckets that another 64 bits choose ([`FlowHash`]). A flow that is not in the table meets at most 8
//! entries, so it is taken for another one with a probability of at most 8 * 2^-64: at ten million *new* flows
//! per second, once in some 7,000 years. What happens then is that one new connection goes to the real of another
//! one. Without the key nobody can bring it about. Entries with their addresses in full would need two to four
//! times the memory, and a second cache line per lookup. The price: the table can tell where a given flow
//! goes, but not list the addresses of its flows.
//!
//! # When it is full
//!
//! A new flow gets an entry always. If there is no room in its buckets, nor in those that their entries could
//! move to, then the entry of least worth goes: closing before opening before established, the longest
//! silent first. Where all eight are established, one of them takes the place of another entry that is not, if it
//! can. It is counted. A flow that lost its entry is not lost: it is a new one, and [`maglev`](super::maglev) sends
//! it where it went before unless the reals have changed.

use std::ops::Range;

use super::flow::FlowHash;
use super::real::RealId;
use crate::Time;
use crate::mem::{MaskedTable, PageKind, prefetch_write};

mod bucket;
mod room;
mod state;

use bucket::{Bucket, LANES};
use state::Meta;
pub use state::{Signal, State, Tick, Timeouts};

/// A table of connections; see the [module](self).
///
/// ```
/// use afx::packet::{FlowKey, Protocol};
/// use afx::stage::balancer::connections::{Connections, Signal, Tick, Timeouts};
/// use afx::stage::balancer::{flow::FlowHasher, real::RealId};
///
/// let mut connections = Connections::new(1 << 10, Timeouts::default());
/// let now = Tick::at(afx::Time::monotonic()); // once per batch
/// let key = FlowKey::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), Protocol::TCP, 40_000, 443);
/// let flow = FlowHasher::random()?.hash(&key.expect("both are IPv4"));
///
/// connections.prefetch(flow); // for every packet of a batch, then
/// assert_eq!(connections.lookup_first(flow, Signal::Open, now), None); // for every one, and then
/// assert_eq!(connections.lookup(flow, Signal::Open, now), None); // for those that were not found.
/// connections.insert(flow, RealId::new(3, 0), Signal::Open, now);
/// assert_eq!(connections.lookup_first(flow, Signal::Data, now), Some(RealId::new(3, 0)));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Connections {
    /// As many as a power of two.
    buckets: MaskedTable<Bucket>,
    capacity: usize,
    len: usize,
    /// Entries whose state is [`State::Closing`].
    closing: usize,
    timeouts: [u32; 4],
    per_real: Box<[u32]>,
    counters: Counters,
    sweep: Sweep,
}

/// What became of the entries of a table, since it was made.
///
/// `inserted` is at any time the number of entries there are plus all the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries made.
    pub inserted: u64,
    /// Entries whose flow had been silent for its timeout.
    pub expired: u64,
    /// Entries removed by [`Connections::remove`], or because a new connection took their place.
    pub removed: u64,
    /// Entries of connections that were closing, which had to go for lack of room.
    pub evicted_closing: u64,
    /// Entries of connections that were in use, which had to go for lack of room: the table is too small, or
    /// under attack.
    pub evicted_live: u64,
}

/// One entry, as [`Connections::iter_from`] and [`Connections::peek`] show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The flow's tag: [`FlowHash::tag`].
    pub tag: u64,
    /// Who serves it.
    pub real: RealId,
    /// How far it is.
    pub state: State,
    /// For how long the client has been silent.
    pub idle: std::time::Duration,
}

/// Where an entry stands.
#[derive(Clone, Copy)]
struct Place {
    /// Modulo their number.
    bucket: usize,
    lane: usize,
}

/// The search for expired entries, a few buckets at a time.
struct Sweep {
    next: usize,
    last: Tick,
    /// Work outstanding, in buckets times [`Sweep::PERIOD`].
    due: u64,
}

impl Sweep {
    /// In which time each bucket is visited once, in ticks: 10 s.
    const PERIOD: u64 = Tick::count(std::time::Duration::from_secs(10)) as u64;
    /// The most that is done per call: a bucket, which is read in order, counts as one.
    const MOST: u64 = 1024;
    /// Beside its bucket, for an entry that another bucket counts: that one is anywhere in memory.
    const AWAY: u64 = 8;
}

/// Buckets for so many connections.
fn buckets(capacity: usize) -> usize {
    (capacity + capacity / 2).div_ceil(LANES).next_power_of_two().max(2)
}

impl Connections {
    /// An empty table with room for `capacity` connections.
    ///
    /// # Panics
    /// If the memory for them is more than there are addresses.
    #[must_use]
    pub fn new(capacity: usize, timeouts: Timeouts) -> Self {
        Self {
            buckets: MaskedTable::new(buckets(capacity)),
            capacity,
            len: 0,
            closing: 0,
            timeouts: timeouts.ticks(),
            per_real: vec![0; RealId::LIMIT].into_boxed_slice(),
            counters: Counters::default(),
            sweep: Sweep { next: 0, last: Tick::at(Time::ZERO), due: 0 },
        }
    }

    /// Gets a flow's first bucket on its way into the cache. Worth it when called for a whole batch before the
    /// first [`lookup`](Self::lookup): memory then answers for all at the same time.
    #[inline(always)]
    pub fn prefetch(&self, flow: FlowHash) {
        prefetch_write(self.buckets.at(first_bucket(flow)));
    }

    /// [`lookup`](Self::lookup) in the first bucket only, which is most often enough. `None` says nothing: where the
    /// flow may be in its second bucket that is on its way, for a `lookup` after all others of the batch had their turn
    /// here.
    #[inline(always)]
    pub fn lookup_first(&mut self, flow: FlowHash, signal: Signal, now: Tick) -> Option<RealId> {
        let first = first_bucket(flow);
        let bucket = self.buckets.at(first);
        match bucket.find(tag_of(flow)) {
            // Most packets come within the tick of the one before, and say the same: nothing is to be noted.
            Some(lane) if bucket.metas[lane].is(signal.steady(), now) => {
                Some(RealId::from_bits(bucket.reals[lane]))
            }
            Some(lane) => self.touch(Place { bucket: first, lane }, signal, now),
            None => {
                self.prefetch_second(flow);
                None
            }
        }
    }

    /// The real that serves this flow, whose next packet says `signal`.
    ///
    /// `None` when the flow is not in the table, has been silent for too long, or begins anew.
    #[inline]
    pub fn lookup(&mut self, flow: FlowHash, signal: Signal, now: Tick) -> Option<RealId> {
        let place = self.find(flow)?;
        let real = self.touch(place, signal, now)?;
        self.bring_home(flow, place);
        Some(real)
    }

    /// What the table says of a flow, without counting it as use.
    #[must_use]
    pub fn peek(&self, flow: FlowHash, now: Tick) -> Option<Connection> {
        let place = self.find(flow)?;
        self.show(place, now)
    }

    /// Lets `real` serve this flow, whose first packet says `signal`. A flow that is in the table already gets
    /// the new real instead of its old one.
    ///
    /// Returns the connection that had to go for lack of room; see the [module](self).
    pub fn insert(&mut self, flow: FlowHash, real: RealId, signal: Signal, now: Tick) -> Option<Connection> {
        let mut evicted = None;
        let place = match self.find(flow) {
            Some(place) => {
                self.clear(place);
                self.counters.removed += 1;
                place
            }
            None => match self.room(flow, now) {
                Some(place) => place,
                None => {
                    let place;
                    (place, evicted) = self.displace(flow, now);
                    place
                }
            },
        };
        let state = State::first(signal);
        let bucket = self.buckets.at_mut(place.bucket);
        bucket.tags[place.lane] = tag_of(flow);
        bucket.reals[place.lane] = real.to_bits();
        bucket.metas[place.lane] = bucket.metas[place.lane].with(state, now);
        let away = (place.bucket ^ first_bucket(flow)) & (self.buckets.len() - 1) != 0;
        self.set_away(place, away);
        self.len += 1;
        self.closing += usize::from(state == State::Closing);
        self.per_real[usize::from(real.index())] += 1;
        self.counters.inserted += 1;
        evicted
    }

    /// Forgets a flow, because its real is gone for instance. Returns that real.
    pub fn remove(&mut self, flow: FlowHash) -> Option<RealId> {
        let place = self.find(flow)?;
        self.counters.removed += 1;
        Some(self.clear(place))
    }

    /// Forgets some of those that were silent for too long; to be called often. The work per call is bounded,
    /// and such that each entry is looked at every ten seconds if this is called a thousand times a second or
    /// more, with room for 16 million connections; less often while very many expire at once.
    pub fn tick(&mut self, now: Tick) {
        let all = self.buckets.len() as u64;
        let elapsed = u64::from(now.since(self.sweep.last));
        self.sweep.last = now;
        self.sweep.due = (self.sweep.due + elapsed * all).min(all * Sweep::PERIOD);
        let mut left = Sweep::MOST;
        while self.sweep.due >= Sweep::PERIOD && left > 0 {
            let away = self.expire(self.sweep.next, now);
            self.sweep.next = self.sweep.next.wrapping_add(1);
            self.sweep.due -= Sweep::PERIOD;
            left = left.saturating_sub(1 + away * Sweep::AWAY);
        }
    }

    /// The number of entries. One that was silent for too long counts until [`tick`](Self::tick) gets to it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many of the entries are of connections that are [closing](State::Closing).
    #[must_use]
    pub fn closing(&self) -> usize {
        self.closing
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// For how many connections the table was made.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The memory in bytes of a table with room for `capacity` connections.
    #[must_use]
    pub fn bytes_for(capacity: usize) -> usize {
        buckets(capacity) * size_of::<Bucket>()
    }

    /// The memory of the table in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// On what kind of pages the table lies: on ordinary ones lookups in a large table take far longer.
    #[must_use]
    pub fn page_kind(&self) -> PageKind {
        self.buckets.page_kind()
    }

    /// How many entries a real has; exact as [`len`](Self::len) is.
    ///
    /// Generations are not told apart: a real's index is not given to another while this is above 0.
    #[inline]
    #[must_use]
    pub fn connections_of(&self, real: RealId) -> u32 {
        self.per_real[usize::from(real.index())]
    }

    /// What became of the entries so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// One more than the highest position of [`iter_from`](Self::iter_from).
    #[must_use]
    pub fn positions(&self) -> usize {
        self.buckets.len() * LANES
    }

    /// All connections in use, from a position on, each with the position after it.
    ///
    /// A worker cannot stop for millions of entries: it takes some, notes the last position, and goes on
    /// from there in a later turn. A connection that moves meanwhile may show up twice or not at all.
    pub fn iter_from(&self, position: usize, now: Tick) -> impl Iterator<Item = (usize, Connection)> + '_ {
        self.iter_within(position..self.positions(), now)
    }

    /// The connections in use at these positions, each with the position after it: for those who must not look
    /// further, however few there are.
    pub fn iter_within(
        &self,
        positions: Range<usize>,
        now: Tick,
    ) -> impl Iterator<Item = (usize, Connection)> + '_ {
        (positions.start..positions.end.min(self.positions())).filter_map(move |position| {
            let place = Place { bucket: position / LANES, lane: position % LANES };
            Some((position + 1, self.show(place, now)?))
        })
    }

    #[inline(never)]
    fn find(&self, flow: FlowHash) -> Option<Place> {
        let tag = tag_of(flow);
        let first = first_bucket(flow);
        let bucket = self.buckets.at(first);
        if let Some(lane) = bucket.find(tag) {
            return Some(Place { bucket: first, lane });
        }
        if !bucket.has_away() {
            return None;
        }
        let second = other_bucket(first, tag);
        self.buckets.at(second).find(tag).map(|lane| Place { bucket: second, lane })
    }

    /// Notes of an entry that has come to this place whether that is in its second bucket, and counts it in its first.
    fn set_away(&mut self, place: Place, away: bool) {
        let bucket = self.buckets.at_mut(place.bucket);
        bucket.metas[place.lane].set(Meta::AWAY, away);
        if away {
            let first = other_bucket(place.bucket, bucket.tags[place.lane]);
            self.buckets.at_mut(first).count_away(true);
        }
    }

    /// One more packet of an entry's flow.
    #[inline(always)]
    fn touch(&mut self, place: Place, signal: Signal, now: Tick) -> Option<RealId> {
        let bucket = self.buckets.at(place.bucket);
        let meta = bucket.metas[place.lane];
        let real = RealId::from_bits(bucket.reals[place.lane]);
        if is_expired(&self.timeouts, meta, now) {
            self.clear(place);
            self.counters.expired += 1;
            return None;
        }
        let Some(state) = meta.state().after(signal) else {
            self.clear(place);
            self.counters.removed += 1;
            return None;
        };
        let next = meta.with(state, now);
        // Where it is the same, the cache line stays clean.
        if next != meta {
            self.buckets.at_mut(place.bucket).metas[place.lane] = next;
            self.closing += usize::from(state == State::Closing && meta.state() != State::Closing);
        }
        Some(real)
    }

    #[inline(never)]
    fn prefetch_second(&self, flow: FlowHash) {
        let first = first_bucket(flow);
        if self.buckets.at(first).has_away() {
            prefetch_write(self.buckets.at(other_bucket(first, tag_of(flow))));
        }
    }

    /// Empties the lanes of a bucket whose flows were silent for too long. Returns how many of them were away.
    #[inline]
    fn expire(&mut self, bucket: usize, now: Tick) -> u64 {
        let mut away = 0;
        for lane in 0..LANES {
            let Bucket { tags, metas, .. } = self.buckets.at(bucket);
            if tags[lane] != 0 && is_expired(&self.timeouts, metas[lane], now) {
                away += u64::from(metas[lane].has(Meta::AWAY));
                self.clear(Place { bucket, lane });
                self.counters.expired += 1;
            }
        }
        away
    }

    /// Empties a lane that holds an entry.
    fn leave(&mut self, place: Place) {
        let bucket = self.buckets.at_mut(place.bucket);
        let tag = std::mem::take(&mut bucket.tags[place.lane]);
        if bucket.metas[place.lane].has(Meta::AWAY) {
            self.buckets.at_mut(other_bucket(place.bucket, tag)).count_away(false);
        }
    }

    /// Forgets an entry.
    fn clear(&mut self, place: Place) -> RealId {
        let bucket = self.buckets.at(place.bucket);
        let real = RealId::from_bits(bucket.reals[place.lane]);
        self.closing -= usize::from(bucket.metas[place.lane].state() == State::Closing);
        self.leave(place);
        self.len -= 1;
        self.per_real[usize::from(real.index())] -= 1;
        real
    }

    fn show(&self, place: Place, now: Tick) -> Option<Connection> {
        let bucket = self.buckets.at(place.bucket);
        let (tag, meta) = (bucket.tags[place.lane], bucket.metas[place.lane]);
        if tag == 0 || is_expired(&self.timeouts, meta, now) {
            return None;
        }
        Some(Connection {
            tag,
            real: RealId::from_bits(bucket.reals[place.lane]),
            state: meta.state(),
            idle: Tick::duration(now.since(meta.seen())),
        })
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The bucket of a flow, as all buckets modulo their number.
#[inline(always)]
fn first_bucket(flow: FlowHash) -> usize {
    flow.index as usize
}

/// From either of an entry's buckets the other one; there are two buckets at least, so it is another one.
#[inline(always)]
fn other_bucket(bucket: usize, tag: u64) -> usize {
    bucket ^ ((tag >> 32) as usize | 1)
}

fn lanes_of(bucket: usize) -> impl Iterator<Item = Place> + Clone {
    (0..LANES).map(move |lane| Place { bucket, lane })
}

/// A flow's tag. 0 means an empty lane, so the one flow in 2^64 that has it shares 1 with another.
#[inline(always)]
fn tag_of(flow: FlowHash) -> u64 {
    flow.tag.max(1)
}

#[inline(always)]
fn is_expired(timeouts: &[u32; 4], meta: Meta, now: Tick) -> bool {
    now.since(meta.seen()) >= timeouts[meta.state() as usize]
}

#[cfg(test)]
mod tests;
