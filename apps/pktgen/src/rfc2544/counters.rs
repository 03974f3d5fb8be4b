//! What the kernel has counted on an interface.

use std::io;

/// Packets since the interface was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) received: u64,
    pub(super) receive_dropped: u64,
    pub(super) sent: u64,
    pub(super) send_dropped: u64,
}

impl Counters {
    /// Of an interface of the calling thread's network namespace.
    ///
    /// # Errors
    /// Of kind `NotFound` where there is none of that name.
    pub(super) fn read(interface: &str) -> io::Result<Self> {
        let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
        Self::parse(&table, interface).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("the kernel has no counters of {interface}"))
        })
    }

    /// From the table of `net/core/net-procfs.c`: after the name bytes, packets, errors and drops received and four
    /// numbers more, then the same of what was sent.
    fn parse(table: &str, interface: &str) -> Option<Self> {
        let numbers = table.lines().find_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            (name.trim() == interface).then_some(numbers)
        })?;
        let numbers: Vec<u64> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self {
            received: *numbers.get(1)?,
            receive_dropped: *numbers.get(3)?,
            sent: *numbers.get(9)?,
            send_dropped: *numbers.get(11)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:   14520     165    1    2    0     0          0         0    14521     166    3    4    0     0       0          0
eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
";
        let right = Counters { received: 165, receive_dropped: 2, sent: 166, send_dropped: 4 };
        assert_eq!(Counters::parse(table, "lo"), Some(right));
        assert_eq!(Counters::parse(table, "eth0").map(|counters| counters.send_dropped), Some(12));
        assert_eq!(Counters::parse(table, "eth"), None);
        assert!(Counters::read("lo").is_ok());
        assert_eq!(Counters::read("no-such-link").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
