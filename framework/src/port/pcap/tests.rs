use super::*;
use crate::{Inline, Pipeline, Runtime, Stage};

/// Sends everything back and notes when it was seen.
#[derive(Default)]
struct Note {
    packets: Vec<(Time, Option<Time>, usize)>,
    ticks: Vec<Time>,
}

impl Stage for Note {
    fn process(&mut self, batch: &mut Batch) {
        let now = batch.now();
        for slot in batch.live() {
            let mut packet = batch.packet(slot);
            self.packets.push((now, packet.timestamp(), packet.len()));
            packet.transmit(packet.ingress());
        }
    }
    fn tick(&mut self, batch: &mut Batch) {
        self.ticks.push(batch.now());
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn capture(path: &Path, packets: &[(u64, Vec<u8>)]) {
    let mut output = CaptureWriter::new(File::create(path).unwrap(), CaptureFormat::of(path)).unwrap();
    for (micros, bytes) in packets {
        output.write(Time::from_nanos(micros * 1000), bytes).unwrap();
    }
    output.finish().unwrap();
}

fn packets_of(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let mut input = CaptureReader::open(path).unwrap();
    let all = std::iter::from_fn(|| input.next_packet()).map(Result::unwrap);
    all.map(|packet| (packet.timestamp.as_nanos() / 1000, packet.bytes)).collect()
}

fn worker(port: PcapPort, frames: usize) -> Result<Inline<impl Pipeline>> {
    Runtime::builder().port(port).frames_per_queue(frames).pipeline(|_| Note::default()).inline()
}

#[test]
fn a_capture_goes_through_and_comes_out_in_either_format() {
    let directory = directory();
    let packets: Vec<_> = (0..200u64)
        .map(|number| (1_700_000_000_000_000 + number, vec![number as u8; 60 + number as usize]))
        .collect();
    for (from, to) in [("in.pcap", "out.pcapng"), ("in.pcapng", "out.pcap"), ("in.pcap", "out.cap")] {
        let (from, to) = (directory.path().join(from), directory.path().join(to));
        capture(&from, &packets);
        let mut worker = worker(PcapPort::new("file").read(&from).write(&to), 512).unwrap();
        worker.run_to_end();
        let stats = worker.stats();
        assert_eq!((stats.received(), stats.sent(), stats.dropped_total()), (200, 200, 0));
        assert!(stats.balanced());
        assert_eq!(stats.workers[0].ledger.free, 512);
        drop(worker);
        let written = packets_of(&to);
        assert!(written.iter().map(|(_, bytes)| bytes).eq(packets.iter().map(|(_, bytes)| bytes)));
        // Of a batch all have the time of its first.
        assert!(written.iter().zip(&packets).all(|((out, _), (came, _))| out <= came && came - out <= 1000));
    }
}

#[test]
fn time_is_the_captures_for_packets_and_timers() {
    let directory = directory();
    let path = directory.path().join("slow.pcap");
    capture(&path, &[(5_000_000, vec![1; 60]), (5_000_400, vec![2; 60]), (9_000_000, vec![3; 60])]);
    let port = PcapPort::new("file").read(&path);
    let mut worker = Runtime::builder().port(port).pipeline(|_| Note::default()).inline().unwrap();
    worker.run_to_end();
    let micros = |time: Time| time.as_nanos() / 1000;
    let seen: Vec<_> = worker
        .pipeline()
        .packets
        .iter()
        .map(|(now, own, _)| (micros(*now), own.map(micros).unwrap_or_default()))
        .collect();
    assert_eq!(seen, [(5_000_000, 5_000_000), (5_000_000, 5_000_400), (9_000_000, 9_000_000)]);
    let ticks: Vec<_> = worker.pipeline().ticks.iter().map(|tick| micros(*tick)).collect();
    assert_eq!(ticks, [5_000_000, 9_000_000]);
}

#[test]
fn one_a_turn_brings_each_packet_alone_at_its_own_time_and_timers_before_it() {
    let directory = directory();
    let path = directory.path().join("burst.pcap");
    let packets = [(5_000_000, 61), (5_000_001, 62), (5_000_400, 63), (9_000_000, 64), (8_000_000, 65)];
    capture(&path, &packets.map(|(micros, len)| (micros, vec![0; len])));
    let port = PcapPort::new("file").read(&path).one_a_turn();
    let mut worker = Runtime::builder().port(port).pipeline(|_| Note::default()).inline().unwrap();
    let came = std::iter::from_fn(|| (!worker.finished()).then(|| worker.turn())).collect::<Vec<_>>();
    assert_eq!(came, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
    let micros = |time: Time| time.as_nanos() / 1000;
    let seen: Vec<_> = worker
        .pipeline()
        .packets
        .iter()
        .map(|(now, own, len)| (micros(*now), own.map(micros), *len))
        .collect();
    // Time does not go back; what the capture says of the packet stays.
    let now = [5_000_000, 5_000_001, 5_000_400, 9_000_000, 9_000_000];
    let expected: Vec<_> = packets.iter().zip(now).map(|((own, len), now)| (now, Some(*own), *len)).collect();
    assert_eq!(seen, expected);
    let ticks: Vec<_> = worker.pipeline().ticks.iter().map(|tick| micros(*tick)).collect();
    assert_eq!(ticks, [5_000_000, 9_000_000]);
}

#[test]
fn what_was_cut_off_by_the_snap_length_is_told() {
    let directory = directory();
    for name in ["snap.pcap", "snap.pcapng"] {
        let path = directory.path().join(name);
        capture(&path, &[(1, vec![1; 60]), (2, vec![2; 64])]);
        let mut bytes = std::fs::read(&path).unwrap();
        // The original length comes after the captured one, right before the bytes, in both formats.
        let at = bytes.windows(60).position(|window| window == [1; 60]).unwrap();
        bytes[at - 4..at].copy_from_slice(&1514u32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(CaptureReader::check(&path).unwrap(), Contents { packets: 2, cut_short: 1 }, "{name}");
        let first = CaptureReader::open(&path).unwrap().next_packet().unwrap().unwrap();
        assert_eq!((first.bytes.len(), first.original_len), (60, 1514), "{name}");
    }
}

#[test]
fn two_captures_come_in_the_order_of_their_timestamps() {
    let directory = directory();
    let [one, two] = ["one.pcap", "two.pcapng"].map(|name| directory.path().join(name));
    let at = |seconds: u64, len: usize| (seconds * 1_000_000, vec![0; len]);
    capture(&one, &[at(1, 61), at(4, 64), at(5, 65)]);
    capture(&two, &[at(2, 62), at(3, 63), at(6, 66), at(7, 67)]);
    let mut worker = Runtime::builder()
        .port(PcapPort::new("one").read(&one))
        .port(PcapPort::new("two").read(&two))
        .port(PcapPort::new("nothing"))
        .pipeline(|_| Note::default())
        .inline()
        .unwrap();
    worker.run_to_end();
    let lengths: Vec<_> = worker.pipeline().packets.iter().map(|(_, _, len)| *len).collect();
    assert_eq!(lengths, [61, 62, 63, 64, 65, 66, 67]);
    assert!(worker.stats().balanced());
}

#[test]
fn packets_longer_than_a_frame_go_through_whole_and_without_frames_they_are_counted() {
    let directory = directory();
    let [from, to] = ["long.pcap", "long-out.pcap"].map(|name| directory.path().join(name));
    let long: Vec<u8> = (0..9000u32).map(|index| (index % 253) as u8).collect();
    let packets =
        [(1, long.clone()), (2, vec![7; 1792]), (3, vec![8; 1793]), (4, vec![6; 60]), (5, vec![9; 14])];
    capture(&from, &packets);
    // 9 frames: six for the first, one, two, and none for the rest.
    for (frames, no_frame) in [(64, 0), (9, 2), (5, 1)] {
        let mut worker = worker(PcapPort::new("file").read(&from).write(&to), frames).unwrap();
        worker.run_to_end();
        let stats = worker.stats();
        assert_eq!(stats.dropped("no_frame"), no_frame, "{frames} frames");
        assert!(stats.balanced());
        assert_eq!(stats.workers[0].ledger.free, frames as u64);
        drop(worker);
        if frames == 64 {
            assert!(
                packets_of(&to)
                    .into_iter()
                    .map(|(_, bytes)| bytes)
                    .eq(packets.iter().map(|(_, b)| b.clone()))
            );
        }
    }
}

#[test]
fn what_is_no_whole_capture_is_refused_by_its_name() {
    let directory = directory();
    let good = directory.path().join("good.pcapng");
    capture(&good, &[(1, vec![1; 60]), (2, vec![2; 60])]);
    let bytes = std::fs::read(&good).unwrap();
    let old = directory.path().join("good.pcap");
    capture(&old, &[(1, vec![1; 60]), (2, vec![2; 60])]);
    let old = std::fs::read(&old).unwrap();
    let mut other_link = old.clone();
    other_link[20] = 113;
    for (name, content, expected) in [
        ("missing.pcap", None, "No such file"),
        ("empty.pcap", Some(vec![]), "no capture"),
        ("text.pcap", Some(b"a text file".to_vec()), "neither pcap nor pcapng"),
        ("short.pcap", Some(old[..10].to_vec()), "cut off"),
        ("cut.pcap", Some(old[..old.len() - 1].to_vec()), "after 1 packets: the file is cut off"),
        ("cut-header.pcap", Some(old[..old.len() - 65].to_vec()), "after 1 packets: the file is cut off"),
        ("cut-type.pcapng", Some(bytes[..bytes.len() - 89].to_vec()), "after 1 packets: the file is cut off"),
        ("cut.pcapng", Some(bytes[..bytes.len() - 1].to_vec()), "after 1 packets: the file is cut off"),
        ("cooked.pcap", Some(other_link), "only Ethernet"),
    ] {
        let path = directory.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = worker(PcapPort::new("file").read(&path), 64).err().expect(name);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.to_string(), format!("port file: reading {}", path.display()));
        assert!(source.contains(expected), "{name}: {source}");
    }
    let nowhere = directory.path().join("no/such/directory.pcap");
    let error = worker(PcapPort::new("file").write(&nowhere), 64).err().unwrap();
    assert!(error.to_string().contains("writing"), "{error}");
}

#[test]
fn timestamps_of_every_resolution_are_read() {
    use pcap_file::DataLink;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption::IfTsResol;

    let block = |resolution: Option<u8>| InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        snaplen: 0,
        options: resolution.map(IfTsResol).into_iter().collect(),
    };
    for (resolution, units, expected) in [
        (None, 1_500_000, 1_500_000_000),
        (Some(9), 1_500_000_000, 1_500_000_000),
        (Some(3), 1_500, 1_500_000_000),
        (Some(0), 2, 2_000_000_000),
        (Some(0x80 | 10), 1536, 1_500_000_000),
        (Some(0x7f), 5, 0),
        (Some(0xff), 5, 0),
    ] {
        assert_eq!(file::nanos(units, &block(resolution)), expected, "{resolution:?}");
    }
}
