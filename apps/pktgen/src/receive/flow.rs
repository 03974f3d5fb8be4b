//! One flow: which of its packets came, and in what order.

/// How much later than the newest packet so far a packet must have been sent, in ns, for a sequence that goes back to be
/// a sender that has started anew. A late packet or a copy was sent earlier than the newest; a sender that writes the
/// time once a batch may be a batch off.
const RESTART_AFTER: u64 = 10_000_000;

/// Where sequences begin once they are counted in 64 bits: far enough from 0 for earlier ones to come late.
const BEGIN: u64 = 1 << 32;

/// What was counted of a flow.
///
/// Sequences are compared by serial number arithmetic (RFC 1982), so that they may wrap. A flow whose first packet has a
/// sequence below the window has begun with 0, and what is missing before that packet is lost; one that begins later
/// was joined midway, and is counted from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
// In this order, so that what a packet in order touches is one cache line.
#[repr(C, align(64))]
pub(crate) struct Flow {
    /// Packets received, whatever they were.
    pub(crate) received: u64,
    /// The highest sequence since the sender started, in 64 bits.
    highest: u64,
    /// Different packets received since the sender started.
    distinct: u64,
    /// When the packet with the highest sequence was sent.
    newest: u64,
    /// Times that the sender started anew.
    pub(crate) restarts: u64,
    /// The lowest sequence since the sender started, in 64 bits.
    lowest: u64,
    /// Different packets, and packets lost, before the sender started anew.
    distinct_before: u64,
    lost_before: u64,
    /// Packets received before. They count nowhere else: RFC 4737 looks at the first copy only.
    pub(crate) duplicates: u64,
    /// Packets whose sequence was below the next expected one (RFC 4737, section 3.3).
    pub(crate) reordered: u64,
    /// The most packets that overtook one: those to be held back if the order were to be restored. Of a packet that is
    /// late on its own this is the reordering extent of RFC 4737, section 4.2; where several are late together, that
    /// also counts the late ones which came between.
    pub(crate) extent: u64,
    /// Packets that were behind by the window or more, or were sent before the sender started anew: whether they came
    /// before cannot be told, and they stay lost.
    pub(crate) too_late: u64,
    /// It was under way when its first packet came.
    pub(crate) joined: bool,
}

const _: () = assert!(std::mem::offset_of!(Flow, lost_before) < 64);

impl Flow {
    /// Counts a packet. `seen` is the flow's window: a bit for each of the last sequences, a power of two of words,
    /// zero at first.
    #[inline]
    pub(crate) fn record(&mut self, sequence: u32, time: u64, seen: &mut [u64]) {
        self.received += 1;
        if self.received == 1 {
            return self.begin(sequence, time, seen);
        }
        let ahead = i64::from(sequence.wrapping_sub(self.highest as u32).cast_signed());
        if ahead > 1 && self.restarts > 0 && time < self.newest {
            self.too_late += 1;
        } else if ahead > 0 {
            self.advance(ahead.unsigned_abs(), time, seen);
        } else if time > self.newest.saturating_add(RESTART_AFTER) {
            self.restart(sequence, time, seen);
        } else {
            self.late(ahead.unsigned_abs(), seen);
        }
    }

    /// Packets that have not come, as far as later ones tell.
    pub(crate) fn lost(&self) -> u64 {
        self.lost_before + self.span().saturating_sub(self.distinct)
    }

    /// Different packets received.
    pub(crate) fn distinct(&self) -> u64 {
        self.distinct_before + self.distinct
    }

    /// Takes in what another worker has counted of the same flow. Order and copies were looked at by each for itself.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.extent = self.extent.max(other.extent);
        self.too_late += other.too_late;
        self.restarts = self.restarts.max(other.restarts);
        self.joined &= other.joined;
        self.distinct += other.distinct;
        self.distinct_before += other.distinct_before;
        self.lost_before += other.lost_before;
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
        self.newest = self.newest.max(other.newest);
    }

    fn span(&self) -> u64 {
        if self.received == 0 { 0 } else { self.highest - self.lowest + 1 }
    }

    #[cold]
    fn begin(&mut self, sequence: u32, time: u64, seen: &mut [u64]) {
        self.joined = u64::from(sequence) >= window(seen);
        self.highest = BEGIN + u64::from(sequence);
        self.lowest = if self.joined { self.highest } else { BEGIN };
        self.distinct = 1;
        self.newest = time;
        each_word(seen, self.highest, 1, |word, bits| *word |= bits);
    }

    #[cold]
    fn restart(&mut self, sequence: u32, time: u64, seen: &mut [u64]) {
        self.lost_before = self.lost();
        self.distinct_before += self.distinct;
        self.restarts += 1;
        let was_joined = self.joined;
        seen.fill(0);
        self.begin(sequence, time, seen);
        self.joined |= was_joined;
    }

    #[inline]
    fn advance(&mut self, by: u64, time: u64, seen: &mut [u64]) {
        if by > 1 {
            // What was there is of sequences a window ago.
            each_word(seen, self.highest + 1, by.min(window(seen)), |word, bits| *word &= !bits);
        }
        self.highest += by;
        self.distinct += 1;
        self.newest = time;
        each_word(seen, self.highest, 1, |word, bits| *word |= bits);
    }

    #[cold]
    fn late(&mut self, behind: u64, seen: &mut [u64]) {
        if behind >= window(seen) {
            self.reordered += 1;
            self.too_late += 1;
            return;
        }
        let place = self.highest - behind;
        let mut new = false;
        each_word(seen, place, 1, |word, bits| {
            new = *word & bits == 0;
            *word |= bits;
        });
        if !new {
            self.duplicates += 1;
            return;
        }
        let mut overtaken_by = 0;
        each_word(seen, place + 1, behind, |word, bits| {
            overtaken_by += u64::from((*word & bits).count_ones())
        });
        self.reordered += 1;
        self.extent = self.extent.max(overtaken_by);
        self.distinct += 1;
        self.lowest = self.lowest.min(place);
    }
}

/// Which of a window's words has the bit of a sequence.
#[inline(always)]
pub(crate) fn word(sequence: u32, words: usize) -> usize {
    (sequence as usize / 64) & (words - 1)
}

/// How many sequences a window has bits for.
fn window(seen: &[u64]) -> u64 {
    seen.len() as u64 * 64
}

/// Calls `each` with the words that have the bits of `count` sequences from `start`, and with these bits.
#[inline(always)]
fn each_word(seen: &mut [u64], start: u64, count: u64, mut each: impl FnMut(&mut u64, u64)) {
    let last_word = seen.len() as u64 - 1;
    let end = start + count;
    let mut at = start;
    while at < end {
        let bit = at % 64;
        let bits = (64 - bit).min(end - at);
        each(&mut seen[((at / 64) & last_word) as usize], (u64::MAX >> (64 - bits)) << bit);
        at += bits;
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
