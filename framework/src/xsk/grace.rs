//! Waiting until the kernel is done with packets that it was just handling.

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const GLOBAL: libc::c_int = 1;

/// Waits until every poll of a card that was under way has ended, and with it the way of its packets into the rings of
/// sockets. False where the kernel does not wait: with cores that it leaves alone (`nohz_full`), and where a filter of
/// system calls is in the way.
///
/// The call waits for an RCU grace period (`membarrier` in `kernel/sched/membarrier.c`), and so for whatever has softirqs
/// disabled, as a poll has from before the XDP program runs until packets are flushed into the rings (the comment on
/// `XDP_REDIRECT` in `net/core/filter.c`). With a single core it returns at once, since the caller has it.
pub(crate) fn polls_have_ended() -> bool {
    // SAFETY: nothing of this process's memory is passed.
    unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) == 0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_waits_unless_it_leaves_cores_alone() {
        let file = std::fs::read_to_string("/sys/devices/system/cpu/nohz_full").unwrap_or_default();
        let leaves_some_alone = file.starts_with(|c: char| c.is_ascii_digit());
        assert_eq!(super::polls_have_ended(), !leaves_some_alone, "{file}");
    }
}
