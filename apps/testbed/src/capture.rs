//! Recording the packets of an interface with tcpdump.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::process::Process;
use crate::wait::wait_for;

const PATIENCE: Duration = Duration::from_secs(30);
/// Lengths in the pcap file format (see pcap-savefile(5)).
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// A running tcpdump, made by [`Host::capture`], that writes to a pcap file.
///
/// tcpdump sees what the kernel sees: a packet that a native XDP program took (an AF_XDP socket, say) is not seen on the
/// interface where it arrived, but it is at the other end of the link, where it was sent.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    pub(crate) fn start(host: &Host, interface: &str, filter: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{interface}.{}-{number}.pcap", host.name(), std::process::id());
        let file = host.network().directory.join(name);
        let process = host
            .command("tcpdump")
            // Numbers only; every packet written at once and whole; no change to a user that may not write here.
            .args([
                "-n",
                "--immediate-mode",
                "-U",
                "-s",
                "0",
                "-B",
                "16384",
                "-Z",
                "root",
                "-i",
                interface,
                "-w",
            ])
            .arg(&file)
            .args((!filter.is_empty()).then_some(filter))
            .spawn()
            .map_err(|error| match error {
                Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    Error::MissingProgram { program: "tcpdump".to_owned(), package: "tcpdump" }
                }
                other => other,
            })?;
        process.wait_for_output("listening on", PATIENCE)?;
        Ok(Self { process, file })
    }

    /// How many packets have been recorded so far.
    #[must_use]
    pub fn packets(&self) -> usize {
        fs::read(&self.file).map_or(0, |bytes| count(&bytes))
    }

    /// Waits until at least `count` packets are recorded.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] when fewer come in time.
    pub fn wait_for_packets(&self, count: usize, within: Duration) -> Result<()> {
        let what = format!("{count} packets in {}", self.file.display());
        wait_for(&what, within, || self.packets() >= count)
    }

    /// Stops recording and returns the pcap file, which lives as long as the network.
    ///
    /// Packets that are on their way are waited for: recording ends when the file has not grown for 100 ms.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] when the packets do not cease, or tcpdump does not end.
    pub fn stop(self) -> Result<PathBuf> {
        let (mut length, mut still) = (0, 0);
        wait_for(&format!("{} to grow no more", self.file.display()), PATIENCE, || {
            let now = size(&self.file);
            still = if now == length { still + 1 } else { 0 };
            length = now;
            // The pauses of `wait_for` grow to 20 ms: after ten equal sizes the last 100 ms were quiet.
            still >= 10
        })?;
        self.process.signal(Signal::SIGINT)?;
        self.process.wait_within(PATIENCE)?;
        Ok(self.file)
    }
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

/// Counts the whole records of a pcap file in this machine's byte order, as tcpdump writes it.
fn count(bytes: &[u8]) -> usize {
    let mut rest = bytes.get(FILE_HEADER..).unwrap_or_default();
    let mut packets = 0;
    while let Some((header, data)) = rest.split_first_chunk::<RECORD_HEADER>() {
        let captured = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let Some(next) = usize::try_from(captured).ok().and_then(|length| data.get(length..)) else { break };
        packets += 1;
        rest = next;
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_whole_records_only() {
        let mut file = vec![0; FILE_HEADER];
        assert_eq!((count(&[]), count(&file)), (0, 0));
        for length in [60_u32, 0, 1500] {
            let mut header = [0; RECORD_HEADER];
            header[8..12].copy_from_slice(&length.to_ne_bytes());
            file.extend_from_slice(&header);
            file.resize(file.len() + usize::try_from(length).unwrap(), 0xaa);
        }
        assert_eq!(count(&file), 3);
        assert_eq!(count(&file[..file.len() - 1]), 2, "the last is being written still");
    }
}
