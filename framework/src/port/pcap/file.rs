//! Capture files of both formats, as a sequence of timestamps and bytes.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use crate::time::Time;

/// What can be wrong with a capture file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The system's own refusal: no such file, no right to it, no space left.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It begins as a capture and does not go on as one.
    #[error("after {packets} packets: {what}")]
    Damaged {
        /// How many packets came before that.
        packets: u64,
        /// What is wrong there.
        what: String,
    },
    /// The first bytes are those of no capture.
    #[error("it is no capture: neither pcap nor pcapng")]
    NoCapture,
    /// Its packets are of another link layer than Ethernet, as numbered by pcap-linktype(7).
    #[error("its packets are of link type {0}: only Ethernet, type 1, can be read")]
    LinkType(u32),
}

type Error = CaptureError;

/// More than a jumbo frame, and what capturing programs write.
const SNAP_LENGTH: u32 = 262_144;

/// A capture file that is read, pcap or pcapng.
pub struct CaptureReader {
    reader: Reader,
    packets: u64,
}

/// A packet of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Captured {
    /// When it was seen, in nanoseconds since 1970 where the capture's clock is the system's.
    pub timestamp: Time,
    /// From the Ethernet header on, as far as they were kept.
    pub bytes: Vec<u8>,
    /// How many bytes it had: more than were kept, where the snap length was shorter.
    pub original_len: u32,
}

/// What is in a whole capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contents {
    /// Packets.
    pub packets: u64,
    /// Those of them whose end was not kept.
    pub cut_short: u64,
}

enum Reader {
    Pcap(PcapReader<BufReader<File>>),
    PcapNg(PcapNgReader<BufReader<File>>),
}

impl CaptureReader {
    /// Reads the file to its end.
    ///
    /// # Errors
    /// What is wrong with it, and after which packet.
    pub fn check(path: impl AsRef<Path>) -> Result<Contents, CaptureError> {
        let mut reader = Self::open(path)?;
        let mut contents = Contents::default();
        while let Some(packet) = reader.next_packet() {
            let packet = packet?;
            contents.packets += 1;
            contents.cut_short += u64::from(packet.bytes.len() < packet.original_len as usize);
        }
        Ok(contents)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// Where it cannot be read, or does not begin as a capture of Ethernet packets.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).map_err(|_| Error::NoCapture)?;
        file.rewind()?;
        let file = BufReader::new(file);
        let damaged = |error| Error::damaged(0, error);
        let reader = match magic {
            // The section header block's type reads the same in both byte orders.
            [0x0a, 0x0d, 0x0d, 0x0a] => Reader::PcapNg(PcapNgReader::new(file).map_err(damaged)?),
            [0xa1, 0xb2, 0xc3, 0xd4]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0xd4, 0xc3, 0xb2, 0xa1]
            | [0x4d, 0x3c, 0xb2, 0xa1] => {
                let reader = PcapReader::new(file).map_err(damaged)?;
                if reader.header().datalink != DataLink::ETHERNET {
                    return Err(Error::LinkType(reader.header().datalink.into()));
                }
                Reader::Pcap(reader)
            }
            _ => return Err(Error::NoCapture),
        };
        Ok(Self { reader, packets: 0 })
    }

    /// The next packet; None at the end.
    ///
    /// # Errors
    /// What is wrong with the file from here on.
    pub fn next_packet(&mut self) -> Option<Result<Captured, CaptureError>> {
        let next = match &mut self.reader {
            Reader::Pcap(reader) => reader.next_packet().map(|packet| {
                let packet = packet.map_err(|error| Error::damaged(self.packets, error))?;
                Ok(Captured {
                    timestamp: time(packet.timestamp),
                    original_len: packet.orig_len,
                    bytes: packet.data.into_owned(),
                })
            }),
            Reader::PcapNg(reader) => next_ng(reader, self.packets),
        };
        self.packets += 1;
        next
    }
}

impl Error {
    fn damaged(packets: u64, error: PcapError) -> Self {
        let what = match error {
            PcapError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => return error.into(),
            PcapError::IncompleteBuffer | PcapError::IoError(_) => "the file is cut off".into(),
            other => other.to_string(),
        };
        Self::Damaged { packets, what }
    }
}

fn time(since_epoch: Duration) -> Time {
    Time::from_nanos(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

type Next = Option<Result<Captured, Error>>;

fn next_ng(reader: &mut PcapNgReader<BufReader<File>>, packets: u64) -> Next {
    loop {
        let (interface, units, bytes, original_len) = match reader.next_block()? {
            Err(error) => return Some(Err(Error::damaged(packets, error))),
            Ok(Block::EnhancedPacket(block)) => {
                // The library takes the timestamp for nanoseconds, whatever the interface's resolution.
                let units = block.timestamp.as_nanos() as u64;
                (block.interface_id, units, block.data.into_owned(), block.original_len)
            }
            Ok(Block::SimplePacket(block)) => {
                // Padded to four bytes, and without a timestamp.
                let len = block.data.len().min(block.original_len as usize);
                (0, 0, block.data[..len].to_vec(), block.original_len)
            }
            Ok(_) => continue,
        };
        let Some(interface) = reader.interfaces().get(interface as usize) else {
            let what = format!("a packet of interface {interface}, which is not described");
            return Some(Err(Error::Damaged { packets, what }));
        };
        if interface.linktype != DataLink::ETHERNET {
            return Some(Err(Error::LinkType(interface.linktype.into())));
        }
        let timestamp = Time::from_nanos(nanos(units, interface));
        return Some(Ok(Captured { timestamp, bytes, original_len }));
    }
}

/// A timestamp of an interface in nanoseconds (draft-ietf-opsawg-pcapng, `if_tsresol`): microseconds unless said.
pub(super) fn nanos(units: u64, interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let said = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    let resolution = said.unwrap_or(6);
    let exponent = u32::from(resolution & 0x7f);
    let per_second =
        if resolution & 0x80 == 0 { 10u128.checked_pow(exponent) } else { 1u128.checked_shl(exponent) };
    let nanos = per_second
        .filter(|units| *units > 0)
        .map(|per_second| u128::from(units) * 1_000_000_000 / per_second);
    nanos.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0)
}

/// A capture file that is written, with timestamps in nanoseconds.
pub struct CaptureWriter(Writer);

enum Writer {
    Pcap(PcapWriter<BufWriter<File>>),
    PcapNg(PcapNgWriter<BufWriter<File>>),
}

/// The two kinds of capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "whoever writes a capture chooses between these")]
pub enum CaptureFormat {
    /// The old one, which every program reads.
    Pcap,
    /// The new one.
    PcapNg,
}

impl CaptureFormat {
    /// pcapng where the file is called so, else pcap.
    pub fn of(path: impl AsRef<Path>) -> Self {
        let extension = path.as_ref().extension();
        let is_ng = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("pcapng"));
        if is_ng { Self::PcapNg } else { Self::Pcap }
    }
}

impl CaptureWriter {
    /// Writes to a file from its beginning.
    ///
    /// # Errors
    /// [`CaptureError::Io`].
    pub fn new(file: File, format: CaptureFormat) -> Result<Self, CaptureError> {
        let file = BufWriter::new(file);
        let damaged = |error| Error::damaged(0, error);
        if format == CaptureFormat::PcapNg {
            let mut writer = PcapNgWriter::with_endianness(file, Endianness::Little).map_err(damaged)?;
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: SNAP_LENGTH,
                options: vec![InterfaceDescriptionOption::IfTsResol(9)],
            };
            writer.write_block(&interface.into_block()).map_err(damaged)?;
            return Ok(Self(Writer::PcapNg(writer)));
        }
        let header = PcapHeader {
            snaplen: SNAP_LENGTH,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        Ok(Self(Writer::Pcap(PcapWriter::with_header(file, header).map_err(damaged)?)))
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// [`CaptureError::Io`]; after that the file is good for nothing.
    pub fn write(&mut self, at: Time, bytes: &[u8]) -> Result<(), CaptureError> {
        let (timestamp, len) = (Duration::from_nanos(at.as_nanos()), bytes.len() as u32);
        let written = match &mut self.0 {
            Writer::Pcap(writer) => writer.write_packet(&PcapPacket::new(timestamp, len, bytes)),
            Writer::PcapNg(writer) => {
                let data = bytes.into();
                let block = EnhancedPacketBlock {
                    interface_id: 0,
                    timestamp,
                    original_len: len,
                    data,
                    options: Vec::new(),
                };
                writer.write_block(&block.into_block())
            }
        };
        written.map(drop).map_err(|error| Error::damaged(0, error))
    }

    /// Writes what is still in the buffer.
    ///
    /// # Errors
    /// [`CaptureError::Io`].
    pub fn finish(self) -> Result<(), CaptureError> {
        let mut file = match self.0 {
            Writer::Pcap(writer) => writer.into_writer(),
            Writer::PcapNg(writer) => writer.into_inner(),
        };
        Ok(file.flush()?)
    }
}
