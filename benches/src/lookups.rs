//! Tables, beside DPDK's: connections, and longest prefixes.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use afx::Time;
use afx::packet::{FlowKey, FlowKey4, Protocol};
use afx::stage::balancer::connections::{Connections, Signal, Tick, Timeouts};
use afx::stage::balancer::flow::{FlowHash, FlowHasher};
use afx::stage::balancer::real::RealId;
use anyhow::{Context, Result, ensure};

use crate::core::{APPLICATION_CORE, pin, thread_time};
use crate::dpdk::{self, Found, Lookups, Program, RTE_FIB, RTE_HASH};
use crate::memory::apart;
use crate::paired::{Better, alone, rounds};
use crate::random::Random;
use crate::routes;
use crate::row::{Peer, Row};
use crate::run::Run;

/// Look-ups overlap within a batch, as packets' do.
const BATCH: usize = 64;

/// Queries of one pass. As keys of flows they take 16 MiB: read in order, and more than L2 holds, as packets are.
const QUERIES: usize = 1 << 20;

pub(crate) fn connections_1m(run: &Run<'_>) -> Result<Row> {
    connections(run, 1 << 20)
}

pub(crate) fn connections_64k(run: &Run<'_>) -> Result<Row> {
    connections(run, 1 << 16)
}

/// The connection table with `count` flows, all queries hits, beside rte_hash.
fn connections(run: &Run<'_>, count: usize) -> Result<Row> {
    let mut random = Random::new(count as u64);
    let flows: Vec<FlowKey4> = (0..count as u32).map(flow).collect();
    let wanted: Vec<usize> = (0..QUERIES).map(|_| random.below(count)).collect();
    let queries: Vec<FlowKey4> = wanted.iter().map(|index| flows[*index]).collect();
    // The value of a flow is its number.
    let expected = wanted.iter().map(|index| *index as u64).sum();
    let bytes =
        |keys: &[FlowKey4]| keys.iter().flat_map(|key| key.words().map(u64::to_le_bytes)).flatten().collect();
    let files = Files::write(run.folder, bytes(&flows), bytes(&queries))?;

    let mut table = Connections::new(count, Timeouts::default());
    let hasher = FlowHasher::random().context("a key for the flows' hashes")?;
    let now = Tick::at(Time::monotonic());
    // Others were there before, and went one by one: a table in which connections have come and gone.
    let hash_of = |flow: FlowKey4| hasher.hash(&FlowKey::V4(flow));
    let before = |number: usize| hash_of(flow((count + number) as u32));
    for number in 0..count {
        table.insert(before(number), RealId::from_bits(0), Signal::Data, now);
    }
    for (flow, number) in flows.iter().zip(0..) {
        table.remove(before(number as usize));
        let evicted = table.insert(hash_of(*flow), RealId::from_bits(number), Signal::Data, now);
        ensure!(evicted.is_none(), "the table is made for {count} flows, and has no room for flow {number}");
    }
    let settings = format!(
        "Connections of capacity {count}, all replaced once, FlowHasher::hash, prefetch, lookup_first, and lookup of the rest, over \
         batches of {BATCH}, the clock read once in a pass, {:?} pages, core {APPLICATION_CORE}",
        table.page_kind()
    )
    .to_lowercase();
    let peer = Beside { name: "DPDK rte_hash", program: RTE_HASH, files, queries: queries.len(), expected };
    peer.measure(run, "ns/look-up", settings, move || {
        let now = Tick::at(Time::monotonic());
        let mut sum = 0u64;
        let mut hashes = [FlowHash { index: 0, tag: 0 }; BATCH];
        for batch in queries.chunks(BATCH) {
            for (hash, key) in hashes.iter_mut().zip(batch) {
                *hash = hasher.hash(&FlowKey::V4(*key));
                table.prefetch(*hash);
            }
            let mut rest = 0_u64;
            for (hash, number) in hashes[..batch.len()].iter().zip(0..) {
                match table.lookup_first(*hash, Signal::Data, now) {
                    Some(real) => sum += u64::from(real.to_bits()),
                    None => rest |= 1 << number,
                }
            }
            while rest != 0 {
                let found = table.lookup(hashes[rest.trailing_zeros() as usize], Signal::Data, now);
                sum += u64::from(found.map_or(u32::MAX, RealId::to_bits));
                rest &= rest - 1;
            }
        }
        sum
    })
}

/// Flow number `number` of a client's to one service: no two are the same.
fn flow(number: u32) -> FlowKey4 {
    let client = Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1));
    let port = 1024 + (number.wrapping_mul(0x85eb_ca6b) >> 17) as u16;
    FlowKey4::new(client, Ipv4Addr::new(198, 51, 100, 10), Protocol::TCP, port, 443)
}

/// The prefix table with as many prefixes as the global routing table, random addresses, beside rte_fib.
pub(crate) fn longest_prefix(run: &Run<'_>) -> Result<Row> {
    let routes = routes::global(900_000);
    let mut random = Random::new(4);
    let queries: Vec<u32> = (0..4 * QUERIES).map(|_| random.next() as u32).collect();
    let words = |words: &mut dyn Iterator<Item = u32>| words.flat_map(u32::to_le_bytes).collect();
    let table_file =
        words(&mut routes.iter().flat_map(|route| [route.address, route.length.into(), route.value]));
    let files = Files::write(run.folder, table_file, words(&mut queries.iter().copied()))?;
    let table = routes::table(&routes)?;
    let settings = format!(
        "PrefixTable<u32>, lookup_bulk of {BATCH}, {} prefixes, {:?} pages, core {APPLICATION_CORE}",
        table.len(),
        table.page_kind()
    );
    // Each found by itself, another way than in bulk.
    let expected = queries.iter().map(|address| u64::from(table.lookup(*address).unwrap_or(u32::MAX))).sum();
    let peer = Beside { name: "DPDK rte_fib", program: RTE_FIB, files, queries: queries.len(), expected };
    peer.measure(run, "ns/look-up", settings, move || {
        let mut sum = 0u64;
        let mut values = [0; BATCH];
        for batch in queries.chunks(BATCH) {
            let values = &mut values[..batch.len()];
            table.lookup_bulk(batch, values);
            sum += values.iter().map(|value| u64::from(*value)).sum::<u64>();
        }
        sum
    })
}

/// What both sides read, in a folder that goes when this does.
struct Files {
    table: PathBuf,
    queries: PathBuf,
    _folder: tempfile::TempDir,
}

impl Files {
    fn write(folder: &Path, table: Vec<u8>, queries: Vec<u8>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let folder = tempfile::tempdir_in(folder).context("making a folder for tables and queries")?;
        let files = Self {
            table: folder.path().join("table"),
            queries: folder.path().join("queries"),
            _folder: folder,
        };
        for (path, bytes) in [(&files.table, table), (&files.queries, queries)] {
            fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(files)
    }
}

/// A peer over the same table and queries.
struct Beside {
    name: &'static str,
    program: Program,
    files: Files,
    /// How many, in one pass.
    queries: usize,
    /// The checksum, known beforehand.
    expected: u64,
}

impl Beside {
    /// Measures passes over all queries, ours and the peer's in turns; what they find is compared each time.
    fn measure(
        self,
        run: &Run<'_>,
        unit: &str,
        our_settings: String,
        mut pass: impl FnMut() -> u64 + Send,
    ) -> Result<Row> {
        let version = dpdk::version();
        let start = || Lookups::start(self.program, run.folder, &self.files.table, &self.files.queries);
        let mut peer = version.is_some().then(start).transpose()?;
        let settings = peer.as_ref().map(|peer| peer.settings.clone());
        let row = Row::new(run.name, unit, Better::Less, our_settings).beside(Peer {
            name: self.name,
            version,
            settings,
        });
        let right = |found: Found, whose: &str| {
            let (is, expected) = (found.checksum, self.expected);
            ensure!(is == expected, "{whose} finds something else: the checksum is {is}, not {expected}");
            Ok(found.nanos)
        };
        let mut ours = || right(passes(&mut pass, self.queries, run.during)?, "afx");
        let measured = || {
            pin(APPLICATION_CORE)?;
            ours()?;
            Ok(match &mut peer {
                Some(peer) => {
                    let theirs = || right(peer.run(run.during)?, self.name);
                    row.paired(&rounds(run, Better::Less, &mut ours, theirs)?)
                }
                None => row.alone(&alone(run, &mut ours)?),
            })
        };
        let mut row = apart(measured)?;
        row.checksum = Some(self.expected);
        Ok(row)
    }
}

/// Whole passes until the time is over.
// A call of its own, so that the loop is compiled the same wherever it is called from.
#[inline(never)]
fn passes(pass: &mut impl FnMut() -> u64, queries: usize, during: Duration) -> Result<Found> {
    let (start, mut count) = (thread_time()?, 0);
    loop {
        let checksum = pass();
        count += queries;
        let spent = thread_time()? - start;
        if spent >= during {
            return Ok(Found { nanos: spent.as_nanos() as f64 / count as f64, checksum });
        }
    }
}
