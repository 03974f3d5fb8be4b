//! Packets from worker to worker: a bounded ring for each ordered pair, made at the start.

use crate::batch::{Batch, Meta, Reason, Slot, builtin};
use crate::mem::spsc::{Receiver, Sender, channel};
use crate::worker::door::{Entrance, Exit, door};
use crate::worker::mailbox::Waker;
use std::sync::Arc;

/// Packets that can be on their way from one worker to another.
const IN_FLIGHT: usize = 64;

/// A packet on its way: a copy of its bytes and what was known of it. Made once, used again and again.
struct Parcel {
    len: usize,
    /// Bytes of the packet's first segment: it stays one.
    head: usize,
    bytes: Box<[u8]>,
    meta: Meta,
    user: Option<[u64; 2]>,
}

/// To one other worker.
struct Outgoing {
    parcels: Sender<Parcel>,
    empty: Receiver<Parcel>,
    spare: Vec<Parcel>,
    waker: Arc<Waker>,
    entrance: Entrance,
}

/// From one other worker.
struct Incoming {
    parcels: Receiver<Parcel>,
    empty: Sender<Parcel>,
    exit: Exit,
}

/// A worker's part of the rings between all workers.
#[derive(Default)]
pub(super) struct HandOver {
    /// By the other worker's number; none for its own.
    outgoing: Vec<Option<Outgoing>>,
    incoming: Vec<Incoming>,
}

impl HandOver {
    /// The parts of all workers, for packets of up to `longest` bytes.
    pub(super) fn mesh(wakers: &[Arc<Waker>], longest: usize) -> Vec<Self> {
        let workers = wakers.len();
        let mut parts: Vec<Self> = (0..workers).map(|_| Self::default()).collect();
        for from in 0..workers {
            for (to, waker) in wakers.iter().enumerate() {
                if from == to {
                    parts[from].outgoing.push(None);
                    continue;
                }
                let (send, receive) = channel(IN_FLIGHT);
                let (send_empty, receive_empty) = channel(IN_FLIGHT);
                let (entrance, exit) = door();
                let spare = (0..IN_FLIGHT).map(|_| Parcel::new(longest)).collect();
                parts[from].outgoing.push(Some(Outgoing {
                    parcels: send,
                    empty: receive_empty,
                    spare,
                    waker: waker.clone(),
                    entrance,
                }));
                parts[to].incoming.push(Incoming { parcels: receive, empty: send_empty, exit });
            }
        }
        parts
    }

    /// Copies the packets of the batch that are to be handed over; what cannot be is settled as dropped.
    /// Returns how many went.
    #[cold]
    pub(super) fn send(&mut self, batch: &mut Batch) -> u64 {
        let mut sent = 0;
        for slot in batch.handed_over() {
            let to = usize::from(batch.detail(slot));
            match self.outgoing.get_mut(to) {
                Some(Some(outgoing)) => match outgoing.send(batch, slot) {
                    Ok(()) => sent += 1,
                    Err(reason) => batch.packet(slot).drop(reason),
                },
                _ => batch.packet(slot).drop(builtin::HAND_OVER_SELF),
            }
        }
        for outgoing in self.outgoing.iter_mut().flatten() {
            if outgoing.entrance.leave() {
                outgoing.waker.wake();
            }
        }
        sent
    }

    /// Whether a packet waits.
    pub(super) fn waiting(&self) -> bool {
        self.incoming.iter().any(|incoming| incoming.parcels.waiting())
    }

    /// From now on nobody hands anything over to this worker.
    pub(super) fn shut(&self) {
        self.incoming.iter().for_each(|incoming| incoming.exit.shut());
    }

    /// Whether nobody is just handing over who began before it was [`shut`](Self::shut): what waits now is all that
    /// will ever come.
    pub(super) fn is_clear(&self) -> bool {
        self.incoming.iter().all(|incoming| incoming.exit.is_clear())
    }

    /// Fills the empty batch with packets from other workers, at most `max`. Returns how many, and how
    /// many were dropped for want of a frame.
    #[inline]
    pub(super) fn receive(&mut self, batch: &mut Batch, max: usize) -> (usize, u64) {
        let (mut count, mut lost) = (0, 0);
        for incoming in &mut self.incoming {
            while count < max {
                let Some(parcel) = incoming.parcels.receive() else { break };
                let (head, rest) = parcel.bytes[..parcel.len].split_at(parcel.head);
                match batch.push_copy(head, rest) {
                    Some(slot) => {
                        batch.set_meta(slot, Some(parcel.meta), parcel.user);
                        count += 1;
                    }
                    None => lost += 1,
                }
                // There is room: as many parcels were made as the ring holds.
                let _ = incoming.empty.send(parcel);
            }
        }
        (count, lost)
    }

    /// Takes what waits for nobody. Returns how many packets.
    #[cold]
    pub(super) fn discard(&mut self) -> u64 {
        let mut count = 0;
        for incoming in &mut self.incoming {
            while let Some(parcel) = incoming.parcels.receive() {
                count += 1;
                let _ = incoming.empty.send(parcel);
            }
        }
        count
    }
}

impl Parcel {
    fn new(longest: usize) -> Self {
        Self { len: 0, head: 0, bytes: vec![0; longest].into(), meta: Meta::default(), user: None }
    }
}

impl Outgoing {
    fn send(&mut self, batch: &Batch, slot: Slot) -> Result<(), Reason> {
        if !self.entrance.enter() {
            return Err(builtin::HAND_OVER_STOPPED);
        }
        while let Some(parcel) = self.empty.receive() {
            self.spare.push(parcel);
        }
        let len: usize = batch.segments(slot).map(<[u8]>::len).sum();
        let mut parcel = self.spare.pop().ok_or(builtin::HAND_OVER_FULL)?;
        if len > parcel.bytes.len() {
            self.spare.push(parcel);
            return Err(builtin::HAND_OVER_SIZE);
        }
        let mut at = 0;
        for segment in batch.segments(slot) {
            parcel.bytes[at..at + segment.len()].copy_from_slice(segment);
            at += segment.len();
        }
        (parcel.len, parcel.head) = (len, batch.bytes(slot).len());
        parcel.meta = batch.meta_of(slot).unwrap_or_default();
        parcel.meta.origin.hops = parcel.meta.origin.hops.saturating_add(1);
        parcel.user = batch.user_of(slot);
        self.parcels.send(parcel).map_err(|parcel| {
            self.spare.push(parcel);
            builtin::HAND_OVER_FULL
        })
    }
}
