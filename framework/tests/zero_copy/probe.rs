//! Counting calls of kernel functions, by kprobes.

use std::fs;
use std::path::Path;

const TRACING: &str = "/sys/kernel/tracing";
/// Called for each packet that is copied into a frame on its way to a socket.
pub(crate) const COPY_IN: &str = "__xsk_rcv";
/// Called for each packet that was copied out of a frame, once it was sent.
pub(crate) const COPY_OUT: &str = "xsk_destruct_skb";

/// Counters of calls, while it lives.
pub(crate) struct Probes;

impl Probes {
    /// Counts the calls of the ways on which packets are copied.
    pub(crate) fn new() -> Self {
        let probes = Self;
        for function in [COPY_IN, COPY_OUT] {
            write("kprobe_events", &format!("p:afx/{function} {function}"));
        }
        write("events/afx/enable", "1");
        probes
    }

    /// How often each was called: on the way in, and out.
    pub(crate) fn hits(&self) -> [u64; 2] {
        let profile = fs::read_to_string(Path::new(TRACING).join("kprobe_profile")).unwrap();
        [COPY_IN, COPY_OUT].map(|function| {
            let line = profile.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let mut line = line.filter(|fields| fields.first() == Some(&function));
            let fields = line.next().unwrap_or_else(|| panic!("no probe of {function}:\n{profile}"));
            // A call that was missed was one, too.
            fields[1..].iter().map(|count| count.parse::<u64>().unwrap()).sum()
        })
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let _ = fs::write(Path::new(TRACING).join("events/afx/enable"), "0");
        let _ = fs::write(Path::new(TRACING).join("kprobe_events"), "");
    }
}

fn write(file: &str, text: &str) {
    use std::io::Write as _;
    let path = Path::new(TRACING).join(file);
    let written =
        fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.unwrap_or_else(|error| panic!("writing {text} to {}: {error}", path.display()));
}
