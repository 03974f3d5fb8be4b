//! The loop of a worker's thread, around its turns: sleeping, commands, publishing, the end.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Idle;
use super::mailbox::{Command, Mailbox};
use super::turn::Turn;
use crate::stage::Pipeline;
use crate::stats::Board;
use crate::time::Time;
use crate::xsk::polls_have_ended;

/// How often counters are published, and the kernel asked for its own.
const PUBLISH_EVERY: Duration = Duration::from_millis(10);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long a worker sleeps at most: its stages' timers want to run.
const SLEEP_MS: u8 = 10;
/// As above, where a queue has nothing to sleep on, or a stage holds packets.
const NAP_MS: u8 = 1;

/// How long a packet may be on its way from the redirect program to the socket, where the kernel does not wait for that: the
/// rest of a poll of the card, on another core that somebody may have taken meanwhile.
const IN_THE_KERNEL: Duration = Duration::from_millis(5);

/// How far the workers of a runtime are on their way to the end: one that has nothing left waits for those
/// that may still hand something over to it.
pub(super) struct Others {
    /// Worker by worker; each only grows.
    states: Box<[AtomicU8]>,
}

const WORKING: u8 = 0;
/// It has nothing left.
const QUIET: u8 = 1;
/// Its thread is about to end: its queues are closed, its pipeline and its memory are gone.
const ENDED: u8 = 2;

impl Others {
    pub(super) fn new(workers: usize) -> Self {
        Self { states: (0..workers).map(|_| AtomicU8::new(WORKING)).collect() }
    }

    fn quiet(&self, worker: usize) {
        self.states[worker].store(QUIET, Ordering::Release);
    }

    /// A worker's thread is about to end.
    pub(super) fn ended(&self, worker: usize) {
        self.states[worker].store(ENDED, Ordering::Release);
    }

    pub(super) fn has_ended(&self, worker: usize) -> bool {
        self.states[worker].load(Ordering::Acquire) == ENDED
    }

    pub(super) fn all_ended(&self) -> bool {
        (0..self.states.len()).all(|worker| self.has_ended(worker))
    }

    /// Whether no worker is left that works: one that failed, or was stopped alone, has ended without having been quiet.
    fn all_quiet(&self) -> bool {
        self.states.iter().all(|state| state.load(Ordering::Acquire) >= QUIET)
    }
}

/// A worker's thread.
pub(super) struct Run<P> {
    pub(super) worker: usize,
    pub(super) turn: Turn<P>,
    pub(super) board: Arc<Board>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) others: Arc<Others>,
    pub(super) idle: Idle,
}

impl<P: Pipeline> Run<P> {
    /// Runs until told to stop.
    pub(super) fn run(&mut self) {
        let mut empty = 0u32;
        let mut next_publish = Time::ZERO;
        let mut next_ask = Time::ZERO;
        loop {
            if self.turn.turn() > 0 {
                empty = 0;
            } else {
                empty = empty.saturating_add(1);
            }
            let now = self.turn.began();
            if now >= next_publish {
                if now >= next_ask {
                    next_ask = now + ASK_EVERY;
                    self.turn.ask_kernel();
                }
                next_publish = now + PUBLISH_EVERY;
                self.publish();
            }
            match self.mailbox.take() {
                None => {}
                Some(Command::Configure(snapshot)) => {
                    self.turn.configure(&snapshot);
                    self.publish();
                }
                Some(Command::Stop(deadline)) => return self.finish(deadline),
                Some(Command::StopAlone(deadline)) => return self.finish_alone(deadline),
            }
            if let Idle::Adaptive { turns } = self.idle
                && empty > turns
            {
                self.sleep();
            }
        }
    }

    /// Finishes what is queued, and publishes for the last time.
    fn finish(&mut self, deadline: Time) {
        self.drain(deadline);
        self.others.quiet(self.worker);
        while !self.others.all_quiet() && Time::monotonic() < deadline {
            self.turn.drain();
        }
        // What another worker handed over just before it was quiet.
        self.drain(deadline);
        self.publish_last();
    }

    /// As [`finish`](Self::finish), while the other workers go on: nothing is waited for but what they are just handing
    /// over.
    fn finish_alone(&mut self, deadline: Time) {
        self.turn.shut_inbox();
        // What the kernel was just handing over when the queue was closed.
        if !polls_have_ended() {
            let settled = (Time::monotonic() + IN_THE_KERNEL).min(deadline);
            while Time::monotonic() < settled {
                self.turn.drain();
            }
        }
        while !self.turn.inbox_is_clear() && Time::monotonic() < deadline {
            self.turn.drain();
        }
        self.drain(deadline);
        self.publish_last();
    }

    fn publish_last(&mut self) {
        // What is left where the time was over too early. Others count for themselves what they would hand over from now on;
        // one that is just handing over copies bytes, and is done in no time.
        self.turn.shut_inbox();
        while !self.turn.inbox_is_clear() {
            std::thread::yield_now();
        }
        self.turn.give_up_inbox();
        self.turn.ask_kernel();
        self.publish();
    }

    fn drain(&mut self, deadline: Time) {
        // Packets that the kernel was just handling when the port was detached come a little later.
        let mut quiet = 0;
        while quiet < 3 && Time::monotonic() < deadline {
            quiet = if self.turn.drain() { quiet + 1 } else { 0 };
        }
    }

    pub(super) fn publish(&mut self) {
        self.turn.take_stock();
        self.board.write(self.turn.counters.words(&self.turn.batch.counters));
    }

    /// Sleeps until a packet, a command or the time for timers comes.
    #[cold]
    fn sleep(&mut self) {
        self.publish();
        // Held packets wait for a timer of the stage that holds them.
        let holds = self.turn.holds();
        let waker = &self.mailbox.waker;
        waker.going_to_sleep();
        if self.mailbox.waiting() == 0 && !self.turn.has_inbox() {
            let mut fds = [const { None }; 64];
            fds[0] = Some(waker.fd());
            let lanes = self.turn.lanes.iter().map(|lane| lane.io.fd());
            let blind = lanes.clone().any(|fd| fd.is_none());
            for (place, fd) in fds[1..].iter_mut().zip(lanes.flatten()) {
                *place = Some(fd);
            }
            poll_for(&fds, if blind || holds { NAP_MS } else { SLEEP_MS });
            self.turn.slept();
            self.turn.counters.sleeps += 1;
        }
        waker.woken();
    }
}

fn poll_for(fds: &[Option<BorrowedFd<'_>>; 64], milliseconds: u8) {
    let mut polled: [PollFd<'_>; 64] = std::array::from_fn(|index| match fds[index] {
        Some(fd) => PollFd::new(fd, PollFlags::POLLIN),
        None => PollFd::new(fds[0].expect("the waker's"), PollFlags::empty()),
    });
    let count = fds.iter().flatten().count();
    // A signal ends it early: as good a reason to look as any.
    let _ = poll(&mut polled[..count], PollTimeout::from(milliseconds));
}
