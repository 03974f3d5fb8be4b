//! Which worker gets which queues, and which core.

use crate::error::{Error, Result};
use crate::machine::{Files, interrupts, topology};
use crate::port::{Port, PortId};

/// What one worker will own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) core: Option<usize>,
    /// Port and queue number.
    pub(super) queues: Vec<(PortId, u32)>,
}

impl Share {
    /// The queues that the worker has of a port, with the core that it is pinned to.
    pub(super) fn cores_of(&self, port: usize) -> impl Iterator<Item = (u32, usize)> {
        let queues = self.queues.iter().filter(move |(its, _)| its.index() == port);
        queues.filter_map(|(_, queue)| Some((*queue, self.core?)))
    }

    /// In a few words: `core 2, queues eth0:1 eth1:1`.
    pub(super) fn describe(&self, ports: &[Box<dyn Port>]) -> String {
        let core = self.core.map_or_else(|| "no core of its own".into(), |core| format!("core {core}"));
        let queue = |(port, queue): &(PortId, u32)| format!("{}:{queue}", ports[port.index()].name());
        let queues: Vec<_> = self.queues.iter().map(queue).collect();
        format!("{core}, queues {}", queues.join(" "))
    }
}

/// What a plan can choose from.
#[derive(Debug, Clone, Default)]
pub(super) struct Cores {
    /// Those that this process may run on, best first.
    pub(super) available: Vec<usize>,
    /// Queues and the one core on which their interrupts come.
    pub(super) interrupts: Vec<(PortId, u32, usize)>,
}

impl Cores {
    /// `by_interrupts`: a worker that sleeps is woken on the core that its interrupt comes on, and works best there.
    pub(super) fn of(ports: &[Box<dyn Port>], by_interrupts: bool) -> Self {
        let files = Files::Machine;
        let allowed: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        let interfaces: Vec<&str> = ports.iter().filter_map(|port| port.interface()).collect();
        let mut found = Vec::new();
        for (port, name) in ports.iter().map(|port| port.interface()).enumerate() {
            let Some(name) = name.filter(|_| by_interrupts) else { continue };
            for interrupt in interrupts::of(&files, name) {
                if let (Some(queue), &[core]) = (interrupt.queue, interrupt.cores.as_slice()) {
                    found.push((PortId(port as u8), queue, core));
                }
            }
        }
        Self { available: topology::best_first(&files, &interfaces, &allowed), interrupts: found }
    }

    /// A core for each share: that of its interrupts where it is still free, else the best that is.
    fn choose(&self, shares: &[Share]) -> Vec<usize> {
        let mut free = self.available.clone();
        let mut take = |core: usize| {
            let place = free.iter().position(|free| *free == core)?;
            Some(free.remove(place))
        };
        let of_interrupts = |share: &Share| {
            let cores = |(port, queue): &(PortId, u32)| {
                let is_it = move |found: &&(PortId, u32, usize)| (found.0, found.1) == (*port, *queue);
                self.interrupts.iter().filter(is_it).map(|(.., core)| *core).collect::<Vec<_>>()
            };
            share.queues.iter().flat_map(cores).collect::<Vec<_>>()
        };
        let chosen: Vec<Option<usize>> =
            shares.iter().map(|share| of_interrupts(share).into_iter().find_map(&mut take)).collect();
        let mut rest = free.into_iter();
        chosen.into_iter().filter_map(|core| core.or_else(|| rest.next())).collect()
    }
}

/// Queues of one worker at most: as many as it can sleep on.
pub(super) const QUEUES_MAX: usize = 63;

/// Deals queues to workers in turn: queue `i` of each port goes to worker `i` modulo their number, so that
/// a worker can forward between all ports that have as many queues as there are workers.
pub(super) fn plan(
    ports: &[Vec<u32>],
    workers: Option<usize>,
    cores: &[usize],
    there: &Cores,
) -> Result<Vec<Share>> {
    let available = &there.available;
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
        [] => Vec::new(),
        cores => cores.to_vec(),
    };
    for (share, core) in shares.iter_mut().zip(chosen) {
        share.core = Some(core);
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(cores: &[usize]) -> Cores {
        Cores { available: cores.to_vec(), ..Cores::default() }
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
            let there = Cores { available: available.to_vec(), interrupts };
            let shares = plan(&[vec![0, 1, 2]], None, &[], &there).unwrap();
            shares.iter().map(|share| share.core.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(cores(&[4, 5, 6, 7], &[(0, 6), (1, 7), (2, 4)]), [6, 7, 4]);
        // Two on one core, and one where this process may not be.
        assert_eq!(cores(&[4, 5, 6, 7], &[(0, 5), (1, 5), (2, 9)]), [5, 4, 6]);
        assert_eq!(cores(&[4, 5], &[(2, 4)]), [4, 5], "worker 0 has queue 2");
    }

    #[test]
    fn workers_that_share_cores_are_not_pinned() {
        let shares = plan(&[vec![0, 1, 2]], Some(3), &[], &on(&[7, 8])).unwrap();
        assert!(shares.iter().all(|share| share.core.is_none()));
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
