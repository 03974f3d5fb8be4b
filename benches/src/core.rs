//! Cores, and the time that a thread has had one: on a busy machine, what a packet costs, where the wall clock also
//! counts what other programs took.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

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
    let tasks = format!("/proc/{process}/task");
    for task in std::fs::read_dir(&tasks).with_context(|| format!("reading {tasks}"))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == thread {
            let schedstat = std::fs::read_to_string(task.join("schedstat"))?;
            let nanos = schedstat.split_whitespace().next().context("an empty schedstat")?;
            return Ok(Duration::from_nanos(nanos.parse()?));
        }
    }
    anyhow::bail!("process {process} has no thread {thread}")
}
