//! The frame token: exclusive access to one slot of the packet memory.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

/// A frame: one fixed-size slot of the packet memory, and the packet bytes in it.
///
/// ```text
///   ├── headroom ──┼───── bytes ─────┼── tailroom ──┤
///   chunk          data              data + len      chunk + size
/// ```
///
/// The token *is* the right to touch the bytes: it is neither `Copy` nor `Clone`, nothing outside
/// this module can make one, and giving it back ([`Pool::give`](super::Pool::give)) consumes it.
/// It stays on the thread of its pool.
///
/// Using a frame after it was given back does not compile:
/// ```compile_fail,E0382
/// # fn example(pool: &mut afx::mem::Pool) {
/// let frame = pool.take().unwrap();
/// pool.give(frame);
/// frame.bytes();
/// # }
/// ```
/// Nor does copying one, or sending it to another thread:
/// ```compile_fail,E0599
/// # fn example(frame: afx::mem::Frame) -> (afx::mem::Frame, afx::mem::Frame) {
/// (frame.clone(), frame)
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn example(frame: afx::mem::Frame) {
/// std::thread::spawn(move || frame.len());
/// # }
/// ```
#[must_use = "a frame that is dropped on the floor is lost to its pool: give it back"]
pub struct Frame {
    data: NonNull<u8>,
    shape: Shape,
}

/// Length, headroom and size in one word: so a token is two words, which travel in registers. A token of four
/// fields is put together in memory, and reading it back whole right after waits for all four stores.
#[derive(Clone, Copy)]
struct Shape(u64);

impl Shape {
    #[inline(always)]
    const fn new(len: u16, headroom: u16, size: u16) -> Self {
        Self(len as u64 | (headroom as u64) << 16 | (size as u64) << 32)
    }

    #[inline(always)]
    const fn len(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    const fn headroom(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    const fn size(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

impl Frame {
    /// The frame of `size` bytes that starts `headroom` before `data`, where its `len` bytes are.
    ///
    /// # Safety
    /// The frame is initialised memory of a live region, no other token for it exists, and
    /// `headroom + len <= size`. The region stays mapped for as long as the token lives.
    #[inline(always)]
    pub(super) unsafe fn new(data: NonNull<u8>, size: u16, headroom: u16, len: u16) -> Self {
        debug_assert!(usize::from(headroom) + usize::from(len) <= usize::from(size));
        Self { data, shape: Shape::new(len, headroom, size) }
    }

    /// A token for no frame at all: what an empty batch slot holds.
    pub(crate) const EMPTY: Self = Self { data: NonNull::dangling(), shape: Shape::new(0, 0, 0) };

    /// Whether this is [`Frame::EMPTY`].
    pub(crate) fn is_empty_slot(&self) -> bool {
        self.shape.size() == 0
    }

    /// Length of the packet bytes in this frame.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(self.shape.len())
    }

    /// Whether the frame holds no byte.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.shape.len() == 0
    }

    /// Bytes free before the packet: what headers can be pushed into.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        usize::from(self.shape.headroom())
    }

    /// Bytes free after the packet.
    #[inline(always)]
    pub fn tailroom(&self) -> usize {
        usize::from(self.shape.size() - self.shape.headroom() - self.shape.len())
    }

    /// The packet's bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `headroom + len <= size` holds always, the chunk is mapped while tokens live, and this
        // token is the only one: nobody writes while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), usize::from(self.shape.len())) }
    }

    /// The packet's bytes, to be changed.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the exclusive borrow of the only token makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), usize::from(self.shape.len())) }
    }

    /// The `N` bytes before the packet's, to be read and changed; they hold what was there. None where the headroom is
    /// smaller.
    #[inline(always)]
    pub(crate) fn before_mut<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        if N > usize::from(self.shape.headroom()) {
            return None;
        }
        // SAFETY: `N <= headroom`, so the bytes are in the chunk, which is initialised, and mapped while tokens live; the
        // exclusive borrow of the only token makes this the only access. An array of bytes has no alignment.
        Some(unsafe { self.data.sub(N).cast::<[u8; N]>().as_mut() })
    }

    /// Takes `count` bytes of the headroom to the front of the packet; they hold what was there.
    /// Returns false, and changes nothing, where the headroom is too small.
    #[inline(always)]
    pub fn push_front(&mut self, count: usize) -> bool {
        if count > usize::from(self.shape.headroom()) {
            return false;
        }
        let count_16 = count as u16;
        self.reshape(self.shape.len() + count_16, self.shape.headroom() - count_16);
        // SAFETY: `count <= headroom`, so the pointer stays in the chunk.
        self.data = unsafe { self.data.sub(count) };
        true
    }

    /// Gives the packet's first `count` bytes to the headroom. Returns false, and changes nothing,
    /// where the packet is shorter.
    #[inline(always)]
    pub fn pull_front(&mut self, count: usize) -> bool {
        if count > usize::from(self.shape.len()) {
            return false;
        }
        let count_16 = count as u16;
        self.reshape(self.shape.len() - count_16, self.shape.headroom() + count_16);
        // SAFETY: `count <= len`, so the pointer stays in the chunk (one past its end at most).
        self.data = unsafe { self.data.add(count) };
        true
    }

    /// Keeps the packet's bytes of `keep` and puts `front` bytes before them, which hold what was there: all that
    /// putting a packet into another header takes, at once. Returns false, and changes nothing, where the packet is
    /// shorter or there is no room.
    #[inline(always)]
    pub fn reframe(&mut self, keep: Range<usize>, front: usize) -> bool {
        let room = usize::from(self.shape.headroom()) + keep.start;
        if keep.start > keep.end || keep.end > usize::from(self.shape.len()) || front > room {
            return false;
        }
        self.reshape((front + keep.len()) as u16, (room - front) as u16);
        // SAFETY: `front <= headroom + start`, so the pointer stays in the chunk.
        self.data = unsafe { self.data.offset(keep.start.cast_signed() - front.cast_signed()) };
        true
    }

    /// Sets the packet's length, from its start; bytes taken from the tailroom hold what was there.
    /// Returns false, and changes nothing, where the frame is too small.
    #[inline(always)]
    pub fn set_len(&mut self, len: usize) -> bool {
        if len > usize::from(self.shape.size() - self.shape.headroom()) {
            return false;
        }
        self.reshape(len as u16, self.shape.headroom());
        true
    }

    #[inline(always)]
    fn reshape(&mut self, len: u16, headroom: u16) {
        self.shape = Shape::new(len, headroom, self.shape.size());
    }

    /// Asks for the packet's first cache line.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch is a hint: it cannot fault and changes no memory.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.data.as_ptr().cast()) };
        }
    }

    /// Where the packet's first byte lies.
    #[inline(always)]
    pub(super) fn data(&self) -> NonNull<u8> {
        self.data
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("len", &self.len())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .finish()
    }
}
