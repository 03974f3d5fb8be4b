//! What a machine and its interfaces can do for afx, what is in the way, and the command that mends it.
//!
//! ```no_run
//! use afx::doctor::{Verdict, examine};
//!
//! let report = examine(Some("eth1"))?;
//! for finding in report.findings.iter().filter(|finding| finding.verdict == Verdict::WillNotWork) {
//!     println!("{}: {} {}", finding.name, finding.what, finding.why);
//! }
//! # Ok::<(), afx::doctor::Error>(())
//! ```
//!
//! Nothing is changed by an examination. [`examine_by_trying`] attaches a program and opens sockets for a moment;
//! [`Remedy::apply`] changes what the remedy says. Interfaces are those of the calling thread's network namespace.

mod change;
mod cores;
mod driver;
mod facts;
mod interface;
mod kernel;
mod memory;
mod netlink;
mod offloads;
mod peer;
mod queues;
mod rights;
mod trying;

use std::fmt;
use std::io;

use crate::machine::Files;
pub use change::Remedy;
use facts::Facts;

/// How a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "programs decide by it")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works; something makes it slower, or is not known.
    CouldBeBetter,
    /// With this, afx does not work, or not as it is meant to.
    WillNotWork,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::CouldBeBetter => "could be better",
            Self::WillNotWork => "will not work",
        })
    }
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Topic {
    /// The kernel and what its version allows.
    Kernel,
    /// What the calling process may do.
    Rights,
    /// Huge pages.
    Memory,
    /// Processor cores and what else runs on them.
    Cores,
    /// The interface that was named.
    Interface,
    /// What came of trying.
    Trying,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "kernel",
            Self::Rights => "rights",
            Self::Memory => "memory",
            Self::Cores => "cores",
            Self::Interface => "interface",
            Self::Trying => "trying",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    pub topic: Topic,
    /// Its name, the same each time: `huge pages`.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What that means; empty where nothing has to be said.
    pub why: String,
    /// What mends it, where a command does.
    pub remedy: Option<Remedy>,
}

impl Finding {
    fn good(topic: Topic, name: &'static str, what: impl Into<String>) -> Self {
        Self::of(Verdict::Good, topic, name, what, "")
    }

    fn better(topic: Topic, name: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::of(Verdict::CouldBeBetter, topic, name, what, why)
    }

    fn fails(topic: Topic, name: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::of(Verdict::WillNotWork, topic, name, what, why)
    }

    fn of(
        verdict: Verdict,
        topic: Topic,
        name: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { topic, name, verdict, what: what.into(), why: why.into(), remedy: None }
    }

    /// With what mends it.
    fn mend(self, remedy: Remedy) -> Self {
        Self { remedy: Some(remedy), ..self }
    }
}

/// An interface in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overview {
    /// Its name.
    pub name: String,
    /// Its driver or kind; empty where it has none that says so.
    pub driver: String,
    /// Whether it was set up.
    pub is_up: bool,
    /// How many queues receive.
    pub rx_queues: u32,
    /// The longest IP packet that it takes, in bytes.
    pub mtu: u32,
    /// What XDP is to be had: `native, zero-copy`; `not known` where the kernel does not say.
    pub xdp: String,
    /// The XDP program that holds it.
    pub program: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// The interface that was named.
    pub interface: Option<String>,
    /// By topic.
    pub findings: Vec<Finding>,
    /// All interfaces of the network namespace.
    pub interfaces: Vec<Overview>,
}

impl Report {
    /// How many findings are so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// The remedies that may be applied at once: each changes a setting of the interface that was named, and nothing
    /// else.
    pub fn safe_remedies(&self) -> impl Iterator<Item = &Remedy> {
        self.findings.iter().filter_map(|finding| finding.remedy.as_ref()).filter(|remedy| remedy.is_safe())
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no interface of that name.
    #[error("there is no interface {name} in this network namespace: {}", listed(there))]
    NoInterface {
        /// The name.
        name: String,
        /// The interfaces there are.
        there: Vec<String>,
    },
    /// The kernel does not answer.
    #[error("{what}")]
    Kernel {
        /// What was being asked.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "it has none at all".into() } else { format!("it has {}", names.join(", ")) }
}

/// [`std::result::Result`] with this module's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Looks at the machine, and at an interface where one is named. Changes nothing.
///
/// # Errors
/// [`Error::NoInterface`]; [`Error::Kernel`] where not even a list of interfaces is to be had.
pub fn examine(interface: Option<&str>) -> Result<Report> {
    let names = facts::interfaces()?;
    if let Some(name) = interface
        && !names.iter().any(|there| there == name)
    {
        return Err(Error::NoInterface { name: name.into(), there: names });
    }
    let files = &Files::Machine;
    let kernel = kernel::Release::of(files);
    let facts = interface.map(Facts::gather).transpose()?;
    let facts = facts.as_ref();
    let cores = cores::allowed(files);
    let workers = facts.map_or(1, |facts| facts.rx_queues().min(cores.len().max(1) as u32));

    let (af_xdp, bpf) = (crate::xsk::ethtool::open_af_xdp(), afx_redirect::bpf_answers());
    let mut findings = kernel::examine(files, &kernel, af_xdp, bpf);
    findings.extend(rights::examine(files, memory::packet_memory(facts), workers));
    findings.extend(memory::examine(files, facts, workers));
    findings.extend(cores::examine(files, workers));
    if let Some(facts) = facts {
        findings.extend(interface::examine(facts));
        findings.extend(driver::examine(facts));
        findings.extend(offloads::examine(files, facts));
        findings.extend(queues::examine(files, facts, &cores));
        findings.extend(peer::examine(facts));
    }
    let interfaces = names.iter().filter_map(|name| Facts::overview(name).ok()).collect();
    Ok(Report { kernel: kernel.text, interface: interface.map(str::to_owned), findings, interfaces })
}

/// As [`examine`], and finds out by trying: attaches a redirect program that takes no packet, in native and in generic
/// mode, and opens an AF_XDP socket on the first queue, in zero-copy and in copy mode, each for a moment.
///
/// Some drivers reset the card for that: the link may go down for a second or two. Afterwards all is as before.
///
/// # Errors
/// As [`examine`].
pub fn examine_by_trying(interface: &str) -> Result<Report> {
    let mut report = examine(Some(interface))?;
    let facts = Facts::gather(interface)?;
    report.findings.extend(trying::examine(&facts));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_examined_and_what_there_is_not_is_refused() {
        let report = examine(Some("lo")).unwrap();
        assert!(report.interfaces.iter().any(|interface| interface.name == "lo" && interface.is_up));
        let native = report.findings.iter().find(|finding| finding.name == "native XDP").unwrap();
        assert_eq!(native.verdict, Verdict::CouldBeBetter, "{native:?}");
        let error = examine(Some("no-such-link")).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no interface no-such-link in this network namespace: it has "),
            "{error}"
        );
        assert!(error.contains("lo"), "{error}");
    }

    #[test]
    fn a_finding_has_a_name_of_its_own() {
        let report = examine(None).unwrap();
        let mut names: Vec<_> = report.findings.iter().map(|finding| finding.name).collect();
        assert!(names.len() > 8, "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), report.findings.len());
        // Only what is good needs no explanation.
        let unexplained = |finding: &&Finding| finding.verdict != Verdict::Good && finding.why.is_empty();
        assert_eq!(report.findings.iter().find(unexplained), None);
    }
}
