//! Which worker gets which queues, and which core.

use crate::error::{Error, Result};
use crate::port::PortId;

/// What one worker will own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) core: Option<usize>,
    /// Port and queue number.
    pub(super) queues: Vec<(PortId, u32)>,
}

/// Queues of one worker at most: as many as it can sleep on.
pub(super) const QUEUES_MAX: usize = 63;

/// Deals queues to workers in turn: queue `i` of each port goes to worker `i` modulo their number, so that
/// a worker can forward between all ports that have as many queues as there are workers.
pub(super) fn plan(
    ports: &[Vec<u32>],
    workers: Option<usize>,
    cores: &[usize],
    available: &[usize],
) -> Result<Vec<Share>> {
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
    let mut shares: Vec<Share> = (0..count)
        .map(|worker| Share {
            // Without a say, pin only where every worker gets a core of its own.
            core: cores
                .get(worker)
                .or_else(|| available.get(worker).filter(|_| count <= available.len()))
                .copied(),
            queues: Vec::new(),
        })
        .collect();
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
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(share: &Share) -> Vec<(u8, u32)> {
        share.queues.iter().map(|(port, queue)| (port.0, *queue)).collect()
    }

    #[test]
    fn each_worker_gets_its_queue_of_each_port() {
        let shares = plan(&[vec![0, 1], vec![4, 5]], None, &[], &[0, 1, 2]).unwrap();
        assert_eq!(shares.len(), 2);
        assert_eq!(queues(&shares[0]), [(0, 0), (1, 4)]);
        assert_eq!(queues(&shares[1]), [(0, 1), (1, 5)]);
        assert_eq!((shares[0].core, shares[1].core), (Some(0), Some(1)));
    }

    #[test]
    fn fewer_cores_than_queues_share_them_out() {
        let shares = plan(&[vec![0, 1, 2]], None, &[], &[7, 8]).unwrap();
        assert_eq!(queues(&shares[0]), [(0, 0), (0, 2)]);
        assert_eq!(shares[1].core, Some(8));
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let message = |result: Result<Vec<Share>>| result.unwrap_err().to_string();
        assert!(message(plan(&[], None, &[], &[0])).contains("at least one port"));
        assert!(message(plan(&[vec![0]], Some(2), &[], &[0, 1])).contains("2 workers for 1 queues"));
        assert!(message(plan(&[vec![0]], None, &[9], &[0, 1])).contains("core 9 is not among"));
        assert!(message(plan(&[vec![0, 1]], Some(2), &[0], &[0, 1])).contains("one core for each"));
    }
}
