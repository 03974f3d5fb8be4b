//! Where requests are answered: at once, or over many turns of the main loop.

use std::time::{Duration, Instant};

use afx::control::socket::{NotSent, Peer, Request};
use serde::Serialize;
use serde_json::Value;

use super::protocol::{
    Ask, Changed, Connection, ConnectionsEnd, ConnectionsWanted, DrainEnd, DrainProgress, Explanation,
    RealDrain, RealState, VipKey,
};
use super::{Connections, Later, Next, Operator};
use crate::config::few;

/// Steps of a walk through connections in one turn: some hundred microseconds.
const STEPS: usize = 4096;

/// Connections in a line.
const CONNECTIONS_A_LINE: usize = 256;

/// How long workers may take for a step of what they are asked.
const WORKERS_WITHIN: Duration = Duration::from_secs(5);

/// How often the progress of a drain is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How often a drained real is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was asked and is not answered yet. Each client has one request at a time, so there are few.
#[derive(Default)]
pub(crate) struct Desk {
    open: Vec<Open>,
}

struct Open {
    request: Request,
    work: Work,
}

enum Work {
    Explain(Later<Explanation>, Instant),
    Walk(Walk),
    Drain(Drained),
}

/// Whether there is more to do for a request.
enum Step {
    /// There is; it is asked again in the next turn.
    Goes,
    Answered(Result<Value, String>),
    /// Nobody waits any more.
    Dropped,
}

impl Desk {
    /// Answers a request, or begins to.
    pub(crate) fn serve(&mut self, request: Request, operator: &mut dyn Operator) {
        let ask = serde_json::from_value::<Ask>(request.body.clone());
        let ask = ask.map_err(|error| format!("the request is not understood: {error}"));
        let ask = ask.and_then(|ask| ask.check().map(|()| ask));
        match ask.and_then(|ask| begin(&ask, request.peer, operator)) {
            Ok(Begun::Answer(answer)) => request.reply(Ok(answer)),
            Ok(Begun::Work(work)) => self.open.push(Open { request, work }),
            Err(why) => request.reply(Err(why)),
        }
    }

    /// Goes on with what takes longer. To be called in each turn of the main loop.
    pub(crate) fn turn(&mut self, operator: &mut dyn Operator) {
        for mut open in std::mem::take(&mut self.open) {
            let step = match &mut open.work {
                _ if open.request.is_gone() => Step::Dropped,
                Work::Explain(later, since) => explain(later, *since),
                Work::Walk(walk) => walk.step(&open.request),
                Work::Drain(drained) => drained.step(&open.request, operator),
            };
            match step {
                Step::Goes => self.open.push(open),
                Step::Answered(answer) => open.request.reply(answer),
                Step::Dropped => {}
            }
        }
    }

    /// How long the main loop may wait before the next turn; None where nothing is open.
    pub(crate) fn next_turn(&self) -> Option<Duration> {
        let next = |open: &Open| match open.work {
            Work::Drain(_) => LOOK_EVERY,
            Work::Explain(..) | Work::Walk(_) => Duration::from_millis(1),
        };
        self.open.iter().map(next).min()
    }
}

/// What became of a request at first.
enum Begun {
    Answer(Value),
    Work(Work),
}

fn begin(ask: &Ask, peer: Option<Peer>, operator: &mut dyn Operator) -> Result<Begun, String> {
    let changed = |what: &'static str, changed: Result<Changed, String>| {
        log(what, peer, &changed);
        changed.and_then(answer)
    };
    match ask {
        Ask::Status {} => answer(operator.status()),
        Ask::Vips {} => answer(operator.vips()),
        Ask::Reals(wanted) => {
            let mut reals = operator.reals();
            if let Some(vip) = &wanted.vip {
                known(vip, operator)?;
                reals.retain(|real| real.vip == *vip);
            }
            answer(reals)
        }
        Ask::Connections(wanted) => {
            if let Some(vip) = &wanted.vip {
                known(vip, operator)?;
            }
            let walk = operator.connections(wanted)?;
            Ok(Begun::Work(Work::Walk(Walk::new(walk, wanted.clone()))))
        }
        Ask::Counters(wanted) => {
            let mut counters = operator.counters();
            counters.retain(|counter| wanted.all || counter.value > 0);
            answer(counters)
        }
        Ask::Explain(flow) => Ok(Begun::Work(Work::Explain(operator.explain(flow)?, Instant::now()))),
        Ask::Config {} => answer(operator.config()?),
        Ask::Reload {} => changed("reload", operator.reload()),
        Ask::RealAdd(add) => changed("real add", operator.real_add(add)),
        Ask::RealRemove(real) => changed("real remove", operator.real_remove(real)),
        Ask::RealWeight(weight) => changed("real weight", operator.real_weight(weight)),
        Ask::RealDrain(drain) if drain.wait => {
            let begun = operator.real_drain(drain);
            log("real drain", peer, &begun);
            Ok(Begun::Work(Work::Drain(Drained::new(drain.clone(), begun?))))
        }
        Ask::RealDrain(drain) => changed("real drain", operator.real_drain(drain)),
        Ask::RealUndrain(real) => changed("real undrain", operator.real_undrain(real)),
        Ask::VipAdd(add) => changed("vip add", operator.vip_add(add)),
        Ask::VipRemove(vip) => changed("vip remove", operator.vip_remove(vip)),
    }
}

fn answer(answer: impl Serialize) -> Result<Begun, String> {
    value(answer).map(Begun::Answer)
}

fn value(answer: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| format!("the answer cannot be told: {error}"))
}

/// Who changed what belongs in the log: the configuration file does not tell it.
fn log(what: &str, peer: Option<Peer>, changed: &Result<Changed, String>) {
    let (pid, uid) = peer.map_or((0, 0), |peer| (peer.pid, peer.uid));
    match changed {
        Ok(changed) if changed.changes.is_empty() => tracing::info!(pid, uid, "{what}: nothing to change"),
        Ok(changed) => {
            changed.changes.iter().for_each(|change| tracing::info!(pid, uid, "{what}: {change}"));
        }
        Err(why) => tracing::warn!(pid, uid, "{what} refused: {why}"),
    }
}

/// An error that helps where there is no such VIP.
fn known(vip: &VipKey, operator: &mut dyn Operator) -> Result<(), String> {
    let vips = operator.vips();
    if vips.iter().any(|known| known.vip == *vip) {
        return Ok(());
    }
    Err(format!("there is no VIP {vip}; there are: {}", few(vips.iter().map(|known| known.vip))))
}

fn explain(later: &mut Later<Explanation>, since: Instant) -> Step {
    match later() {
        Some(explained) => Step::Answered(explained.and_then(value)),
        None if since.elapsed() > WORKERS_WITHIN => Step::Answered(stalled()),
        None => Step::Goes,
    }
}

fn stalled() -> Result<Value, String> {
    Err(format!("workers have not answered within {} s: is one stalled?", WORKERS_WITHIN.as_secs()))
}

/// A walk through the connection tables on behalf of a client.
struct Walk {
    connections: Box<dyn Connections>,
    wanted: ConnectionsWanted,
    /// What is not sent yet.
    found: Vec<Connection>,
    matched: u64,
    /// When workers last had something to say.
    heard: Instant,
    /// Over, but for what is not sent yet; and whether all were looked at.
    over: Option<bool>,
}

impl Walk {
    fn new(connections: Box<dyn Connections>, wanted: ConnectionsWanted) -> Self {
        Self { connections, wanted, found: Vec::new(), matched: 0, heard: Instant::now(), over: None }
    }

    fn step(&mut self, request: &Request) -> Step {
        for _ in 0..STEPS {
            let enough = if self.over.is_some() { 1 } else { CONNECTIONS_A_LINE };
            if self.found.len() >= enough && !self.send(request) {
                // It is the client who is waited for; the server gives up on it in time.
                self.heard = Instant::now();
                return Step::Goes;
            }
            if let Some(complete) = self.over {
                return Step::Answered(value(ConnectionsEnd { matched: self.matched, complete }));
            }
            match self.connections.next() {
                Next::Connection(connection) => self.look_at(connection),
                Next::Done => self.over = Some(true),
                Next::Pending if self.heard.elapsed() > WORKERS_WITHIN => return Step::Answered(stalled()),
                Next::Pending => return Step::Goes,
            }
        }
        Step::Goes
    }

    fn look_at(&mut self, connection: Connection) {
        self.heard = Instant::now();
        if !self.wanted.matches(&connection) {
            return;
        }
        // One more than wanted, to know that there is one more.
        if self.wanted.limit.is_some_and(|limit| self.matched >= limit) {
            self.over = Some(false);
            return;
        }
        self.matched += 1;
        if !self.wanted.count {
            self.found.push(connection);
        }
    }

    /// Sends what was found; false where the client has not taken the parts before it yet.
    fn send(&mut self, request: &Request) -> bool {
        if !request.has_room() {
            return false;
        }
        let found = std::mem::take(&mut self.found);
        // A connection has nothing that JSON cannot say.
        let part = value(&found).unwrap_or_default();
        !matches!(request.more(part), Err(NotSent::Full))
    }
}

/// A drain that a client waits for.
struct Drained {
    ask: RealDrain,
    begun: Changed,
    since: Instant,
    next: Instant,
    /// How many times in a row the real had no connections.
    empty: u32,
}

impl Drained {
    fn new(ask: RealDrain, begun: Changed) -> Self {
        let now = Instant::now();
        Self { ask, begun, since: now, next: now, empty: 0 }
    }

    fn step(&mut self, request: &Request, operator: &mut dyn Operator) -> Step {
        let RealDrain { vip, real: address, .. } = &self.ask;
        let Some(real) = operator.real(vip, address) else {
            return Step::Answered(Err(format!("the drain has ended: {address} was taken out of {vip}")));
        };
        let deadline_over = real.state == RealState::Out;
        // Twice, since a worker may just be counting.
        self.empty = if real.connections == 0 { self.empty + 1 } else { 0 };
        if deadline_over || (self.empty > 1 && real.drain.is_some()) {
            return Step::Answered(value(DrainEnd {
                changes: std::mem::take(&mut self.begun.changes),
                warnings: std::mem::take(&mut self.begun.warnings),
                connections: real.connections,
                deadline_over,
                took_seconds: self.since.elapsed().as_secs_f64(),
            }));
        }
        let Some(drain) = real.drain else {
            let what = format!("the drain has ended: {address} in {vip} gets new flows again");
            return Step::Answered(Err(what));
        };
        if Instant::now() >= self.next {
            self.next += PROGRESS_EVERY;
            let progress = DrainProgress { connections: real.connections, drain };
            if let Ok(progress) = value(progress) {
                // A client that has not taken thirty lines does not miss this one.
                let _ = request.more(progress);
            }
        }
        Step::Goes
    }
}
