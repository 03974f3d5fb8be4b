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
pub(super) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("after {packets} packets: {what}")]
    Damaged { packets: u64, what: String },
    #[error("it is no capture: neither pcap nor pcapng")]
    NoCapture,
    #[error("its packets are of link type {0:?}: only Ethernet can be read")]
    LinkType(DataLink),
}

/// More than a jumbo frame, and what capturing programs write.
const SNAP_LENGTH: u32 = 262_144;

/// A capture file that is read.
pub(super) struct Input {
    reader: Reader,
    packets: u64,
}

enum Reader {
    Pcap(PcapReader<BufReader<File>>),
    PcapNg(PcapNgReader<BufReader<File>>),
}

impl Input {
    /// Reads the file to its end, and says what is wrong with it.
    pub(super) fn check(path: &Path) -> Result<(), Error> {
        let mut input = Self::open(path)?;
        while let Some(packet) = input.next() {
            packet?;
        }
        Ok(())
    }

    pub(super) fn open(path: &Path) -> Result<Self, Error> {
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
                    return Err(Error::LinkType(reader.header().datalink));
                }
                Reader::Pcap(reader)
            }
            _ => return Err(Error::NoCapture),
        };
        Ok(Self { reader, packets: 0 })
    }

    /// The next packet; None at the end.
    pub(super) fn next(&mut self) -> Option<Result<(Time, Vec<u8>), Error>> {
        let next = match &mut self.reader {
            Reader::Pcap(reader) => reader.next_packet().map(|packet| {
                let packet = packet.map_err(|error| Error::damaged(self.packets, error))?;
                Ok((time(packet.timestamp), packet.data.into_owned()))
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

type Next = Option<Result<(Time, Vec<u8>), Error>>;

fn next_ng(reader: &mut PcapNgReader<BufReader<File>>, packets: u64) -> Next {
    loop {
        let (interface, units, data) = match reader.next_block()? {
            Err(error) => return Some(Err(Error::damaged(packets, error))),
            Ok(Block::EnhancedPacket(block)) => {
                // The library takes the timestamp for nanoseconds, whatever the interface's resolution.
                (block.interface_id, block.timestamp.as_nanos() as u64, block.data.into_owned())
            }
            Ok(Block::SimplePacket(block)) => {
                // Padded to four bytes, and without a timestamp.
                let len = block.data.len().min(block.original_len as usize);
                (0, 0, block.data[..len].to_vec())
            }
            Ok(_) => continue,
        };
        let Some(interface) = reader.interfaces().get(interface as usize) else {
            let what = format!("a packet of interface {interface}, which is not described");
            return Some(Err(Error::Damaged { packets, what }));
        };
        if interface.linktype != DataLink::ETHERNET {
            return Some(Err(Error::LinkType(interface.linktype)));
        }
        return Some(Ok((Time::from_nanos(nanos(units, interface)), data)));
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

/// A capture file that is written.
pub(super) enum Output {
    Pcap(PcapWriter<BufWriter<File>>),
    PcapNg(PcapNgWriter<BufWriter<File>>),
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let file = BufWriter::new(File::create(path)?);
        let damaged = |error| Error::damaged(0, error);
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pcapng")) {
            let mut writer = PcapNgWriter::with_endianness(file, Endianness::Little).map_err(damaged)?;
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: SNAP_LENGTH,
                options: vec![InterfaceDescriptionOption::IfTsResol(9)],
            };
            writer.write_block(&interface.into_block()).map_err(damaged)?;
            return Ok(Self::PcapNg(writer));
        }
        let header = PcapHeader {
            snaplen: SNAP_LENGTH,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        Ok(Self::Pcap(PcapWriter::with_header(file, header).map_err(damaged)?))
    }

    pub(super) fn write(&mut self, at: Time, bytes: &[u8]) -> Result<(), Error> {
        let (timestamp, len) = (Duration::from_nanos(at.as_nanos()), bytes.len() as u32);
        let written = match self {
            Self::Pcap(writer) => writer.write_packet(&PcapPacket::new(timestamp, len, bytes)),
            Self::PcapNg(writer) => {
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
    pub(super) fn finish(self) -> Result<(), Error> {
        let mut file = match self {
            Self::Pcap(writer) => writer.into_writer(),
            Self::PcapNg(writer) => writer.into_inner(),
        };
        Ok(file.flush()?)
    }
}
