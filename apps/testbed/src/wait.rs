//! Waiting for a condition instead of for a time.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Waits until `condition` holds, looking often; `what` stands in the error.
///
/// A deadline costs nothing when all is well: choose it generously (30 s), since tests run on busy machines.
///
/// # Errors
///
/// [`Error::Deadline`] when the condition does not hold in time.
///
/// ```
/// # use std::time::Duration;
/// afx_testbed::wait_for("the file to appear", Duration::from_secs(30), || std::path::Path::new("/proc").exists())?;
/// # Ok::<(), afx_testbed::Error>(())
/// ```
pub fn wait_for(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for_some(what, within, || condition().then_some(()))
}

/// Waits until `look` finds something, and returns it; otherwise like [`wait_for`].
///
/// # Errors
///
/// [`Error::Deadline`] when nothing is found in time.
pub fn wait_for_some<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_micros(500);
    loop {
        let last = Instant::now() >= deadline;
        if let Some(found) = look() {
            return Ok(found);
        }
        if last {
            return Err(Error::Deadline {
                what: format!("waited for {what}"),
                within,
                detail: String::new(),
            });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_comes_later_and_says_what_never_came() {
        let mut looks = 0;
        let found = wait_for_some("the third look", Duration::from_secs(30), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
        let error = wait_for("doomsday", Duration::ZERO, || false).unwrap_err().to_string();
        assert!(error.contains("doomsday") && error.contains("0ns"), "{error}");
    }
}
