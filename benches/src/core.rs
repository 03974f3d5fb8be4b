//! Cores, and the time that a thread has had one: on a busy machine, what a packet costs, where the wall clock also
//! counts what other programs took.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Where packets are made and the kernel receives.
pub(crate) const KERNEL_CORE: usize = 0;
/// Where the application runs.
pub(crate) const APPLICATION_CORE: usize = 1;

/// Keeps this thread, and what it starts, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    ensure!(
        core_affinity::set_for_current(core_affinity::CoreId { id: core }),
        "this thread could not be pinned to core {core}: two cores are needed"
    );
    Ok(())
}

/// The time that this thread has run.
pub(crate) fn thread_time() -> Result<Duration> {
    let time = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID.now().context("reading the thread's clock")?;
    Ok(Duration::from(time))
}

/// The time that a thread of another process has run, by its name.
pub(crate) fn time_of(process: u32, thread: &str) -> Result<Duration> {
    for task in tasks(process)? {
        if std::fs::read_to_string(task.join("comm"))?.trim() == thread {
            return time_of_task(&task);
        }
    }
    bail!("process {process} has no thread {thread}")
}

/// The time that all threads of another process have run, those that ended left out.
pub(crate) fn time_of_all(process: u32) -> Result<Duration> {
    tasks(process)?.iter().map(|task| time_of_task(task)).sum()
}

fn tasks(process: u32) -> Result<Vec<PathBuf>> {
    let tasks = format!("/proc/{process}/task");
    let entries = std::fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))?;
    Ok(entries.map(|task| Ok(task?.path())).collect::<std::io::Result<_>>()?)
}

fn time_of_task(task: &Path) -> Result<Duration> {
    let schedstat = std::fs::read_to_string(task.join("schedstat"))?;
    let nanos = schedstat.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

/// The time that it took to move packets, whoever is charged with it: all that the application's core did, and what
/// the other one, where packets are made, did in interrupts. In ticks of the kernel's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Busy {
    ticks: u64,
}

impl Busy {
    pub(crate) fn now() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        busy_ticks(&text).map(|ticks| Self { ticks }).context("/proc/stat does not show both cores")
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        // USER_HZ is 100 on all architectures that afx runs on.
        Duration::from_millis(10 * (self.ticks - earlier.ticks))
    }
}

fn busy_ticks(stat: &str) -> Option<u64> {
    // user, nice, system, idle, iowait, irq, softirq, steal, … (proc(5)).
    let core = |core: usize| -> Option<Vec<u64>> {
        let name = format!("cpu{core} ");
        let numbers = stat.lines().find_map(|line| line.strip_prefix(&name))?;
        numbers.split_whitespace().map(|number| number.parse().ok()).collect()
    };
    let (kernel, application) = (core(KERNEL_CORE)?, core(APPLICATION_CORE)?);
    let sum =
        |core: &[u64], fields: &[usize]| fields.iter().map(|field| core.get(*field)).sum::<Option<u64>>();
    Some(sum(&application, &[0, 1, 2, 5, 6])? + sum(&kernel, &[5, 6])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_the_applications_core_and_interrupts_of_the_other() {
        let stat = "cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 100 200 300 400 500 7 80 900 0 0\ncpu1 1 2 3 1000 1000 4 5 1000 0 0\n";
        assert_eq!(busy_ticks(stat), Some(7 + 80 + 1 + 2 + 3 + 4 + 5));
        assert_eq!(busy_ticks("cpu  1 1 1 1 1 1 1\ncpu0 1 2 3 4 5 6 7\n"), None);
        let before = Busy { ticks: 100 };
        assert_eq!(Busy { ticks: 150 }.since(before), Duration::from_millis(500));
    }

    #[test]
    fn this_process_has_run_for_as_long_as_its_threads_have() {
        let mut sum = 0u64;
        while thread_time().unwrap() < Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(time_of_all(std::process::id()).unwrap() >= Duration::from_millis(2), "{sum}");
    }
}
