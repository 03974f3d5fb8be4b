//! What a worker takes of its core when nothing comes.

use std::time::{Duration, Instant};

use afx_testbed::{Link, Testbed, wait_for};
use anyhow::{Context, Result};

use crate::app::{Kind, Waiting};
use crate::core::{APPLICATION_CORE, time_of_all};
use crate::paired::{Better, alone};
use crate::row::Row;
use crate::run::Run;
use crate::veth::{self, PATIENCE};

/// Less than that would show the moment of starting.
const LEAST: Duration = Duration::from_secs(1);

/// An adaptive worker on a veth on which nothing is sent.
pub(crate) fn cpu(run: &Run<'_>) -> Result<Row> {
    let net = Testbed::new("bench-idle")?;
    let (near, middle) = (net.host("near")?, net.host("middle")?);
    for host in [&near, &middle] {
        host.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    }
    net.link(Link::between(near.end("eth0"), middle.end("in0")))?;
    let figures = alone(run, || {
        let application = veth::app(&middle, Kind::Echo, Waiting::Adaptive, &["in0"])?;
        let attached = || matches!(middle.xdp_program("in0"), Ok(Some(_)));
        wait_for("the application to attach", PATIENCE, attached)
            .with_context(|| format!("{application} said: {}", application.stderr()))?;
        std::thread::sleep(Duration::from_millis(500));
        let (start, before) = (Instant::now(), time_of_all(application.pid())?);
        std::thread::sleep(run.during.max(LEAST));
        let (spent, after) = (start.elapsed(), time_of_all(application.pid())?);
        veth::end(&middle, &application, &["in0"])?;
        Ok(100.0 * (after - before).as_secs_f64() / spent.as_secs_f64())
    })?;
    let settings = format!(
        "afx-bench app echo, Idle::ADAPTIVE, core {APPLICATION_CORE}, one queue of a veth without traffic; all threads of \
         the process"
    );
    Ok(Row::new(run.name, "% of a core", Better::Less, settings).alone(&figures))
}
