//! The pcap port: packets from a capture file, and to one.

mod file;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Port, Queue, Received, Sent};
use crate::batch::{BATCH, Batch, Meta, Slots};
use crate::error::{Error, Result};
use crate::mem::Pool;
use crate::time::Time;
use crate::worker::Memory;

pub use file::{CaptureError, CaptureFormat, CaptureReader, CaptureWriter, Captured, Contents};

/// A port that receives the packets of a capture file and writes what is sent to another, pcap or pcapng.
///
/// Time is the capture's: a batch has the timestamp of its first packet, timers run by it, and each packet has
/// its own ([`Packet::timestamp`](crate::Packet::timestamp)). With several such ports in one runtime, packets
/// come in the order of their timestamps. What a capture has cut off a packet's end (its snap length) is missing.
///
/// Made for [`Inline::run_to_end`](crate::Inline::run_to_end):
///
/// ```no_run
/// use afx::port::PcapPort;
/// # struct Mirror;
/// # impl afx::Stage for Mirror { fn process(&mut self, _: &mut afx::Batch) {} }
///
/// let port = PcapPort::new("capture").read("in.pcap").write("out.pcapng");
/// let mut worker = afx::Runtime::builder().port(port).pipeline(|_| Mirror).inline()?;
/// worker.run_to_end();
/// println!("{:?}", worker.stats().drops());
/// # Ok::<(), afx::Error>(())
/// ```
pub struct PcapPort {
    name: String,
    input: Option<PathBuf>,
    output: Option<PathBuf>,
    one_a_turn: bool,
    /// Opened by `prepare`, taken by `open`.
    files: Mutex<Option<Files>>,
}

#[derive(Default)]
struct Files {
    input: Option<CaptureReader>,
    output: Option<CaptureWriter>,
}

impl PcapPort {
    /// A port that receives nothing, and sends to nowhere, unless told.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), input: None, output: None, one_a_turn: false, files: Mutex::default() }
    }

    /// Receives the packets of this file. It is read once through when the runtime starts, so that one that is
    /// damaged or cut off is an error then and there.
    pub fn read(mut self, path: impl AsRef<Path>) -> Self {
        self.input = Some(path.as_ref().into());
        self
    }

    /// Writes what is sent to this file: pcapng where it is called so, else pcap, in nanoseconds. Complete once
    /// the worker is gone.
    pub fn write(mut self, path: impl AsRef<Path>) -> Self {
        self.output = Some(path.as_ref().into());
        self
    }

    /// Receives at most one packet a turn, and none in the turn before each, which has the packet's time: stages' timers
    /// that are due by then come first. What stages do does not depend on how packets fall into batches, then, and who
    /// calls [`Inline::turn`](crate::Inline::turn) can do something between two packets.
    pub fn one_a_turn(mut self) -> Self {
        self.one_a_turn = true;
        self
    }

    fn error(&self, doing: &str, path: &Path, source: CaptureError) -> Error {
        Error::port(&self.name, format!("{doing} {}", path.display()), source)
    }
}

impl Port for PcapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, _frame_size: usize) -> Result<Vec<u32>> {
        let mut files = Files::default();
        if let Some(path) = &self.input {
            let opened = CaptureReader::check(path).and_then(|_| CaptureReader::open(path));
            files.input = Some(opened.map_err(|error| self.error("reading", path, error))?);
        }
        if let Some(path) = &self.output {
            let created = File::create(path).map_err(CaptureError::from);
            let writer = created.and_then(|file| CaptureWriter::new(file, CaptureFormat::of(path)));
            files.output = Some(writer.map_err(|error| self.error("writing", path, error))?);
        }
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Some(files);
        Ok(vec![0])
    }

    fn open(&self, _queue: u32, memory: &Memory) -> Result<Box<dyn Queue>> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Files { input, output }) = files else {
            return Err(Error::config(format!("pcap port {} is open already", self.name)));
        };
        let room = memory.room();
        let mut queue = PcapQueue {
            name: self.name.clone(),
            input,
            output,
            next: None,
            clock: Time::ZERO,
            one_a_turn: self.one_a_turn,
            announced: false,
            room,
            whole: Vec::new(),
        };
        queue.advance();
        Ok(Box::new(queue))
    }
}

struct PcapQueue {
    name: String,
    input: Option<CaptureReader>,
    output: Option<CaptureWriter>,
    /// The packet that comes next.
    next: Option<Captured>,
    clock: Time,
    one_a_turn: bool,
    /// With `one_a_turn`: the turn before the next packet is over.
    announced: bool,
    /// Bytes that a frame takes.
    room: usize,
    /// A packet of several segments, put together to be written.
    whole: Vec<u8>,
}

/// Packets of one batch are at most so far apart: a timer is never later than that.
const SPAN: Duration = Duration::from_millis(1);

impl PcapQueue {
    /// Reads the next packet.
    fn advance(&mut self) {
        let next = self.input.as_mut().and_then(CaptureReader::next_packet);
        self.next = match next.transpose() {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(port = self.name, %error, "the capture has changed since the start: it ends here");
                None
            }
        };
        if let Some(packet) = &self.next {
            // Captures of several cards are not always in order; time goes on all the same.
            self.clock = self.clock.max(packet.timestamp);
        }
    }

    /// Copies a packet into frames. False where there are too few.
    fn deliver(&self, batch: &mut Batch, timestamp: Time, bytes: &[u8]) -> bool {
        let (first, rest) = bytes.split_at(bytes.len().min(self.room));
        let Some(slot) = batch.push_copy(first, rest) else { return false };
        let meta = Meta { origin: batch.origin(slot), timestamp: Some(timestamp), ..Meta::default() };
        batch.set_meta(slot, Some(meta), None);
        true
    }
}

impl Queue for PcapQueue {
    fn receive(&mut self, batch: &mut Batch, max: usize) -> Received {
        let mut received = Received::default();
        let (until, max) = match self.one_a_turn {
            true if self.clock > batch.now() => return received,
            true if !std::mem::replace(&mut self.announced, true) => return received,
            true => (batch.now(), 1),
            false => (batch.now() + SPAN, max),
        };
        while received.packets < max
            && let Some(packet) = self.next.take_if(|_| self.clock <= until)
        {
            if self.deliver(batch, packet.timestamp, &packet.bytes) {
                received.packets += 1;
                received.bytes += packet.bytes.len() as u64;
            } else {
                received.no_frame += 1;
            }
            self.announced = false;
            self.advance();
        }
        received
    }

    fn room_to_send(&mut self) -> u32 {
        BATCH as u32
    }

    fn transmit(&mut self, batch: &mut Batch, mask: u64) -> Sent {
        let mut sent = Sent::default();
        let now = batch.now();
        for slot in Slots::new(mask) {
            self.whole.clear();
            batch.segments(slot).for_each(|segment| self.whole.extend_from_slice(segment));
            if let Some(output) = &mut self.output
                && let Err(error) = output.write(now, &self.whole)
            {
                tracing::error!(port = self.name, %error, "a packet could not be written");
                sent.refused |= slot.bit();
                continue;
            }
            sent.mask |= slot.bit();
            sent.bytes += self.whole.len() as u64;
            let head = batch.take_head(slot);
            batch.pool().give(head);
            while let Some(segment) = batch.take_segment(slot) {
                batch.pool().give(segment);
            }
        }
        sent
    }

    fn service(&mut self, _pool: &mut Pool) -> u64 {
        0
    }

    fn clock(&self) -> Option<Time> {
        self.input.as_ref().map(|_| self.clock)
    }

    fn finished(&self) -> bool {
        self.next.is_none()
    }
}

impl Drop for PcapQueue {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.output.take().map(CaptureWriter::finish) {
            tracing::error!(port = self.name, %error, "the end of what was sent could not be written");
        }
    }
}

#[cfg(test)]
mod tests;
