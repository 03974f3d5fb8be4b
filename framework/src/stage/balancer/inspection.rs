//! Questions to running workers, answered between two batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::connections::{Connection, Connections, Tick};
use super::stage::Balancer;
use crate::Time;
use crate::packet::FlowKey;
use crate::worker::WorkerId;

/// A question to the balancers of all workers: published as a configuration is
/// ([`Running::publish`](crate::Running::publish)), and answered by each of them into a queue that neither side waits
/// for.
///
/// Of questions for connections a worker answers the newest alone: one that is still being answered when another comes
/// is given up.
///
/// ```no_run
/// use std::sync::Arc;
/// use afx::stage::balancer::{Answer, Inspection};
/// # fn example(running: &afx::Running) -> afx::Result<()> {
/// let question = Arc::new(Inspection::connections(1000));
/// running.publish(question.clone())?;
/// let workers = running.stats().workers.len();
/// let mut done = 0;
/// while done < workers && !running.ended() {
///     match question.answer() {
///         Some(Answer::Connection { worker, connection }) => println!("{}: {connection:?}", worker.index()),
///         Some(Answer::Done { .. }) => done += 1,
///         _ => std::thread::sleep(std::time::Duration::from_millis(1)),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Inspection {
    pub(super) question: Question,
    answers: ArrayQueue<Answer>,
    cancelled: AtomicBool,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question {
    Flow(FlowKey),
    Connections { limit: usize },
}

/// What a worker says to an [`Inspection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Whether the worker's connection table has the flow; the one answer of a worker that was asked for a flow.
    Flow {
        /// The worker.
        worker: WorkerId,
        /// The flow's entry.
        known: Option<Connection>,
    },
    /// One of the worker's connections.
    Connection {
        /// The worker.
        worker: WorkerId,
        /// The connection. Which flow it is nobody can say: tables know flows by hashes alone.
        connection: Connection,
    },
    /// There are no more connections to come from this worker.
    Done {
        /// The worker.
        worker: WorkerId,
        /// Whether it has more connections than were asked for.
        more: bool,
    },
}

impl Inspection {
    /// Answers that wait to be read; a worker with more to say waits.
    const WAITING: usize = 4096;

    /// Asks every worker whether its connection table has this flow. All have answered when
    /// [`configured`](crate::Running::configured) says that they have taken the question.
    #[must_use]
    pub fn flow(flow: FlowKey) -> Self {
        Self {
            question: Question::Flow(flow),
            answers: ArrayQueue::new(WorkerId::MAX),
            cancelled: AtomicBool::new(false),
        }
    }

    /// Asks every worker for its connections, `limit` of them at most, in no order. It looks at a part of its table
    /// at each of its timer's ticks, so that packets do not wait: a connection that moves within the table meanwhile
    /// may be shown twice or not at all.
    #[must_use]
    pub fn connections(limit: usize) -> Self {
        Self {
            question: Question::Connections { limit },
            answers: ArrayQueue::new(Self::WAITING),
            cancelled: AtomicBool::new(false),
        }
    }

    /// The next answer that is there, whichever worker's.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.pop()
    }

    /// Nobody reads answers any more: workers stop giving them. Whoever asked keeps the question until he alone has it
    /// (`Arc::strong_count`), so that it is not a worker that frees it.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Gives an answer. False where there is no room for it now.
    pub(super) fn say(&self, answer: Answer) -> bool {
        self.answers.push(answer).is_ok()
    }
}

/// A worker on its way through its connection table, some of it at a time.
pub(super) struct Walk {
    inspection: Arc<Inspection>,
    position: usize,
    /// Connections that may still be shown.
    left: usize,
    last: Time,
}

impl Walk {
    /// Positions looked at for each millisecond since the last time: 64 KiB of memory, a few microseconds.
    const POSITIONS: usize = 4096;
    /// Milliseconds that are made up for at most: a worker that sleeps has its timer every ten.
    const MOST: u128 = 10;

    /// Goes on for a while. True when it has come to the end and said so.
    fn go_on(&mut self, connections: &Connections, worker: WorkerId, now: Time) -> bool {
        if self.inspection.cancelled.load(Ordering::Relaxed) {
            return true;
        }
        let elapsed = Duration::as_millis(&(now - self.last)).clamp(1, Self::MOST);
        self.last = now;
        let end = (self.position + Self::POSITIONS * elapsed as usize).min(connections.positions());
        for (next, connection) in connections.iter_within(self.position..end, Tick::at(now)) {
            if self.left == 0 {
                return self.inspection.say(Answer::Done { worker, more: true });
            }
            if !self.inspection.say(Answer::Connection { worker, connection }) {
                return false;
            }
            self.position = next;
            self.left -= 1;
        }
        self.position = end;
        end == connections.positions() && self.inspection.say(Answer::Done { worker, more: false })
    }
}

impl Balancer {
    /// Takes a question: answers it at once, or begins to.
    pub(super) fn inspect(&mut self, inspection: Arc<Inspection>) {
        match inspection.question {
            Question::Flow(flow) => {
                let known = self.connections.peek(self.hash_of(&flow), Tick::at(self.now));
                inspection.say(Answer::Flow { worker: self.worker, known });
            }
            Question::Connections { limit } => {
                self.walk = Some(Walk { inspection, position: 0, left: limit, last: self.now });
            }
        }
    }

    /// Goes on with the look at all connections.
    #[cold]
    pub(super) fn go_on_walking(&mut self, now: Time) {
        if let Some(walk) = &mut self.walk
            && walk.go_on(&self.connections, self.worker, now)
        {
            self.walk = None;
        }
    }
}
