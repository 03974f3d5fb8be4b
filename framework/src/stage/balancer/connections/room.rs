//! A place for a new flow in buckets that are full.

use super::{
    Connection, Connections, Meta, Place, State, Tick, first_bucket, lanes_of, other_bucket, tag_of,
};
use crate::stage::balancer::flow::FlowHash;

/// How many entries may be moved to make room for one.
const MOST_MOVES: usize = 2;

impl Connections {
    /// An empty lane for a flow, made so if need be by forgetting the expired and by moving other entries.
    pub(super) fn room(&mut self, flow: FlowHash, now: Tick) -> Option<Place> {
        let first = first_bucket(flow);
        let second = other_bucket(first, tag_of(flow));
        for bucket in [first, second] {
            if let Some(place) = self.empty_lane(bucket) {
                return Some(place);
            }
            self.expire(bucket, now);
            if let Some(place) = self.empty_lane(bucket) {
                return Some(place);
            }
        }
        // Above capacity most buckets are full: moving would cost dozens of cache misses, mostly in vain, and
        // that is the very moment of an attack.
        if self.len >= self.capacity {
            return None;
        }
        // One move is tried everywhere before two are: most often one is enough.
        (1..=MOST_MOVES)
            .find_map(|moves| self.vacate(first, moves, now).or_else(|| self.vacate(second, moves, now)))
    }

    /// Makes an empty lane in a full bucket by that many moves.
    fn vacate(&mut self, bucket: usize, moves: usize, now: Tick) -> Option<Place> {
        lanes_of(bucket).find(|from| {
            let other = other_bucket(bucket, self.buckets.at(bucket).tags[from.lane]);
            self.expire(other, now);
            let to = self
                .empty_lane(other)
                .or_else(|| if moves > 1 { self.vacate(other, moves - 1, now) } else { None });
            to.inspect(|to| self.relocate(*from, *to)).is_some()
        })
    }

    /// Moves an entry from one of its buckets to an empty lane in the other one.
    fn relocate(&mut self, from: Place, to: Place) {
        let source = *self.buckets.at(from.bucket);
        let meta = source.metas[from.lane];
        let target = self.buckets.at_mut(to.bucket);
        target.tags[to.lane] = source.tags[from.lane];
        target.reals[to.lane] = source.reals[from.lane];
        target.metas[to.lane] = target.metas[to.lane].with(meta.state(), meta.seen());
        self.leave(from);
        self.set_away(to, !meta.has(Meta::AWAY));
    }

    /// Moves an entry of this flow from its second bucket to its first one, where that has room.
    #[inline]
    pub(super) fn bring_home(&mut self, flow: FlowHash, place: Place) {
        if self.buckets.at(place.bucket).metas[place.lane].has(Meta::AWAY)
            && let Some(home) = self.empty_lane(first_bucket(flow))
        {
            self.relocate(place, home);
        }
    }

    fn empty_lane(&self, bucket: usize) -> Option<Place> {
        self.buckets.at(bucket).find(0).map(|lane| Place { bucket, lane })
    }

    /// Makes an empty lane in a flow's buckets, all of whose lanes are taken, mostly at the expense of another entry:
    /// that is the second result.
    pub(super) fn displace(&mut self, flow: FlowHash, now: Tick) -> (Place, Option<Connection>) {
        let first = first_bucket(flow);
        let places = lanes_of(first).chain(lanes_of(other_bucket(first, tag_of(flow))));
        let (worth, least) = self.least_worth(places.clone(), now);
        if worth == State::Established.worth() {
            // Eight connections in use, by chance. Nearly always one of them can take the place of one that is not.
            // Looking for it takes up to eight cache misses: rare in a flood of new flows, and worth a connection.
            for from in places {
                let other = other_bucket(from.bucket, self.buckets.at(from.bucket).tags[from.lane]);
                self.expire(other, now);
                let empty = self.empty_lane(other);
                let (worth, to) = empty.map_or_else(|| self.least_worth(lanes_of(other), now), |to| (0, to));
                if worth < State::Established.worth() {
                    let evicted = if empty.is_none() { self.evict(to, now) } else { None };
                    self.relocate(from, to);
                    return (from, evicted);
                }
            }
        }
        (least, self.evict(least, now))
    }

    /// Of several entries the one that goes first, after what it is worth.
    fn least_worth(&self, places: impl Iterator<Item = Place>, now: Tick) -> (u8, Place) {
        places
            .map(|place| {
                let meta = self.buckets.at(place.bucket).metas[place.lane];
                (meta.state().worth(), std::cmp::Reverse(now.since(meta.seen())), place)
            })
            .min_by_key(|(worth, silent, _)| (*worth, *silent))
            .map(|(worth, _, place)| (worth, place))
            .expect("a bucket has lanes")
    }

    fn evict(&mut self, place: Place, now: Tick) -> Option<Connection> {
        let evicted = self.show(place, now);
        match self.buckets.at(place.bucket).metas[place.lane].state() {
            State::Closing => self.counters.evicted_closing += 1,
            State::Opening | State::Established | State::Datagram => self.counters.evicted_live += 1,
        }
        self.clear(place);
        evicted
    }
}
