//! Packets of a capture, sent again.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use afx::Time;
use afx::packet::{MacAddress, parse, rewrite};
use afx::port::CaptureReader;

use super::SendError;

/// What becomes of a capture's packets before they are sent.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Options {
    /// Sends the packets of this capture (pcap or pcapng), byte for byte unless rewritten.
    #[arg(long, value_name = "FILE", help_heading = "Replay",
          conflicts_with_all = ["source", "destination", "source_port", "destination_port", "protocol", "size", "shape",
                                "vlan", "flows", "order", "tcp_flags", "seed", "to_mac", "from_mac",
                                "no_signature"])]
    pub(super) replay: Option<PathBuf>,
    /// So many times as fast as it was captured.
    #[arg(
        long,
        value_name = "FACTOR",
        default_value_t = 1.0,
        requires = "replay",
        conflicts_with = "rate",
        help_heading = "Replay"
    )]
    pub(super) speed: f64,
    /// How often it is sent: again and again with 0.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "replay", help_heading = "Replay")]
    pub(super) loops: u64,
    /// Gives all packets this source MAC address.
    #[arg(long, value_name = "MAC", requires = "replay", help_heading = "Replay")]
    rewrite_source_mac: Option<MacAddress>,
    /// Gives all packets this destination MAC address.
    #[arg(long, value_name = "MAC", requires = "replay", help_heading = "Replay")]
    rewrite_destination_mac: Option<MacAddress>,
    /// Gives packets of its IP version this source address, and updates their checksums.
    #[arg(long, value_name = "ADDRESS", requires = "replay", help_heading = "Replay")]
    rewrite_source: Option<IpAddr>,
    /// Gives packets of its IP version this destination address, and updates their checksums.
    #[arg(long, value_name = "ADDRESS", requires = "replay", help_heading = "Replay")]
    rewrite_destination: Option<IpAddr>,
}

/// The packets of a capture, as they are to be sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Recording {
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) times: Vec<Time>,
    /// Bytes of the longest packet.
    pub(super) longest: usize,
}

/// The shortest packet that can be sent: an Ethernet header.
const SHORTEST: usize = 14;

impl Recording {
    /// Reads and rewrites a capture.
    ///
    /// # Errors
    /// Where it cannot be read, has no packet, or has one that cannot be sent again.
    pub(super) fn read(file: &Path, options: &Options) -> Result<Self, SendError> {
        let name = file.display();
        let refused = |error: afx::port::CaptureError| SendError::usage(format!("{name}: {error}"));
        let mut reader = CaptureReader::open(file).map_err(refused)?;
        let mut recording = Self::default();
        while let Some(packet) = reader.next_packet() {
            let mut packet = packet.map_err(refused)?;
            let number = recording.packets.len() + 1;
            if packet.bytes.len() < packet.original_len as usize {
                return Err(SendError::usage(format!(
                    "{name}: of packet {number} only {} of {} bytes were captured; capture anew, with `tcpdump -s 0` say",
                    packet.bytes.len(),
                    packet.original_len
                )));
            }
            if packet.bytes.len() < SHORTEST {
                return Err(SendError::usage(format!("{name}: packet {number} has no Ethernet header")));
            }
            options.rewrite(&mut packet.bytes);
            recording.longest = recording.longest.max(packet.bytes.len());
            recording.times.push(packet.timestamp);
            recording.packets.push(packet.bytes);
        }
        if recording.packets.is_empty() {
            return Err(SendError::usage(format!("{name}: no packet in it")));
        }
        Ok(recording)
    }
}

impl Options {
    fn rewrite(&self, bytes: &mut [u8]) {
        if let Some(mac) = self.rewrite_destination_mac {
            bytes[..6].copy_from_slice(&mac.0);
        }
        if let Some(mac) = self.rewrite_source_mac {
            bytes[6..12].copy_from_slice(&mac.0);
        }
        // What afx does not understand has no address that it knows of.
        let Ok(parsed) = parse(bytes) else { return };
        if let Some(address) = self.rewrite_source {
            rewrite::set_source(bytes, &parsed, address);
        }
        if let Some(address) = self.rewrite_destination {
            rewrite::set_destination(bytes, &parsed, address);
        }
    }
}
