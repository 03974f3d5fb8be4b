//! Huge pages for a test, given back whatever way it ends.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};

const FILE: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages that the machine has in addition, as long as this lives: also when its process is killed. Two at a time
/// would each give back what they found.
#[derive(Debug)]
pub struct HugePages {
    /// Puts the number back when its input ends, as it does with this process.
    keeper: Child,
}

impl HugePages {
    /// Has the kernel reserve so many more, of its usual size.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the kernel does not say, or cannot find as many: then it has what it had.
    pub fn reserve(pages: u64) -> Result<Self> {
        let number = || {
            let text = fs::read_to_string(FILE)?;
            text.trim().parse::<u64>().map_err(std::io::Error::other)
        };
        let before = number().map_err(Error::io(format!("reading {FILE}")))?;
        // A group of its own: what is sent to the test's by a terminal does not end it.
        let keeper = Command::new("setsid")
            .args(["sh", "-c", &format!("cat; echo {before} > {FILE}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(Error::io("starting `setsid sh`"))?;
        let reserved = Self { keeper };
        let wanted = before + pages;
        fs::write(FILE, wanted.to_string()).map_err(Error::io(format!("writing {wanted} to {FILE}")))?;
        let found = number().map_err(Error::io(format!("reading {FILE}")))?;
        if found < wanted {
            let few = std::io::Error::other(format!("the kernel found memory for {found}"));
            return Err(Error::io(format!("reserving {wanted} huge pages"))(few));
        }
        Ok(reserved)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
