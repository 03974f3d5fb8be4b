//! What was found, for programs. docs/doctor.md lists the fields.

use afx::doctor::{Finding, Overview, Report, Verdict};
use serde::Serialize;

use super::Fixed;

#[derive(Serialize)]
struct Document<'r> {
    kernel: &'r str,
    interface: Option<&'r str>,
    good: usize,
    could_be_better: usize,
    will_not_work: usize,
    findings: Vec<Entry<'r>>,
    interfaces: Vec<Interface<'r>>,
    /// Not there unless something was to be mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<Vec<Mended<'r>>>,
}

#[derive(Serialize)]
struct Entry<'r> {
    topic: String,
    name: &'r str,
    verdict: &'static str,
    what: &'r str,
    why: &'r str,
    remedy: Option<Command<'r>>,
}

#[derive(Serialize)]
struct Command<'r> {
    command: &'r str,
    safe: bool,
}

#[derive(Serialize)]
struct Interface<'r> {
    name: &'r str,
    driver: &'r str,
    up: bool,
    rx_queues: u32,
    mtu: u32,
    xdp: &'r str,
    program: Option<&'r str>,
}

#[derive(Serialize)]
struct Mended<'r> {
    command: &'r str,
    before: Option<&'r str>,
    error: Option<&'r str>,
}

/// The report as one JSON object, ended by an end of line.
pub(super) fn show(report: &Report, fixed: Option<&[Fixed]>) -> String {
    let document = Document {
        kernel: &report.kernel,
        interface: report.interface.as_deref(),
        good: report.count(Verdict::Good),
        could_be_better: report.count(Verdict::CouldBeBetter),
        will_not_work: report.count(Verdict::WillNotWork),
        findings: report.findings.iter().map(entry).collect(),
        interfaces: report.interfaces.iter().map(interface).collect(),
        fixed: fixed.map(|fixed| fixed.iter().map(mended).collect()),
    };
    serde_json::to_string_pretty(&document)
        .expect("it is made of lists, strings and numbers, and its keys are strings")
        + "\n"
}

fn entry(finding: &Finding) -> Entry<'_> {
    let verdict = match finding.verdict {
        Verdict::Good => "good",
        Verdict::CouldBeBetter => "could_be_better",
        Verdict::WillNotWork => "will_not_work",
    };
    let remedy = finding.remedy.as_ref();
    Entry {
        topic: finding.topic.to_string(),
        name: finding.name,
        verdict,
        what: &finding.what,
        why: &finding.why,
        remedy: remedy.map(|remedy| Command { command: &remedy.command, safe: remedy.is_safe() }),
    }
}

fn interface(overview: &Overview) -> Interface<'_> {
    Interface {
        name: &overview.name,
        driver: &overview.driver,
        up: overview.is_up,
        rx_queues: overview.rx_queues,
        mtu: overview.mtu,
        xdp: &overview.xdp,
        program: overview.program.as_deref(),
    }
}

fn mended(fixed: &Fixed) -> Mended<'_> {
    let result = fixed.result.as_ref();
    Mended {
        command: &fixed.command,
        before: result.ok().map(String::as_str),
        error: result.err().map(String::as_str),
    }
}
