//! The checker's thread: begins the checks that are due, goes on with those whose descriptors are ready, and
//! gives up those whose time is over.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TryRecvError};
use nix::sys::epoll::EpollFlags;
use nix::sys::eventfd::EventFd;

use super::check::echo::Echo;
use super::check::http::Exchange;
use super::check::program::{Part, Run, Starters, not_started};
use super::check::tcp::Connection;
use super::check::tls::TlsSettings;
use super::error::{Error, Result, reason};
use super::machine::later;
use super::poller::{MOST_EVENTS, Poller};
use super::schedule::{Id, Schedule};
use super::target::{Command, Kind, Target};
use super::{Event, Outcome, Status};

/// So many checks begin before those that run have their turn.
const MOST_BEGUN: usize = 32;
/// After so long, it is looked whether the reader of events has made room.
const UNTOLD: Duration = Duration::from_millis(100);
/// A killed program is given so long to end before its target's next check begins, and looked after so often.
const GRACE: Duration = Duration::from_secs(1);
const GRACE_STEP: Duration = Duration::from_millis(20);

/// What the poller calls things by: checks by four times their number, and so many more.
const WAKE: u64 = 0;
const ECHO_V4: u64 = 1;
const ECHO_V6: u64 = 2;
const FIRST_CHECK: u64 = 1;
const STDOUT: u64 = 1;
const STDERR: u64 = 2;

pub(super) enum Request<K> {
    Set(Vec<Target<K>>, TlsSettings, Sender<Result<()>>),
    States(Sender<Vec<Status<K>>>),
}

pub(super) struct Engine<K> {
    requests: Receiver<Request<K>>,
    events: Sender<Event<K>>,
    wake: Arc<EventFd>,
    poller: Poller,
    schedule: Schedule<K>,
    running: HashMap<u64, Running>,
    deadlines: BTreeSet<(Instant, u64)>,
    last: u64,
    tls: TlsSettings,
    echo_v4: Option<Echo>,
    echo_v6: Option<Echo>,
    starters: Option<Starters>,
    /// Killed programs that have not ended yet.
    dying: HashMap<u64, Dying>,
}

struct Dying {
    /// Whom it was to check.
    target: Id,
    killed: Instant,
    run: Run,
}

/// A check that runs.
struct Running {
    target: Id,
    began: Instant,
    timeout: Duration,
    deadline: Instant,
    doing: Doing,
}

enum Doing {
    Tcp(Connection),
    Http(Box<Exchange>),
    Echo {
        is_v4: bool,
        number: u16,
    },
    /// To be started: its time begins when it is.
    Starting(Command),
    Program(Box<Run>),
}

impl<K: Clone + Ord> Engine<K> {
    pub(super) fn new(
        requests: Receiver<Request<K>>,
        events: Sender<Event<K>>,
        wake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&wake, WAKE, EpollFlags::EPOLLIN)?;
        Ok(Self {
            requests,
            events,
            wake,
            poller,
            schedule: Schedule::new(),
            running: HashMap::new(),
            deadlines: BTreeSet::new(),
            last: FIRST_CHECK,
            tls: TlsSettings::default(),
            echo_v4: None,
            echo_v6: None,
            starters: None,
            dying: HashMap::new(),
        })
    }

    /// Returns when the owner has hung up. What runs is dropped then: connections, programs, threads.
    pub(super) fn run(mut self) {
        let mut asked = Instant::now();
        while self.serve() {
            self.take_started();
            self.expire(asked);
            let more = self.begin_due(Instant::now());
            let told = self.schedule.report(&self.events);
            let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
            let soon = if more { Some(Duration::ZERO) } else { (!told).then_some(UNTOLD) };
            let soon = soon.map(|wait| Instant::now() + wait);
            let asking = Instant::now();
            match self.poller.wait(self.schedule.next().into_iter().chain(deadline).chain(soon).min()) {
                Ok(ready) => {
                    if ready.len() < MOST_EVENTS {
                        asked = asking;
                    }
                    ready.into_iter().for_each(|number| self.go_on(number));
                }
                Err(error) => {
                    tracing::error!(%error, "health checks cannot be waited for");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        // All at once, before each is waited for.
        self.running.values_mut().for_each(|running| running.kill());
    }

    /// Does what the owner asks; false when he has gone.
    fn serve(&mut self) -> bool {
        loop {
            match self.requests.try_recv() {
                // Whoever does not wait for the answer does not want it.
                Ok(Request::Set(targets, tls, answer)) => drop(answer.send(self.set(targets, tls))),
                Ok(Request::States(answer)) => drop(answer.send(self.schedule.states(Instant::now()))),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn set(&mut self, targets: Vec<Target<K>>, tls: TlsSettings) -> Result<()> {
        let is_needed = |is_v4| {
            let mut echoed = targets.iter().filter(|target| target.check.kind == Kind::Icmp);
            echoed.any(|target| target.address.is_ipv4() == is_v4)
        };
        let (v4, v6) = (is_needed(true), is_needed(false));
        let missing_v4 = if v4 && self.echo_v4.is_none() { Some(self.echo(true)?) } else { None };
        let missing_v6 = if v6 && self.echo_v6.is_none() { Some(self.echo(false)?) } else { None };
        if self.starters.is_none()
            && targets.iter().any(|target| matches!(target.check.kind, Kind::Command(_)))
        {
            self.starters = Some(Starters::new(&self.wake).map_err(Error::Start)?);
        }
        // From here on nothing fails.
        self.tls = tls;
        let gone = self.schedule.set(targets, Instant::now());
        let gone: BTreeSet<Id> = gone.into_iter().collect();
        let checks = self.running.iter().filter(|(_, running)| gone.contains(&running.target));
        for check in checks.map(|(check, _)| *check).collect::<Vec<_>>() {
            self.give_up(check);
        }
        // A raw socket that nobody needs would only be woken for other programs' packets.
        self.echo_v4 = missing_v4.or(self.echo_v4.take()).filter(|_| v4);
        self.echo_v6 = missing_v6.or(self.echo_v6.take()).filter(|_| v6);
        Ok(())
    }

    fn echo(&self, is_v4: bool) -> Result<Echo> {
        let echo = Echo::open(is_v4)?;
        let number = if is_v4 { ECHO_V4 } else { ECHO_V6 };
        self.poller.add(&echo, number, EpollFlags::EPOLLIN).map_err(Error::Start)?;
        Ok(echo)
    }

    /// Begins what is due; true if there is more.
    fn begin_due(&mut self, now: Instant) -> bool {
        for _ in 0..MOST_BEGUN {
            let Some((target, Target { address, check, .. })) = self.schedule.begin(now) else {
                return false;
            };
            let (address, kind, timeout) = (*address, check.kind.clone(), check.timeout);
            let dying = self.dying.values().find(|dying| dying.target == target);
            if dying.is_some_and(|dying| now.saturating_duration_since(dying.killed) < GRACE) {
                self.schedule.postpone(target, later(now, GRACE_STEP));
                continue;
            }
            self.last += 1;
            let number = self.last;
            let began = Instant::now();
            match self.begin(number, target, address, kind) {
                Ok(doing) => {
                    let deadline = later(began, timeout);
                    if !matches!(doing, Doing::Starting(_)) {
                        self.deadlines.insert((deadline, number));
                    }
                    self.running.insert(number, Running { target, began, timeout, deadline, doing });
                }
                Err(outcome) => {
                    let now = Instant::now();
                    self.schedule.end(target, outcome, now.duration_since(began), now);
                }
            }
        }
        true
    }

    fn begin(&mut self, number: u64, target: Id, to: IpAddr, kind: Kind) -> Result<Doing, Outcome> {
        let cannot_wait =
            |error: io::Error| Outcome::Unable(format!("cannot wait for it: {}", reason(&error)));
        match kind {
            Kind::Tcp { port } => {
                let connection = Connection::begin(SocketAddr::new(to, port))?;
                let added = self.poller.add(connection.stream(), number << 2, EpollFlags::EPOLLOUT);
                added.map(|()| Doing::Tcp(connection)).map_err(cannot_wait)
            }
            Kind::Http(http) => {
                let exchange = Exchange::begin(&http, to, &self.tls)?;
                let stream = exchange.connection().stream();
                let added = self.poller.add(stream, number << 2, exchange.interest());
                added.map(|()| Doing::Http(Box::new(exchange))).map_err(cannot_wait)
            }
            Kind::Icmp => {
                let is_v4 = to.is_ipv4();
                let echo = if is_v4 { &mut self.echo_v4 } else { &mut self.echo_v6 };
                let echo =
                    echo.as_mut().ok_or_else(|| Outcome::Unable("no socket for echo requests".to_owned()))?;
                Ok(Doing::Echo { is_v4, number: echo.send(number, to)? })
            }
            Kind::Command(_) if self.dying.values().any(|dying| dying.target == target) => {
                Err(Outcome::Bad("the program of the check before is killed and does not end".to_owned()))
            }
            Kind::Command(command) => {
                let starters = self.starters.as_ref();
                let starters = starters.ok_or_else(|| Outcome::Unable("no thread to run it".to_owned()))?;
                starters.start(number, &command);
                Ok(Doing::Starting(command))
            }
        }
    }

    /// Takes over programs that have been started.
    fn take_started(&mut self) {
        while let Some((number, child)) = self.starters.as_ref().and_then(Starters::started) {
            let watched = child.and_then(|child| self.watch(number, child));
            let Some(running) = self.running.get_mut(&number) else {
                // Its target has gone meanwhile.
                if let Ok(run) = watched {
                    self.end(number, Id::MAX, run);
                }
                continue;
            };
            let Doing::Starting(command) = &running.doing else { continue };
            match watched {
                Ok(run) => {
                    running.began = Instant::now();
                    running.deadline = later(running.began, running.timeout);
                    running.doing = Doing::Program(Box::new(run));
                    self.deadlines.insert((running.deadline, number));
                }
                Err(error) => {
                    let outcome = not_started(command, &error);
                    self.finish(number, outcome);
                }
            }
        }
    }

    fn watch(&self, number: u64, child: Child) -> io::Result<Run> {
        let run = Run::watch(child)?;
        for (part, descriptor) in run.parts() {
            let offset = match part {
                Part::End => 0,
                Part::Stdout => STDOUT,
                Part::Stderr => STDERR,
            };
            self.poller.add(descriptor, number << 2 | offset, EpollFlags::EPOLLIN)?;
        }
        Ok(run)
    }

    /// Goes on with what is ready.
    fn go_on(&mut self, ready: u64) {
        match ready {
            WAKE => drop(self.wake.read()),
            ECHO_V4 | ECHO_V6 => {
                let echo = if ready == ECHO_V4 { &mut self.echo_v4 } else { &mut self.echo_v6 };
                let answered = echo.as_mut().map(Echo::receive).unwrap_or_default();
                answered.into_iter().for_each(|check| self.finish(check, Outcome::Good));
            }
            _ => self.go_on_with(ready >> 2, ready & 3),
        }
    }

    fn go_on_with(&mut self, number: u64, part: u64) {
        let part = match part {
            STDOUT => Part::Stdout,
            STDERR => Part::Stderr,
            _ => Part::End,
        };
        if let Some(dying) = self.dying.get_mut(&number) {
            if dying.run.advance(part).is_some() {
                self.dying.remove(&number);
            }
            return;
        }
        let Some(running) = self.running.get_mut(&number) else { return };
        let outcome = match &mut running.doing {
            Doing::Tcp(connection) => match connection.is_open() {
                Ok(true) => Some(Outcome::Good),
                Ok(false) => None,
                Err(outcome) => Some(outcome),
            },
            Doing::Http(exchange) => exchange.advance().or_else(|| {
                let stream = exchange.connection().stream();
                let changed = self.poller.change(stream, number << 2, exchange.interest());
                changed.err().map(|error| Outcome::Unable(format!("cannot wait for it: {}", reason(&error))))
            }),
            Doing::Program(run) => run.advance(part),
            Doing::Echo { .. } | Doing::Starting(_) => None,
        };
        if let Some(outcome) = outcome {
            self.finish(number, outcome);
        }
    }

    /// Ends what had not answered in time. `now` is before the poller was last asked: an answer that had come
    /// by then has been seen, however long this thread was kept from looking.
    fn expire(&mut self, now: Instant) {
        while let Some((_, number)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)
        {
            let Some(running) = self.running.get(&number) else {
                self.deadlines.pop_first();
                continue;
            };
            let no_answer = format!("no answer within {}", in_words(running.timeout));
            let sentence = match &running.doing {
                Doing::Tcp(connection) => connection.timed_out(&no_answer),
                Doing::Http(exchange) => exchange.timed_out(&no_answer),
                Doing::Echo { .. } => no_answer,
                Doing::Program(_) | Doing::Starting(_) => {
                    format!("no end within {}", in_words(running.timeout))
                }
            };
            self.finish(number, Outcome::Bad(sentence));
        }
    }

    /// A check is over.
    fn finish(&mut self, number: u64, outcome: Outcome) {
        if let Some((target, began)) = self.give_up(number) {
            let now = Instant::now();
            self.schedule.end(target, outcome, now.duration_since(began), now);
        }
    }

    /// Ends a check, over or not. Returns whose it was, and when it began.
    fn give_up(&mut self, number: u64) -> Option<(Id, Instant)> {
        let running = self.running.remove(&number)?;
        self.deadlines.remove(&(running.deadline, number));
        match running.doing {
            Doing::Echo { is_v4, number } => {
                let echo = if is_v4 { &mut self.echo_v4 } else { &mut self.echo_v6 };
                if let Some(echo) = echo {
                    echo.forget(number);
                }
            }
            Doing::Program(run) if !run.has_ended() => self.end(number, running.target, *run),
            // Closed by being dropped.
            Doing::Tcp(_) | Doing::Http(_) | Doing::Starting(_) | Doing::Program(_) => {}
        }
        Some((running.target, running.began))
    }

    /// Kills a program, and leaves it to be waited for.
    fn end(&mut self, number: u64, target: Id, mut run: Run) {
        run.kill();
        self.dying.insert(number, Dying { target, killed: Instant::now(), run });
    }
}

impl Running {
    fn kill(&mut self) {
        if let Doing::Program(run) = &mut self.doing {
            run.kill();
        }
    }
}

/// A duration as it was probably written.
fn in_words(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_nanos()) {
        (seconds, 0) => format!("{seconds} s"),
        (0, nanos) if nanos < 1_000_000 => format!("{} us", nanos / 1000),
        _ => format!("{} ms", duration.as_millis()),
    }
}
