//! What replays are made of: configurations, captures and packets.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};

use afx::Time;
use afx::port::{CaptureFormat, CaptureReader, CaptureWriter};
use etherparse::PacketBuilder;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const VIP: [u8; 4] = [198, 51, 100, 10];
pub(crate) const CLIENT: [u8; 4] = [203, 0, 113, 5];

/// A configuration with a VIP on TCP port 443, UDP port 53 and 8000, and something of each kind.
pub(crate) const CONFIG: &str = r#"
version = 1
[[port]]
interface = "eth0"
[forwarding]
method = "ipip"
source_v4 = "10.200.0.0/16"
client_mtu = 1000
[connections]
udp = "60s"
[[vip]]
address = "198.51.100.10"
port = 443
protocol = "tcp"
ping = true
[[vip.real]]
address = "10.0.0.11"
next_hop = "02:00:00:00:00:11"
[[vip]]
address = "198.51.100.10"
port = 53
protocol = "udp"
fragments = "together"
[[vip.real]]
address = "10.0.0.12"
[[vip]]
address = "198.51.100.10"
port = 8000
protocol = "udp"
"#;

/// A folder with a configuration, and commands that run in it.
pub(crate) struct Lab(pub(crate) TempDir);

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self(tempfile::tempdir().expect("the temporary folder is writable"));
        lab.file("lb.toml", CONFIG);
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the temporary folder is writable");
    }

    /// Writes a capture: packets with their times in milliseconds.
    pub(crate) fn capture(&self, name: &str, packets: &[(u64, Vec<u8>)]) {
        let file = File::create(self.path(name)).expect("the temporary folder is writable");
        let mut writer = CaptureWriter::new(file, CaptureFormat::of(name)).unwrap();
        for (millis, bytes) in packets {
            writer.write(Time::from_nanos(1_700_000_000_000_000_000 + millis * 1_000_000), bytes).unwrap();
        }
        writer.finish().unwrap();
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afx-lb"));
        command.arg("replay").args(arguments.split_whitespace()).current_dir(self.0.path());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("the program was built")
    }

    /// Replays in.pcap to out.pcap and verdicts.jsonl; returns the lines and what was said.
    pub(crate) fn replay(&self, more: &str) -> (Vec<Value>, String) {
        let files = "--config lb.toml --in in.pcap --out out.pcap --verdicts verdicts.jsonl";
        let output = self.run(&format!("{files} {more}"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(output.stdout.is_empty());
        (self.lines(), said)
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        lines(&std::fs::read_to_string(self.path("verdicts.jsonl")).unwrap())
    }

    /// The packets of a capture, each with its time in milliseconds.
    pub(crate) fn packets(&self, name: &str) -> Vec<(u64, Vec<u8>)> {
        let mut reader = CaptureReader::open(self.path(name)).unwrap();
        let packets = std::iter::from_fn(|| reader.next_packet()).map(|packet| packet.unwrap());
        let millis = |time: Time| (time.as_nanos() - 1_700_000_000_000_000_000) / 1_000_000;
        packets.map(|packet| (millis(packet.timestamp), packet.bytes)).collect()
    }

    /// All that is in the folder.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn tcp(port: u16, to_port: u16, syn: bool, length: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(CLIENT, VIP, 64).tcp(port, to_port, 1, 8192);
    let builder = if syn { builder.syn() } else { builder.ack(1) };
    let mut packet = Vec::new();
    builder.write(&mut packet, &vec![7; length]).unwrap();
    packet
}

pub(crate) fn udp(port: u16, to_port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(CLIENT, VIP, 64).udp(port, to_port);
    builder.write(&mut packet, b"hello").unwrap();
    packet
}

pub(crate) fn ping() -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(CLIENT, VIP, 64).icmpv4_echo_request(1, 2);
    builder.write(&mut packet, b"ping").unwrap();
    packet
}

/// Both fragments of a UDP packet to port 53, the first with the ports.
pub(crate) fn fragments(id: u16) -> [Vec<u8>; 2] {
    let whole = &udp(5000, 53)[14 + 20..];
    let whole = [whole, &[9; 24]].concat();
    let (first, second) = whole.split_at(24);
    let fragment = |offset: u16, more: bool, payload: &[u8]| {
        let mut header =
            etherparse::Ipv4Header::new(payload.len() as u16, 64, etherparse::ip_number::UDP, CLIENT, VIP)
                .unwrap();
        header.identification = id;
        header.dont_fragment = false;
        header.more_fragments = more;
        header.fragment_offset = etherparse::IpFragOffset::try_new(offset).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let ethernet = [&[2u8; 6][..], &[4; 6], &[0x08, 0x00]].concat();
        [&ethernet[..], &header.to_bytes(), payload].concat()
    };
    [fragment(0, true, first), fragment(3, false, second)]
}
