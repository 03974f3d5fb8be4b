//! `afx-lb replay`, as a user calls it.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use afx::Time;
use afx::port::{CaptureFormat, CaptureReader, CaptureWriter};
use serde::Deserialize;

/// What a packet became.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) index: usize,
    #[serde(rename = "timestamp")]
    _timestamp: String,
    pub(crate) verdict: String,
    pub(crate) reason: Option<String>,
    pub(crate) vip: Option<String>,
    pub(crate) real: Option<std::net::IpAddr>,
    pub(crate) how: Option<String>,
    pub(crate) out: Vec<usize>,
}

/// What came of a run.
pub(crate) struct Outcome {
    /// One for each packet that went in.
    pub(crate) lines: Vec<Line>,
    pub(crate) sent: Vec<Vec<u8>>,
}

impl Outcome {
    /// What a packet brought forth.
    pub(crate) fn output(&self, index: usize) -> Vec<&[u8]> {
        self.lines[index].out.iter().map(|out| &*self.sent[*out]).collect()
    }
}

/// The link's MTU: longer than any client's packet with an outer header, so that `client_mtu` alone decides.
const MTU: &str = "9000";

/// Replays packets, with configurations that come in force before the packet of their number, the first at the start.
/// The error is what it said.
pub(crate) fn replay(configs: &[(usize, String)], packets: &[Vec<u8>]) -> Result<Outcome, String> {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let place = |name: &str| folder.path().join(name);
    write(&place("in.pcap"), packets);
    let mut command = Command::new(env!("CARGO_BIN_EXE_afx-lb"));
    command.args(["replay", "--mtu", MTU, "--in"]).arg(place("in.pcap"));
    command.arg("--out").arg(place("out.pcap")).arg("--verdicts").arg(place("verdicts.jsonl"));
    for (number, (index, text)) in configs.iter().enumerate() {
        let file = place(&format!("{number}.toml"));
        std::fs::write(&file, text).expect("the temporary folder is writable");
        match number {
            0 => command.arg("--config").arg(file),
            _ => command.arg("--then").arg(format!("{}@{index}", file.display())),
        };
    }
    let output = command.output().expect("the program was built");
    if !output.status.success() {
        return Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let verdicts = std::fs::read_to_string(place("verdicts.jsonl")).expect("it was written");
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines: Vec<Line> = verdicts.lines().map(line).collect();
    assert!(lines.iter().map(|line| line.index).eq(0..packets.len()), "a line for each packet, in order");
    Ok(Outcome { lines, sent: read(&place("out.pcap")) })
}

fn write(path: &Path, packets: &[Vec<u8>]) {
    let file = File::create(path).expect("the temporary folder is writable");
    let mut writer = CaptureWriter::new(file, CaptureFormat::Pcap).expect("the file can be written");
    for (packet, micros) in packets.iter().zip(1_700_000_000_000_000u64..) {
        writer.write(Time::from_nanos(micros * 1000), packet).expect("the file can be written");
    }
    writer.finish().expect("the file can be written");
}

fn read(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = CaptureReader::open(path).expect("it was written");
    std::iter::from_fn(|| reader.next_packet()).map(|packet| packet.expect("it is whole").bytes).collect()
}
