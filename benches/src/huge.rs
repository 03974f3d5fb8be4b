//! Huge pages for the time of the measurements: without them testpmd takes more than three times as long.

use std::fs;

const SETTING: &str = "/proc/sys/vm/nr_hugepages";
/// Enough for the largest tables, ours (8 million connections: 256 MiB) and the peers' (900,000 routes: 64 MiB and what
/// they are kept in), one measurement at a time.
const WANTED: u32 = 512;

/// The machine's setting as it was, which comes back when this is dropped.
pub(crate) struct HugePages {
    before: Option<u32>,
}

impl HugePages {
    /// Raises the number of huge pages where there are fewer, and says so where that fails.
    pub(crate) fn reserve() -> Self {
        let count = || fs::read_to_string(SETTING).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let before = count().filter(|before| *before < WANTED);
        if before.is_some() {
            let written = fs::write(SETTING, WANTED.to_string());
            if written.is_err() || count() < Some(WANTED) {
                eprintln!(
                    "fewer than {WANTED} huge pages: ordinary ones for both sides, which testpmd suffers from most"
                );
            }
        }
        Self { before }
    }
}

/// How many are free.
pub(crate) fn free() -> u32 {
    let facts = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = facts.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    free.and_then(|free| free.trim().parse().ok()).unwrap_or(0)
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // It was writable a moment ago, or it is as it was.
            let _ = fs::write(SETTING, before.to_string());
        }
    }
}
