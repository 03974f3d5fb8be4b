//! How the control side, and other workers, reach a worker: commands, and waking it from sleep.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::stage::Snapshot;
use crate::time::Time;

/// What the control side asks of a worker.
pub(super) enum Command {
    /// Take this configuration.
    Configure(Snapshot),
    /// Finish what is queued, at the latest by then, and stop, as all workers do.
    Stop(Time),
    /// As above, while the others go on.
    StopAlone(Time),
}

/// Commands for one worker, which looks at a flag every turn.
pub(super) struct Mailbox {
    pending: AtomicBool,
    commands: ArrayQueue<Command>,
    pub(super) waker: std::sync::Arc<Waker>,
}

impl Mailbox {
    pub(super) fn new(waker: std::sync::Arc<Waker>) -> Self {
        Self { pending: AtomicBool::new(false), commands: ArrayQueue::new(16), waker }
    }

    /// Gives a command back where the worker has not taken the last sixteen yet.
    pub(super) fn post(&self, command: Command) -> Result<(), Command> {
        self.commands.push(command)?;
        self.pending.store(true, Ordering::Release);
        self.waker.wake();
        Ok(())
    }

    pub(super) fn waiting(&self) -> usize {
        self.commands.len()
    }

    /// Takes out, and frees, what a worker that has ended did not take.
    pub(super) fn clear(&self) {
        while self.commands.pop().is_some() {}
    }

    /// The next command, if there is one.
    #[inline(always)]
    pub(super) fn take(&self) -> Option<Command> {
        if !self.pending.load(Ordering::Relaxed) {
            return None;
        }
        self.take_pending()
    }

    #[cold]
    fn take_pending(&self) -> Option<Command> {
        // Cleared first: what is pushed after the pop sets it again.
        self.pending.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        let command = self.commands.pop();
        if command.is_some() {
            self.pending.store(true, Ordering::Release);
        }
        command
    }
}

/// Wakes a worker that sleeps in poll(2).
pub(super) struct Waker {
    sleeping: AtomicBool,
    event: EventFd,
}

impl Waker {
    pub(super) fn new() -> nix::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { sleeping: AtomicBool::new(false), event })
    }

    /// Wakes the worker if it sleeps. To be called after that was written which it shall see.
    pub(super) fn wake(&self) {
        // Pairs with the fence in `going_to_sleep`: either we see that it sleeps, or it sees what we wrote.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            // Fails only when the counter is full: then it is readable anyway.
            let _ = self.event.write(1);
        }
    }

    /// From now on `wake` writes; what came before must be looked for once more before sleeping.
    pub(super) fn going_to_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(super) fn woken(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
        // Would block when nobody has written: which is fine.
        let _ = self.event.read();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
