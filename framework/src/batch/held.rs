//! Packets that a stage holds over the end of a batch.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::{Meta, Origin, segments};
use crate::mem::Frame;

/// A packet that a stage holds: taken out of one batch by [`Batch::hold`](super::Batch::hold), to be
/// put into a later one by [`Batch::release`](super::Batch::release).
///
/// Letting it go without releasing it loses nothing: its frames go back to the pool, and the packet is
/// counted as dropped with the reason `held_discarded`.
#[must_use = "a held packet that is let go is dropped as `held_discarded`"]
pub struct Held {
    head: Frame,
    tail: u32,
    meta: Option<Meta>,
    user: Option<[u64; 2]>,
    discarded: Rc<Discarded>,
}

impl Held {
    pub(super) fn new(
        head: Frame,
        tail: u32,
        meta: Option<Meta>,
        user: Option<[u64; 2]>,
        discarded: Rc<Discarded>,
    ) -> Self {
        Self { head, tail, meta, user, discarded }
    }

    /// The bytes of the packet's first segment.
    pub fn bytes(&self) -> &[u8] {
        self.head.bytes()
    }

    /// The bytes of the packet's first segment, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.head.bytes_mut()
    }

    /// Where the packet came from.
    pub fn origin(&self) -> Origin {
        self.meta.map(|meta| meta.origin).unwrap_or_default()
    }

    pub(super) fn of(&self, discarded: &Rc<Discarded>) -> bool {
        Rc::ptr_eq(&self.discarded, discarded)
    }

    pub(super) fn into_parts(mut self) -> (Frame, u32, Meta, Option<[u64; 2]>) {
        // What is left behind is an empty token, which `drop` knows.
        let head = std::mem::replace(&mut self.head, Frame::EMPTY);
        (head, self.tail, self.meta.unwrap_or_default(), self.user)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.head.is_empty_slot() {
            let head = std::mem::replace(&mut self.head, Frame::EMPTY);
            self.discarded.push(head, std::mem::replace(&mut self.tail, segments::NONE));
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("len", &self.head.len()).field("origin", &self.origin()).finish()
    }
}

/// Where held packets go that were let go, until the turn's end. One per worker; never grows.
pub(crate) struct Discarded(RefCell<Vec<(Frame, u32)>>);

impl Discarded {
    pub(super) fn new(frames: usize) -> Self {
        Self(RefCell::new(Vec::with_capacity(frames)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    fn push(&self, head: Frame, tail: u32) {
        self.0.borrow_mut().push((head, tail));
    }

    pub(super) fn pop(&self) -> Option<(Frame, u32)> {
        self.0.borrow_mut().pop()
    }
}
