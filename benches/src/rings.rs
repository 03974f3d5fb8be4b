//! The rings of an AF_XDP socket, driven natively and through xsk-rs.

use std::time::Duration;

use afx::{LibraryRings, NativeRings};
use afx_testbed::{Link, Testbed};
use anyhow::Result;

use crate::core::{APPLICATION_CORE, pin, thread_time};
use crate::paired::{Better, rounds};
use crate::row::{Peer, Row};
use crate::run::Run;

pub(crate) fn native_vs_xsk_rs(run: &Run<'_>) -> Result<Row> {
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
            run,
            Better::Less,
            || nanos(run.during, || native.run(1024)),
            || nanos(run.during, || library.run(1024)),
        )
    })??;
    let settings = "all four rings of a socket, batches of 64, mapped and driven in Rust";
    Ok(Row::new(run.name, "ns/descriptor", Better::Less, settings)
        .beside(Peer {
            name: "xsk-rs",
            version: Some("0.11".into()),
            settings: Some("the same rings and batches, by its queue calls".into()),
        })
        .paired(&result))
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
