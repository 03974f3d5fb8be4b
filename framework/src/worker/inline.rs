//! A worker on the caller's own thread: for tests, benches, and loops of one's own.

use super::making::Opened;
use super::turn::Turn;
use crate::error::Result;
use crate::stage::{Pipeline, Snapshot};
use crate::stats::{Board, Layout, Stats};
use crate::{batch::Reasons, port::Port};
use std::any::Any;
use std::sync::Arc;

/// A runtime of one worker that runs when it is told to: made by
/// [`Pipelined::inline`](super::Pipelined::inline). It does not sleep, pin or spawn anything.
pub struct Inline<P> {
    turn: Turn<P>,
    layout: Layout,
    board: Board,
    reasons: Reasons,
    ports: Arc<[Box<dyn Port>]>,
}

impl<P: Pipeline> Inline<P> {
    pub(super) fn new(opened: Opened<P>, reasons: Reasons, ports: Arc<[Box<dyn Port>]>) -> Self {
        let board = Board::new(opened.layout.words());
        Self { turn: opened.turn, layout: opened.layout, board, reasons, ports }
    }

    /// One turn of the loop: every queue is looked at once. Returns how many packets came.
    #[inline(always)]
    pub fn turn(&mut self) -> usize {
        self.turn.turn()
    }

    /// Whether all ports have come to their end: no packet will ever come.
    pub fn finished(&self) -> bool {
        self.turn.finished()
    }

    /// Turns until all ports have come to their end and nothing is left to do: for captures.
    pub fn run_to_end(&mut self) {
        while !self.turn.finished() {
            self.turn.turn();
        }
        self.drain();
    }

    /// Turns until nothing is left: packets that were received, held, or are still being sent. A peer that
    /// takes nothing off a port makes this return after a thousand turns.
    pub fn drain(&mut self) {
        for _ in 0..1000 {
            if self.turn.drain() {
                return;
            }
        }
    }

    /// Gives the stages a new configuration.
    pub fn configure<T: Any + Send + Sync>(&mut self, snapshot: Arc<T>) {
        self.turn.configure(&Snapshot::new(snapshot));
    }

    /// What was counted so far.
    pub fn stats(&mut self) -> Stats {
        self.turn.take_stock();
        self.turn.ask_kernel();
        self.board.write(self.turn.counters.words(&self.turn.batch.counters));
        Stats { workers: vec![self.layout.read(self.board.read())], reasons: self.reasons.list() }
    }

    /// The pipeline, to look at its stages.
    pub fn pipeline(&mut self) -> &mut P {
        &mut self.turn.pipeline
    }

    /// Lets traffic in: the same as a runtime's start does.
    ///
    /// # Errors
    /// Where a port cannot be attached; those that were are detached again.
    pub fn attach(&self) -> Result<()> {
        for port in self.ports.iter() {
            if let Err(error) = port.attach() {
                self.ports.iter().for_each(|port| port.detach());
                return Err(error);
            }
        }
        Ok(())
    }
}

impl<P> Drop for Inline<P> {
    fn drop(&mut self) {
        self.ports.iter().for_each(|port| port.detach());
    }
}
