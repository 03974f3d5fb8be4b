//! The rings of an AF_XDP socket, driven natively and through xsk-rs.

use std::time::Duration;

use afx::{LibraryRings, NativeRings};
use afx_testbed::{Link, Testbed};
use anyhow::Result;

use crate::core::{APPLICATION_CORE, pin, thread_time};
use crate::paired::{Better, rounds};
use crate::row::Row;

pub(crate) fn native_vs_xsk_rs(count: usize, during: Duration) -> Result<Row> {
    let name = "ring-native-vs-xsk-rs";
    let net = Testbed::new("bench-rings")?;
    // Two sockets, each on an interface of its own that nothing is sent on.
    let (host, far) = (net.host("rings")?, net.host("far")?);
    net.link(Link::between(host.end("native"), far.end("far0")))?;
    net.link(Link::between(host.end("library"), far.end("far1")))?;
    let result = host.run(|| {
        pin(APPLICATION_CORE)?;
        let mut native = NativeRings::open("native")?;
        let mut library = LibraryRings::open("library")?;
        rounds(
            name,
            count,
            Better::Less,
            || nanos(during, || native.run(1024)),
            || nanos(during, || library.run(1024)),
        )
    })??;
    let mut row = Row {
        name: name.into(),
        ours: 0.0,
        our_settings: "all four rings of a socket, batches of 64, mapped and driven in Rust".into(),
        peer: None,
        peer_name: Some("xsk-rs".into()),
        peer_version: Some("0.11".into()),
        peer_settings: Some("the same rings and batches, by its queue calls".into()),
        unit: "ns/descriptor".into(),
        ratio: None,
        ratio_low: None,
        ratio_high: None,
        rounds: count,
    };
    row.fill(&result);
    Ok(row)
}

/// Processor time per descriptor, in ns, over a while.
fn nanos(during: Duration, mut run: impl FnMut() -> u64) -> Result<f64> {
    let (start, mut descriptors) = (thread_time()?, 0);
    loop {
        descriptors += run();
        let spent = thread_time()? - start;
        if spent >= during {
            return Ok(spent.as_nanos() as f64 / descriptors as f64);
        }
    }
}
