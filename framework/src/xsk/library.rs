//! The same rings through xsk-rs's own queue calls: slower, for kernels that do
//! not let us map them ourselves.

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use super::Descriptor;
use super::ring::Drain;
use super::sync::Slot;

/// Entries that are taken off a ring at once.
const TAKE: usize = 64;

/// A ring that xsk-rs reads for us.
pub(crate) struct LibraryConsumer<Q: Take> {
    queue: Q,
    taken: Vec<Slot<Q::Entry>>,
}

/// What [`LibraryConsumer`] needs of a queue of xsk-rs.
pub(crate) trait Take {
    type Entry: Copy;

    fn available(&mut self) -> u32;
    fn take(&mut self, into: &mut [FrameDesc]) -> usize;
    fn entry(taken: &FrameDesc) -> Self::Entry;
}

impl<Q: Take> LibraryConsumer<Q> {
    pub(super) fn new(queue: Q) -> Self {
        Self { queue, taken: Vec::with_capacity(TAKE) }
    }

    pub(crate) fn available(&mut self) -> u32 {
        self.queue.available()
    }

    /// The next entries, oldest first: at most `max`, and 64. The ring has them no longer.
    // A call of its own, so that the native way beside it stays small.
    #[inline(never)]
    pub(super) fn drain(&mut self, max: u32) -> Drain<'_, Q::Entry> {
        let mut taken = [FrameDesc::default(); TAKE];
        let got = self.queue.take(&mut taken[..TAKE.min(max as usize)]);
        self.taken.clear();
        self.taken.extend(taken[..got].iter().map(|taken| Slot::new(Q::entry(taken))));
        Drain::released(&self.taken)
    }
}

impl Take for RxQueue {
    type Entry = Descriptor;

    fn available(&mut self) -> u32 {
        self.nb_avail_exact()
    }

    fn take(&mut self, into: &mut [FrameDesc]) -> usize {
        // SAFETY: asks that the descriptors are of this socket's UMEM; they are only overwritten here.
        unsafe { self.consume(into) }
    }

    fn entry(taken: &FrameDesc) -> Descriptor {
        Descriptor { addr: taken.addr() as u64, len: taken.lengths().data() as u32, options: taken.options() }
    }
}

impl Take for CompQueue {
    type Entry = u64;

    fn available(&mut self) -> u32 {
        self.nb_avail_exact()
    }

    fn take(&mut self, into: &mut [FrameDesc]) -> usize {
        // SAFETY: as for `RxQueue`.
        unsafe { self.consume(into) }
    }

    fn entry(taken: &FrameDesc) -> u64 {
        taken.addr() as u64
    }
}

/// A ring that xsk-rs writes for us. Entries wait here until submitted.
pub(crate) struct LibraryProducer<Q: Give> {
    queue: Q,
    mint: Mint,
    /// What is written next goes here first: as many as the ring has.
    room: Box<[Slot<Q::Entry>]>,
    written: Vec<FrameDesc>,
}

/// What [`LibraryProducer`] needs of a queue of xsk-rs.
pub(crate) trait Give {
    type Entry: Copy + Default;

    fn free(&mut self) -> u32;
    fn give(&mut self, entries: &[FrameDesc]) -> usize;
    fn asks_for_wakeup(&self) -> bool;
    fn descriptor(entry: Self::Entry) -> Descriptor;
}

impl<Q: Give> LibraryProducer<Q> {
    pub(super) fn new(queue: Q, size: u32, mint: Mint) -> Self {
        let room = (0..size).map(|_| Slot::new(Q::Entry::default())).collect();
        Self { queue, mint, room, written: Vec::with_capacity(size as usize) }
    }

    pub(crate) fn size(&self) -> u32 {
        self.room.len() as u32
    }

    pub(crate) fn free(&mut self) -> u32 {
        self.queue.free() - self.written.len() as u32
    }

    /// Slots for up to `most` entries, as many as the ring has room for. Nobody else uses them; those
    /// written, from the first on, are counted by [`wrote`](Self::wrote).
    #[inline(never)]
    pub(super) fn room(&mut self, most: u32) -> [&[Slot<Q::Entry>]; 2] {
        let free = self.free().min(most) as usize;
        [&self.room[..free], &[]]
    }

    #[inline(never)]
    pub(super) fn wrote(&mut self, count: u32) {
        for slot in &self.room[..count as usize] {
            // SAFETY: the slots are ours alone, and `&mut self` is the only way to them.
            let entry = unsafe { slot.read() };
            self.written.push(self.mint.frame(Q::descriptor(entry)));
        }
    }

    pub(crate) fn submit(&mut self) -> u32 {
        let count = self.written.len();
        let given = self.queue.give(&self.written);
        assert_eq!(given, count, "there was room when they were written, and nobody else writes");
        self.written.clear();
        count as u32
    }

    pub(crate) fn pending(&mut self) -> u32 {
        self.size() - self.free()
    }

    pub(crate) fn needs_wakeup(&self) -> bool {
        self.queue.asks_for_wakeup()
    }
}

impl Give for TxQueue {
    type Entry = Descriptor;

    fn free(&mut self) -> u32 {
        self.nb_free_exact()
    }

    fn give(&mut self, entries: &[FrameDesc]) -> usize {
        // SAFETY: asks that the frames are of this UMEM and that nobody else uses them until they are
        // completed. The layer above holds a frame's only token when it writes a descriptor of it. The
        // kernel itself refuses an address outside of the UMEM.
        unsafe { self.produce(entries) }
    }

    fn asks_for_wakeup(&self) -> bool {
        self.needs_wakeup()
    }

    fn descriptor(entry: Descriptor) -> Descriptor {
        entry
    }
}

impl Give for FillQueue {
    type Entry = u64;

    fn free(&mut self) -> u32 {
        self.nb_free_exact()
    }

    fn give(&mut self, entries: &[FrameDesc]) -> usize {
        // SAFETY: as for `TxQueue`.
        unsafe { self.produce(entries) }
    }

    fn asks_for_wakeup(&self) -> bool {
        self.needs_wakeup()
    }

    fn descriptor(addr: u64) -> Descriptor {
        Descriptor { addr, len: 0, options: 0 }
    }
}

/// Makes xsk-rs's frame descriptors of any address and length.
///
/// xsk-rs hands out one per frame and lets nobody set its address; but a packet
/// whose head has grown or shrunk begins elsewhere in its frame. The alternative
/// would be to move the packet's bytes before each transmission. So we find out
/// where in the struct the address and the length lie, and write them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mint {
    blank: FrameDesc,
    addr: usize,
    len: usize,
}

impl Mint {
    /// Needs two different descriptors of one UMEM. `None` if xsk-rs's struct is
    /// no longer what it was in 0.11.
    pub(super) fn new([blank, other]: [FrameDesc; 2]) -> Option<Self> {
        let unlike = other.addr();
        let addr = Self::find(blank, unlike, FrameDesc::addr)?;
        let len = Self::find(blank, unlike, |frame| frame.lengths().data())?;
        let mint = Self { blank, addr, len };
        let sample = Descriptor { addr: 4321, len: 1234, options: 1 };
        let made = mint.frame(sample);
        (<RxQueue as Take>::entry(&made) == sample && made.lengths().headroom() == 0).then_some(mint)
    }

    fn frame(self, descriptor: Descriptor) -> FrameDesc {
        let mut frame = self.blank;
        set_word(&mut frame, self.addr, descriptor.addr as usize);
        set_word(&mut frame, self.len, descriptor.len as usize);
        frame.set_options(descriptor.options);
        frame
    }

    /// The offset of the word that `read` shows.
    fn find(blank: FrameDesc, value: usize, read: impl Fn(&FrameDesc) -> usize) -> Option<usize> {
        (0..size_of::<FrameDesc>()).step_by(size_of::<usize>()).find(|&offset| {
            let mut probe = blank;
            set_word(&mut probe, offset, value);
            read(&blank) != value && read(&probe) == value
        })
    }
}

fn set_word(frame: &mut FrameDesc, offset: usize, value: usize) {
    assert!(offset + size_of::<usize>() <= size_of::<FrameDesc>());
    // SAFETY: inside of the struct, of which `frame` is the only borrow. In xsk-rs 0.11, which the
    // manifest holds us to, its fields are integers: any bytes make valid ones.
    unsafe { (&raw mut *frame).cast::<u8>().add(offset).cast::<usize>().write_unaligned(value) }
}

#[cfg(test)]
mod tests {
    use super::super::{Umem, UmemConfig};
    use super::*;

    #[test]
    fn minted_frames_have_the_address_and_length_asked_for() {
        let config = UmemConfig { frames: 4, huge_pages: false, ..UmemConfig::default() };
        let umem = Umem::new(config).expect("a small UMEM");
        let mint = Mint::new(umem.samples).expect("the struct of xsk-rs 0.11");
        let wanted = Descriptor { addr: 2048 * 3 + 211, len: 1514, options: 1 };
        let made = mint.frame(wanted);
        assert_eq!(<RxQueue as Take>::entry(&made), wanted);
        assert_eq!(made.lengths().headroom(), 0);
        assert_eq!(<CompQueue as Take>::entry(&made), wanted.addr);
    }
}
