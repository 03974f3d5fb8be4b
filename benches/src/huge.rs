//! Huge pages for the time of the measurements: without them testpmd takes more than three times as long.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

const SETTING: &str = "/proc/sys/vm/nr_hugepages";
/// Enough for the largest tables, ours (8 million connections: 256 MiB) and the peers' (900,000 routes: 64 MiB and what
/// they are kept in), one measurement at a time.
const WANTED: u32 = 512;

/// More huge pages, until this is dropped or the process ends, killed or not: the machine's setting as it was is then put
/// back by a process that waits for nothing else.
pub(crate) struct HugePages {
    keeper: Option<Child>,
}

impl HugePages {
    /// Raises the number of huge pages where there are fewer, and says so where that fails.
    pub(crate) fn reserve() -> Self {
        let count = || fs::read_to_string(SETTING).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let Some(before) = count().filter(|before| *before < WANTED) else { return Self { keeper: None } };
        let keeper = keeper(SETTING, before).inspect_err(|error| eprintln!("no huge pages: {error}")).ok();
        let written = keeper.as_ref().map(|_| fs::write(SETTING, WANTED.to_string()));
        if !matches!(written, Some(Ok(()))) || count() < Some(WANTED) {
            eprintln!(
                "fewer than {WANTED} huge pages: ordinary ones for both sides, which testpmd suffers from most"
            );
        }
        Self { keeper }
    }
}

/// A process that writes a number into a file when its input ends, as it does when this process is killed. Signals from
/// the terminal, which it gets like this process, do not end it.
fn keeper(file: &str, before: u32) -> io::Result<Child> {
    const SCRIPT: &str = r#"trap '' INT TERM HUP QUIT; echo; read -r _; echo "$1" >"$2""#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh", &before.to_string(), file]);
    let mut keeper = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // It says when it ignores them.
    let mut ready = [0];
    keeper.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut ready)?;
    Ok(keeper)
}

/// How many are free.
pub(crate) fn free() -> u32 {
    let facts = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = facts.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    free.and_then(|free| free.trim().parse().ok()).unwrap_or(0)
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            // Its input ends, and so does it: by then the setting is as it was.
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_comes_back_when_the_process_is_gone_and_not_before() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "512\n").unwrap();
        let mut keeper = keeper(file.path().to_str().unwrap(), 7).unwrap();
        let kill = Command::new("kill").args(["-INT", &keeper.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "512\n");
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "7\n");
    }
}
