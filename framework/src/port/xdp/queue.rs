//! One queue of an AF_XDP port.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use afx_redirect::Beat;

use super::super::{Queue, Received, Sent, rings};
use super::health::Health;
use super::metadata::Notes;
use crate::batch::{BATCH, Batch};
use crate::mem::Pool;
use crate::xsk::{Socket, Wake};

/// A socket on one queue. Fields in the order in which they are to go.
pub(super) struct XdpQueue {
    pub(super) beat: Beat,
    pub(super) socket: Socket,
    /// What has come of a packet of several frames.
    pub(super) begun: rings::Begun,
    pub(super) level: u32,
    /// Frames that a packet may have.
    pub(super) segments: u32,
    /// The RX ring was empty when it was last looked at.
    pub(super) drained: bool,
    pub(super) send_only: bool,
    /// Where the redirect program notes what the card knows of packets.
    pub(super) notes: Option<Notes>,
    pub(super) health: Arc<Health>,
}

/// Calls that one service makes at most to have everything sent: 32 packets each on older kernels.
const KICKS: u32 = 4;

impl Queue for XdpQueue {
    fn receive(&mut self, batch: &mut Batch, max: usize) -> Received {
        let received = rings::receive(&mut self.socket.rings, batch, max, &mut self.begun);
        self.drained = received.taken < max;
        if let Some(notes) = self.notes
            && received.packets > 0
        {
            notes.read(batch);
        }
        received
    }

    fn room_to_send(&mut self) -> u32 {
        self.socket.rings.room_to_send(BATCH as u32).min(BATCH as u32)
    }

    fn transmit(&mut self, batch: &mut Batch, mask: u64) -> Sent {
        let wanted = mask.count_ones() + batch.further_segments(mask);
        let mut wakeups = 0;
        if self.socket.rings.room_to_send(wanted) < wanted {
            // The kernel has not kept up: give it one more chance before packets are dropped.
            wakeups = self.kick();
            self.socket.rings.reclaim(batch.pool());
        }
        let sent = rings::transmit(&mut self.socket.rings, batch, mask, self.segments);
        Sent { wakeups, ..sent }
    }

    fn service(&mut self, pool: &mut Pool) -> u64 {
        let mut calls = self.kick();
        rings::service(&mut self.socket.rings, pool, self.level);
        // Where the worker polls the card itself, a call to send has done so too.
        let polled = calls > 0 && self.socket.granted().busy_poll.is_some();
        // Sending alone, the card is polled for what it has sent.
        let awaited = !self.send_only || pool.ledger().transmit.outside() > 0;
        if self.drained
            && awaited
            && !polled
            && matches!(self.socket.wake_rx(), Ok(wake) if wake != Wake::NotNeeded)
        {
            calls += 1;
        }
        calls
    }

    fn beat(&mut self) {
        self.beat.beat();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn kernel_dropped(&self) -> u64 {
        self.socket.statistics().map_or(0, |statistics| statistics.rx_dropped + statistics.rx_ring_full)
    }
}

impl XdpQueue {
    /// Has the kernel send what is on the TX ring; returns the calls that took.
    fn kick(&mut self) -> u64 {
        let mut calls = 0;
        let polled = self.socket.granted().busy_poll.is_some();
        for _ in 0..KICKS {
            let outcome = self.socket.wake_tx();
            match outcome {
                Ok(Wake::NotNeeded) => break,
                Ok(Wake::Down) => self.health.set(Health::DOWN),
                Ok(Wake::Gone) => self.health.set(Health::GONE),
                Ok(_) => self.health.set(Health::WELL),
                Err(_) => self.health.set(Health::FAILING),
            }
            calls += 1;
            if !matches!(outcome, Ok(Wake::Again)) {
                break;
            }
        }
        if polled && self.socket.granted().busy_poll.is_none() {
            self.health.unpolled.store(true, Ordering::Relaxed);
        }
        calls
    }
}
