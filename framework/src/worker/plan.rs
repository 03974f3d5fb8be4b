//! Which worker gets which queues, and which core.

use std::fmt;

use crate::error::{Error, Result};
use crate::machine::topology::{self, Place};
use crate::machine::{Files, interrupts};
use crate::port::{Port, PortId};

/// What one worker will own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) core: Option<usize>,
    /// Why it is that core, or none.
    pub(crate) why: String,
    /// Port and queue number.
    pub(crate) queues: Vec<(PortId, u32)>,
}

impl Share {
    /// The queues that the worker has of a port, with the core that it is pinned to.
    pub(super) fn cores_of(&self, port: usize) -> impl Iterator<Item = (u32, usize)> {
        let queues = self.queues.iter().filter(move |(its, _)| its.index() == port);
        queues.filter_map(|(_, queue)| Some((*queue, self.core?)))
    }

    /// For people who ask what it would be.
    pub(super) fn planned(&self, ports: &[Box<dyn Port>]) -> PlannedWorker {
        let queue = |(port, queue): &(PortId, u32)| (ports[port.index()].name().to_owned(), *queue);
        PlannedWorker {
            core: self.core,
            why: self.why.clone(),
            queues: self.queues.iter().map(queue).collect(),
        }
    }
}

/// A worker as it would be; see [`RuntimeBuilder::plan`](crate::RuntimeBuilder::plan).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedWorker {
    /// The core that it is pinned to, if it is to one.
    pub core: Option<usize>,
    /// Why it is that core, or none.
    pub why: String,
    /// The port's name and the queue's number of each of its queues.
    pub queues: Vec<(String, u32)>,
}

impl fmt::Display for PlannedWorker {
    /// In a few words: `core 2, queues eth0:1 eth1:1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.core {
            Some(core) => write!(f, "core {core}, queues")?,
            None => f.write_str("no core of its own, queues")?,
        }
        self.queues.iter().try_for_each(|(port, queue)| write!(f, " {port}:{queue}"))
    }
}

/// What a plan can choose from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cores {
    /// Those that this process may run on, best first.
    available: Vec<Place>,
    /// Queues and the one core on which their interrupts come.
    interrupts: Vec<(PortId, u32, usize)>,
}

impl Cores {
    /// `by_interrupts`: a worker that sleeps is woken on the core that its interrupt comes on, and works best there.
    pub(super) fn of(ports: &[Box<dyn Port>], by_interrupts: bool) -> Self {
        let allowed: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        let interfaces: Vec<_> = ports.iter().map(|port| port.interface()).collect();
        Self::among(&Files::Machine, &interfaces, &allowed, by_interrupts)
    }

    /// By the interface of each port that is one, and the cores that may be used.
    pub(crate) fn among(
        files: &Files,
        interfaces: &[Option<&str>],
        allowed: &[usize],
        by_interrupts: bool,
    ) -> Self {
        let mut found = Vec::new();
        for (port, name) in interfaces.iter().enumerate() {
            let Some(name) = name.filter(|_| by_interrupts) else { continue };
            for interrupt in interrupts::of(files, name) {
                if let (Some(queue), &[core]) = (interrupt.queue, interrupt.cores.as_slice()) {
                    found.push((PortId(port as u8), queue, core));
                }
            }
        }
        let names: Vec<&str> = interfaces.iter().copied().flatten().collect();
        Self { available: topology::best_first(files, &names, allowed), interrupts: found }
    }

    fn numbers(&self) -> Vec<usize> {
        self.available.iter().map(|place| place.core).collect()
    }

    /// A core for each share, and why: that of its interrupts where it is still free, else the best that is.
    fn choose(&self, shares: &[Share]) -> Vec<(usize, String)> {
        let mut free = self.available.clone();
        let mut take = |(queue, core): (u32, usize)| {
            let place = free.iter().position(|free| free.core == core)?;
            Some((free.remove(place).core, format!("the interrupts of its queue {queue} come there")))
        };
        let of_interrupts = |share: &Share| {
            let cores = |(port, queue): &(PortId, u32)| {
                let is_it = move |found: &&(PortId, u32, usize)| (found.0, found.1) == (*port, *queue);
                let found = self.interrupts.iter().filter(is_it);
                found.map(|(_, queue, core)| (*queue, *core)).collect::<Vec<_>>()
            };
            share.queues.iter().flat_map(cores).collect::<Vec<_>>()
        };
        let chosen: Vec<Option<_>> =
            shares.iter().map(|share| of_interrupts(share).into_iter().find_map(&mut take)).collect();
        let mut rest = free.into_iter().map(|place| (place.core, place.why()));
        chosen.into_iter().filter_map(|core| core.or_else(|| rest.next())).collect()
    }
}

/// Queues of one worker at most: as many as it can sleep on.
pub(super) const QUEUES_MAX: usize = 63;

/// Deals queues to workers in turn: queue `i` of each port goes to worker `i` modulo their number, so that
/// a worker can forward between all ports that have as many queues as there are workers.
pub(crate) fn plan(
    ports: &[Vec<u32>],
    workers: Option<usize>,
    cores: &[usize],
    there: &Cores,
) -> Result<Vec<Share>> {
    let available = there.numbers();
    let queues = ports.iter().map(Vec::len).max().unwrap_or(0);
    if queues == 0 {
        return Err(Error::config("no port has a queue to receive from: give the runtime at least one port"));
    }
    let count = match (workers, cores.len()) {
        (Some(0), _) => return Err(Error::config("0 workers: at least one is needed")),
        (Some(workers), 0) => workers,
        (None, 0) => queues.min(available.len().max(1)),
        (Some(workers), cores) if workers != cores => {
            return Err(Error::config(format!(
                "{workers} workers on {cores} cores: name one core for each worker"
            )));
        }
        (_, cores) => cores,
    };
    if count > queues {
        return Err(Error::config(format!(
            "{count} workers for {queues} queues: a queue belongs to one worker, so at most {queues} can work"
        )));
    }
    if let Some(core) = cores.iter().find(|core| !available.contains(core)) {
        return Err(Error::config(format!(
            "core {core} is not among those this process may run on: {available:?}"
        )));
    }
    let mut shares = vec![Share::default(); count];
    let most = ports.iter().map(|queues| queues.len().div_ceil(count)).sum::<usize>();
    if most > QUEUES_MAX {
        return Err(Error::config(format!(
            "{most} queues for one worker: {QUEUES_MAX} at most, so more workers are needed"
        )));
    }
    for (port, queues) in ports.iter().enumerate() {
        for (index, queue) in queues.iter().enumerate() {
            shares[index % count].queues.push((PortId(port as u8), *queue));
        }
    }
    let chosen = match cores {
        [] if count <= available.len() => there.choose(&shares),
        // Without a say, pin only where every worker gets a core of its own.
        [] => {
            let why = format!("more workers than the {} cores that this process may run on", available.len());
            shares.iter_mut().for_each(|share| share.why.clone_from(&why));
            Vec::new()
        }
        cores => cores.iter().map(|core| (*core, "as told".to_owned())).collect(),
    };
    for (share, (core, why)) in shares.iter_mut().zip(chosen) {
        (share.core, share.why) = (Some(core), why);
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(cores: &[usize]) -> Cores {
        let place = |core: &usize| Place { core: *core, is_near: None, thread: 0 };
        Cores { available: cores.iter().map(place).collect(), ..Cores::default() }
    }

    fn queues(share: &Share) -> Vec<(u8, u32)> {
        share.queues.iter().map(|(port, queue)| (port.0, *queue)).collect()
    }

    #[test]
    fn each_worker_gets_its_queue_of_each_port() {
        let shares = plan(&[vec![0, 1], vec![4, 5]], None, &[], &on(&[0, 1, 2])).unwrap();
        assert_eq!(shares.len(), 2);
        assert_eq!(queues(&shares[0]), [(0, 0), (1, 4)]);
        assert_eq!(queues(&shares[1]), [(0, 1), (1, 5)]);
        assert_eq!((shares[0].core, shares[1].core), (Some(0), Some(1)));
    }

    #[test]
    fn fewer_cores_than_queues_share_them_out() {
        let shares = plan(&[vec![0, 1, 2]], None, &[], &on(&[7, 8])).unwrap();
        assert_eq!(queues(&shares[0]), [(0, 0), (0, 2)]);
        assert_eq!(shares[1].core, Some(8));
    }

    #[test]
    fn a_worker_is_where_its_interrupts_are() {
        let cores = |available: &[usize], interrupts: &[(u32, usize)]| {
            let interrupts = interrupts.iter().map(|(queue, core)| (PortId(0), *queue, *core)).collect();
            let there = Cores { interrupts, ..on(available) };
            let shares = plan(&[vec![0, 1, 2]], None, &[], &there).unwrap();
            shares.iter().map(|share| share.core.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(cores(&[4, 5, 6, 7], &[(0, 6), (1, 7), (2, 4)]), [6, 7, 4]);
        // Two on one core, and one where this process may not be.
        assert_eq!(cores(&[4, 5, 6, 7], &[(0, 5), (1, 5), (2, 9)]), [5, 4, 6]);
        assert_eq!(cores(&[4, 5], &[(2, 4)]), [4, 5], "worker 0 has queue 2");
    }

    #[test]
    fn a_core_is_told_with_why() {
        let why = |cores: &[usize], interrupts: &[(PortId, u32, usize)]| {
            let there = Cores { interrupts: interrupts.to_vec(), ..on(&[4, 5, 6]) };
            let shares = plan(&[vec![0, 1]], None, cores, &there).unwrap();
            shares.into_iter().map(|share| share.why).collect::<Vec<_>>()
        };
        assert_eq!(
            why(&[], &[(PortId(0), 1, 6)]),
            ["the first that is free", "the interrupts of its queue 1 come there"]
        );
        assert_eq!(why(&[6, 4], &[(PortId(0), 1, 6)]), ["as told"; 2]);
        let planned = PlannedWorker {
            core: Some(2),
            why: String::new(),
            queues: vec![("eth0".into(), 1), ("eth1".into(), 1)],
        };
        assert_eq!(planned.to_string(), "core 2, queues eth0:1 eth1:1");
        let unpinned = PlannedWorker { core: None, ..planned };
        assert_eq!(unpinned.to_string(), "no core of its own, queues eth0:1 eth1:1");
    }

    #[test]
    fn workers_that_share_cores_are_not_pinned() {
        let shares = plan(&[vec![0, 1, 2]], Some(3), &[], &on(&[7, 8])).unwrap();
        assert!(shares.iter().all(|share| share.core.is_none()));
        assert!(shares[0].why.contains("than the 2 cores"), "{}", shares[0].why);
        assert_eq!(plan(&[vec![0, 1]], None, &[3, 1], &on(&[0, 1, 2, 3])).unwrap()[0].core, Some(3));
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let message = |result: Result<Vec<Share>>| result.unwrap_err().to_string();
        assert!(message(plan(&[], None, &[], &on(&[0]))).contains("at least one port"));
        assert!(message(plan(&[vec![0]], Some(2), &[], &on(&[0, 1]))).contains("2 workers for 1 queues"));
        assert!(message(plan(&[vec![0]], None, &[9], &on(&[0, 1]))).contains("core 9 is not among"));
        assert!(message(plan(&[vec![0, 1]], Some(2), &[0], &on(&[0, 1]))).contains("one core for each"));
    }
}
