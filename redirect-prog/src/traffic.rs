//! A source and a sink of packets in the kernel (feature `traffic`).
//!
//! The source needs no card and no socket: the kernel runs a program that makes the packets
//! (`BPF_PROG_TEST_RUN` with live frames) and gives them to an interface as redirected XDP frames. The interface is one that
//! takes such frames: on veth, one whose peer has an XDP program or GRO.
#![allow(unsafe_code, reason = "calls libbpf's C interface")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::error::{Error, io_error};
use crate::link::{AttachMode, Link};
use crate::program::traffic::TrafficSkelBuilder;
use crate::program::with_log;

/// Bytes of headers that a flow has at most.
pub const HEADERS: usize = 92;

/// Bytes of a packet at most: it lies in one page of memory, with what XDP keeps before and behind.
pub const LENGTH_MAX: usize = 3072;

/// Protocol numbers that the program knows checksums of.
const UDP: u8 = 17;

/// One flow: what its packets begin with.
///
/// Lengths and checksums in the headers are written by whoever writes the packet, as [`Plan`] says. The sums are
/// ones' complement sums of 16-bit words as numbers, folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
#[expect(clippy::exhaustive_structs, reason = "made by its users, and laid out as the program has it")]
pub struct Flow {
    /// From the Ethernet header on; those behind [`Plan::headers`] do not count.
    pub headers: [u8; HEADERS],
    /// The sum of the IPv4 header, its length and checksum taken for zero.
    pub ip_sum: u16,
    /// The sum of the transport protocol's header and pseudo-header, lengths and checksum taken for zero.
    pub transport_sum: u16,
    /// What the signatures call the flow.
    pub number: u32,
    /// The sequence number of the flow's next packet.
    pub sequence: u32,
}

/// One packet in the order in which they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
#[expect(clippy::exhaustive_structs, reason = "made by its users, and laid out as the program has it")]
pub struct Packet {
    /// The index of its flow.
    pub flow: u32,
    /// Its length in bytes, frame check sequence not counted.
    pub length: u16,
    /// Zero.
    pub padding: u16,
}

/// What all packets of a source have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by its users")]
pub struct Plan {
    /// Where the IP header begins.
    pub l3: u16,
    /// Where the transport header begins.
    pub l4: u16,
    /// Where the payload begins: an even number.
    pub headers: u16,
    /// The protocol above IP: UDP, TCP, ICMP or ICMPv6.
    pub protocol: u8,
    /// IPv4, or else IPv6.
    pub ipv4: bool,
    /// Packets are sent as their flow's headers are, followed by zeros: lengths and checksums are in them.
    pub verbatim: bool,
    /// The payload ends in a signature: 18 bytes of mark, flow, sequence and time.
    pub signature: bool,
}

/// How fast a source sends.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "made by its users")]
pub struct Pace {
    /// Packets per second; none for as fast as it goes.
    pub rate: Option<f64>,
    /// Packets that leave together.
    pub burst: u32,
}

/// How far a source has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Packets given to the interface. Whether it took them, its own counters tell.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that could not be made.
    pub failed: u64,
    /// When the first packet was made, in ns of `CLOCK_MONOTONIC`; none before.
    pub began: Option<u64>,
}

/// A loaded source of packets.
#[derive(Debug)]
pub struct Source {
    program: OwnedFd,
    progress: MapHandle,
    wanted: MapHandle,
    ended: Arc<AtomicBool>,
    rate: Option<f64>,
    /// Bytes of the longest packet: what the kernel makes its frames of.
    longest: usize,
}

/// Ends a [`Source::run`] from another thread, and says how far it has come.
#[derive(Debug)]
pub struct Handle {
    progress: MapHandle,
    wanted: MapHandle,
    ended: Arc<AtomicBool>,
}

const FIRST: [u8; 4] = [0; 4];

/// Repetitions of one call into the kernel. Long calls are twice as fast as short ones: each begins and ends in a wait for
/// all cores (`synchronize_rcu`), some ten milliseconds in all.
const PER_CALL: u64 = 1_000_000;

/// As above, where a rate is kept: most repetitions find no packet due then, and take about so many ns.
const PER_PACED_CALL: u64 = 4_000_000;
const REPETITION: f64 = 80.0;

impl Source {
    /// Loads a source for the interface `ifindex` of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::Rights`], [`Error::Map`].
    ///
    /// # Panics
    ///
    /// If a packet is longer than [`LENGTH_MAX`] or shorter than its headers, names no flow, or there is none at all.
    pub fn load(
        ifindex: u32,
        plan: &Plan,
        pace: Pace,
        flows: &[Flow],
        order: &[Packet],
    ) -> Result<Self, Error> {
        let headers = usize::from(plan.headers) + if plan.signature { 18 } else { 0 };
        let fits = |packet: &Packet| {
            (headers..=LENGTH_MAX).contains(&packet.length.into()) && (packet.flow as usize) < flows.len()
        };
        assert!(
            !order.is_empty() && order.iter().all(fits),
            "packets of the flows given, as long as they can be"
        );
        assert!(headers <= HEADERS + 18 && plan.headers.is_multiple_of(2), "headers are of an even length");
        let longest = order.iter().map(|packet| usize::from(packet.length)).max().unwrap_or(0);
        let entries = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (program, maps) = with_log("traffic source", || {
            let mut object = MaybeUninit::uninit();
            let mut open = TrafficSkelBuilder::default().open(&mut object)?;
            let constants = &mut open.maps.rodata_data.as_mut().expect("the program has constants").plan;
            constants.interface = ifindex;
            constants.packets = entries(order.len());
            constants.burst = pace.burst.max(1);
            // Rounded up: never faster than wanted.
            constants.interval = pace
                .rate
                .map_or(0, |rate| ((f64::from(pace.burst.max(1)) * 1e9 / rate * 256.0).ceil() as u64).max(1));
            (constants.l3, constants.l4, constants.headers) = (plan.l3, plan.l4, plan.headers);
            constants.protocol = plan.protocol;
            constants.ipv4 = plan.ipv4.into();
            constants.verbatim = plan.verbatim.into();
            constants.signature = plan.signature.into();
            open.progs.afx_sink.set_autoload(false);
            open.maps.flows.set_max_entries(entries(flows.len()))?;
            open.maps.order.set_max_entries(entries(order.len()))?;
            let loaded = open.load()?;
            let handle = |map| MapHandle::try_from(map);
            let maps = [
                handle(&loaded.maps.flows)?,
                handle(&loaded.maps.order)?,
                handle(&loaded.maps.progress)?,
                handle(&loaded.maps.wanted)?,
            ];
            Ok((loaded.progs.afx_source.as_fd().try_clone_to_owned()?, maps))
        })?;
        let [flow_map, order_map, progress, wanted] = maps;
        fill(&flow_map, "flows", flows, |flow, bytes| {
            bytes.extend(flow.headers);
            bytes.extend(flow.ip_sum.to_ne_bytes());
            bytes.extend(flow.transport_sum.to_ne_bytes());
            bytes.extend(flow.number.to_ne_bytes());
            bytes.extend(flow.sequence.to_ne_bytes());
        })?;
        fill(&order_map, "packets", order, |packet, bytes| {
            bytes.extend(packet.flow.to_ne_bytes());
            bytes.extend(packet.length.to_ne_bytes());
            bytes.extend([0; 2]);
        })?;
        Ok(Self { program, progress, wanted, ended: Arc::default(), rate: pace.rate, longest })
    }

    /// What another thread ends it by.
    ///
    /// # Errors
    ///
    /// [`Error::Map`]: too many open files.
    pub fn handle(&self) -> Result<Handle, Error> {
        let clone = |map: &MapHandle| {
            MapHandle::try_from(map)
                .map_err(|error| Error::Map { action: "share the source".into(), source: io_error(error) })
        };
        Ok(Handle {
            progress: clone(&self.progress)?,
            wanted: clone(&self.wanted)?,
            ended: self.ended.clone(),
        })
    }

    /// Sends `count` packets, or until its [`Handle`] ends it: one call of the kernel after another, on this thread and
    /// its core. Once ended, it sends nothing ever again.
    ///
    /// # Errors
    ///
    /// What the kernel answers to the run: `EINVAL` before Linux 5.18. [`Error::Map`].
    pub fn run(&self, count: u64) -> Result<(), Error> {
        let before = read(&self.progress)?;
        want(&self.wanted, before.packets.saturating_add(count))?;
        let packet = vec![0; self.longest];
        loop {
            let progress = read(&self.progress)?;
            let left = wanted(&self.wanted)?.saturating_sub(progress.packets);
            // Nothing is made of a plan that does not fit: said by the caller, who sees what failed.
            if left == 0 || progress.failed > before.failed || self.ended.load(Ordering::Acquire) {
                return Ok(());
            }
            match self.call(&packet, self.repetitions(left)) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(source) => {
                    let action = "run the traffic source (BPF_PROG_TEST_RUN with live frames, Linux 5.18)";
                    return Err(Error::Map { action: action.into(), source });
                }
                Ok(()) => {}
            }
        }
    }

    /// How often the program is run in the next call, with so many packets left.
    fn repetitions(&self, left: u64) -> u32 {
        let count = match self.rate {
            None => left.min(PER_CALL),
            Some(rate) => ((left as f64 * 1e9 / rate / REPETITION) as u64).clamp(10_000, PER_PACED_CALL),
        };
        count as u32
    }

    /// One call into the kernel.
    fn call(&self, packet: &[u8], repeat: u32) -> io::Result<()> {
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
            data_in: packet.as_ptr().cast(),
            data_size_in: packet.len() as u32,
            repeat: repeat as i32,
            flags: libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES,
            ..Default::default()
        };
        // SAFETY: the packet outlives the call and its size is said; the kernel copies it and writes nothing.
        let result =
            unsafe { libbpf_sys::bpf_prog_test_run_opts(self.program.as_raw_fd(), &raw mut options) };
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }
}

impl Handle {
    /// Has the source send no further packet; its [`Source::run`] returns soon, also one that begins later.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn end(&self) -> Result<(), Error> {
        self.ended.store(true, Ordering::Release);
        want(&self.wanted, 0)
    }

    /// How far it has come.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn progress(&self) -> Result<Progress, Error> {
        read(&self.progress)
    }
}

fn want(map: &MapHandle, count: u64) -> Result<(), Error> {
    map.update(&FIRST, &count.to_ne_bytes(), MapFlags::ANY)
        .map_err(|error| Error::Map { action: "tell the source how much".into(), source: io_error(error) })
}

fn words(map: &MapHandle) -> Result<Vec<u64>, Error> {
    let value = map.lookup(&FIRST, MapFlags::ANY).map_err(|error| Error::Map {
        action: "read the source's progress".into(),
        source: io_error(error),
    })?;
    let value = value.unwrap_or_default();
    Ok(value.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes"))).collect())
}

fn wanted(map: &MapHandle) -> Result<u64, Error> {
    Ok(words(map)?.first().copied().unwrap_or(0))
}

fn read(map: &MapHandle) -> Result<Progress, Error> {
    match words(map)?[..] {
        [packets, bytes, failed, _place, _due, start, ..] => {
            Ok(Progress { packets, bytes, failed, began: (start > 0).then_some(start) })
        }
        _ => Ok(Progress::default()),
    }
}

/// Entries that are written at once.
const CHUNK: usize = 4096;

/// Fills an array map.
fn fill<T>(map: &MapHandle, what: &str, items: &[T], write: impl Fn(&T, &mut Vec<u8>)) -> Result<(), Error> {
    for (chunk, items) in items.chunks(CHUNK).enumerate() {
        let first = chunk * CHUNK;
        let keys: Vec<u8> = (first..first + items.len()).flat_map(|key| (key as u32).to_ne_bytes()).collect();
        let mut values = Vec::new();
        items.iter().for_each(|item| write(item, &mut values));
        map.update_batch(&keys, &values, items.len() as u32, MapFlags::ANY, MapFlags::ANY).map_err(
            |error| Error::Map { action: format!("give the source its {what}"), source: io_error(error) },
        )?;
    }
    Ok(())
}

/// `NETDEV_XDP_ACT_NDO_XMIT` of `linux/netdev.h`.
const TAKES_FRAMES: u64 = 4;

/// Whether the interface `ifindex` of the calling thread's network namespace takes redirected frames, as it says itself.
/// None where the kernel cannot tell (before Linux 6.3).
pub fn takes_frames(ifindex: u32) -> Option<bool> {
    let mut found = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let ifindex = i32::try_from(ifindex).ok()?;
    // SAFETY: the options outlive the call and say their size.
    let result = unsafe { libbpf_sys::bpf_xdp_query(ifindex, 0, &raw mut found) };
    // Zero is also what libbpf leaves where it finds nobody to ask; every interface with XDP has some feature.
    (result == 0 && found.feature_flags != 0).then_some(found.feature_flags & TAKES_FRAMES != 0)
}

/// What has come to a sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrivals {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counts, and drops, all that arrives on an interface, until this is dropped or the process ends.
#[derive(Debug)]
pub struct Sink {
    arrived: MapHandle,
    _link: Link,
}

impl Sink {
    /// Attaches it to the interface `ifindex` of the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// As [`Redirect::attach`](crate::Redirect::attach).
    pub fn attach(ifindex: u32, mode: AttachMode) -> Result<Self, Error> {
        let (program, arrived) = with_log("traffic sink", || {
            let mut object = MaybeUninit::uninit();
            let mut open = TrafficSkelBuilder::default().open(&mut object)?;
            open.progs.afx_source.set_autoload(false);
            let loaded = open.load()?;
            let program = loaded.progs.afx_sink.as_fd().try_clone_to_owned()?;
            Ok((program, MapHandle::try_from(&loaded.maps.arrived)?))
        })?;
        let link = Link::attach(program.as_fd(), ifindex, mode)?;
        Ok(Self { arrived, _link: link })
    }

    /// What has arrived so far.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn arrived(&self) -> Result<Arrivals, Error> {
        let values = self.arrived.lookup_percpu(&FIRST, MapFlags::ANY).map_err(|error| Error::Map {
            action: "read the sink's counters".into(),
            source: io_error(error),
        })?;
        let mut sum = Arrivals::default();
        for value in values.iter().flatten() {
            let word = |at: usize| value[at..].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
            sum.packets += word(0);
            sum.bytes += word(8);
        }
        Ok(sum)
    }
}

impl Flow {
    /// A flow whose headers are those that `packet` begins with: a packet of plan `plan`, whose lengths and checksums do
    /// not count.
    ///
    /// # Panics
    ///
    /// If `packet` is shorter than the plan's headers, or these longer than [`HEADERS`].
    pub fn of(packet: &[u8], plan: &Plan, number: u32) -> Self {
        let (l3, l4, length) = (usize::from(plan.l3), usize::from(plan.l4), usize::from(plan.headers));
        let mut headers = [0; HEADERS];
        headers[..length].copy_from_slice(&packet[..length]);
        let mut flow = Self { headers, ip_sum: 0, transport_sum: 0, number, sequence: 0 };
        if plan.verbatim {
            return flow;
        }
        let (ip, transport) = flow.headers.split_at_mut(l4);
        let transport = &mut transport[..length - l4];
        let addresses = if plan.ipv4 {
            ip[l3 + 2..l3 + 4].fill(0);
            ip[l3 + 10..l3 + 12].fill(0);
            flow.ip_sum = sum(&ip[l3..]);
            sum(&ip[l3 + 12..l3 + 20])
        } else {
            ip[l3 + 4..l3 + 6].fill(0);
            sum(&ip[l3 + 8..l3 + 40])
        };
        transport[checksum_at(plan.protocol)..][..2].fill(0);
        if plan.protocol == UDP {
            transport[4..6].fill(0);
        }
        // ICMP alone has no pseudo-header.
        const ICMP: u8 = 1;
        let pseudo = if plan.protocol == ICMP { 0 } else { u32::from(addresses) + u32::from(plan.protocol) };
        flow.transport_sum = fold(u64::from(pseudo) + u64::from(sum(transport)));
        flow
    }
}

/// Where the checksum lies in a transport header.
pub const fn checksum_at(protocol: u8) -> usize {
    match protocol {
        6 => 16,
        UDP => 6,
        _ => 2,
    }
}

/// The ones' complement sum of bytes as 16-bit words: an even number of them.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])));
    fold(words.sum())
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
