//! What the kernel tells of an interface, read from `ip -j`.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::link::Mac;
use crate::tool;

/// The kernel's counters of an interface since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PacketCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Received packets dropped by the kernel before any protocol saw them.
    pub rx_dropped: u64,
    /// Receive errors.
    pub rx_errors: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets dropped instead of being sent.
    pub tx_dropped: u64,
    /// Send errors.
    pub tx_errors: u64,
}

/// An XDP program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct XdpProgram {
    /// The kernel's id of the program.
    pub id: u32,
    /// How it is attached.
    pub mode: XdpMode,
}

/// How an XDP program is attached (`XDP_ATTACHED_*` in the kernel's `include/uapi/linux/if_link.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum XdpMode {
    /// By the driver.
    Native,
    /// By the stack, after the driver.
    Generic,
    /// On the card.
    Offloaded,
    /// Several at once.
    Multiple,
}

impl Host {
    /// Has all that leaves by an interface leave by one of its queues, whatever core sends it (XPS,
    /// `Documentation/networking/scaling.rst`). On a veth the peer receives it on the queue of the same number.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: no such interface or queue, or it has but one.
    pub fn send_by_queue(&self, interface: &str, queue: u32) -> Result<()> {
        let set = || -> std::io::Result<()> {
            let cpus = std::fs::read_to_string("/sys/devices/system/cpu/present")?;
            let last: u32 =
                cpus.trim().rsplit(['-', ',']).next().and_then(|cpu| cpu.parse().ok()).unwrap_or(0);
            // Words of 32 bits, those of the first CPUs last.
            let word = |word: u32| format!("{:08x}", u32::MAX >> (32 - (last + 1 - 32 * word).min(32)));
            let all: Vec<String> = (0..=last / 32).rev().map(word).collect();
            let wanted = format!("tx-{queue}");
            for entry in std::fs::read_dir(format!("/sys/class/net/{interface}/queues"))? {
                let entry = entry?;
                let name = entry.file_name();
                if name.to_string_lossy().starts_with("tx-") {
                    let mask = if name == *wanted { all.join(",") } else { "0".to_owned() };
                    std::fs::write(entry.path().join("xps_cpus"), mask)?;
                }
            }
            std::fs::metadata(format!("/sys/class/net/{interface}/queues/{wanted}")).map(drop)
        };
        let what = format!("choosing queue {queue} of {interface} on {self}");
        self.run(set)?.map_err(Error::io(what))
    }
}

/// What `ip -j -s link show` says of one interface, as far as it is needed.
#[derive(Debug, Deserialize)]
pub(crate) struct Description {
    ifname: String,
    #[serde(default)]
    address: String,
    xdp: Option<Xdp>,
    stats64: Option<Stats>,
}

#[derive(Debug, Deserialize)]
struct Xdp {
    mode: u32,
    prog: Option<Program>,
    #[serde(default)]
    attached: Vec<Xdp>,
}

#[derive(Debug, Deserialize)]
struct Program {
    id: u32,
}

#[derive(Debug, Deserialize)]
struct Stats {
    rx: Direction,
    tx: Direction,
}

#[derive(Debug, Deserialize)]
struct Direction {
    packets: u64,
    bytes: u64,
    dropped: u64,
    errors: u64,
}

impl Description {
    pub(crate) fn mac(&self) -> Result<Mac> {
        self.address.parse()
    }

    pub(crate) fn counters(&self) -> Result<PacketCounters> {
        let Some(Stats { rx, tx }) = &self.stats64 else {
            return Err(Error::invalid("interface", &self.ifname, "`ip -s link` shows no counters for it"));
        };
        Ok(PacketCounters {
            rx_packets: rx.packets,
            rx_bytes: rx.bytes,
            rx_dropped: rx.dropped,
            rx_errors: rx.errors,
            tx_packets: tx.packets,
            tx_bytes: tx.bytes,
            tx_dropped: tx.dropped,
            tx_errors: tx.errors,
        })
    }

    pub(crate) fn xdp(&self) -> Option<XdpProgram> {
        let xdp = self.xdp.as_ref()?;
        let mode = match xdp.mode {
            0 => return None,
            1 => XdpMode::Native,
            2 => XdpMode::Generic,
            3 => XdpMode::Offloaded,
            _ => XdpMode::Multiple,
        };
        let first = || xdp.attached.iter().find_map(|attached| attached.prog.as_ref());
        Some(XdpProgram { id: xdp.prog.as_ref().or_else(first)?.id, mode })
    }
}

pub(crate) fn describe(host: &Host, interface: &str) -> Result<Description> {
    let found = all(host)?.into_iter().find(|found| found.ifname == interface);
    found.ok_or_else(|| unknown(host, interface))
}

pub(crate) fn names(host: &Host) -> Result<Vec<String>> {
    Ok(all(host)?.into_iter().map(|found| found.ifname).filter(|name| name != "lo").collect())
}

pub(crate) fn unknown(host: &Host, interface: &str) -> Error {
    match names(host) {
        Ok(known) => {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::Unknown {
                what: "interface",
                name: interface.to_owned(),
                known: format!("{known} (on {host})"),
            }
        }
        Err(error) => error,
    }
}

/// One interface's addresses, for the list of networks.
#[derive(Debug, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) ifname: String,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    local: Option<String>,
    prefixlen: Option<u8>,
    scope: Option<String>,
}

impl Addresses {
    /// Those that are not link-local, with their prefix lengths.
    pub(crate) fn global(&self) -> Vec<String> {
        let text = |address: &Address| match (&address.local, address.prefixlen) {
            (Some(local), Some(length)) if address.scope.as_deref() != Some("link") => {
                Some(format!("{local}/{length}"))
            }
            _ => None,
        };
        self.addr_info.iter().filter_map(text).collect()
    }
}

pub(crate) fn addresses(host: &Host) -> Result<Vec<Addresses>> {
    let text = tool::run(None, "ip", &["-n", host.namespace(), "-j", "address", "show"], "")?;
    parse(&text)
}

fn all(host: &Host) -> Result<Vec<Description>> {
    let text = tool::run(None, "ip", &["-n", host.namespace(), "-j", "-s", "link", "show"], "")?;
    parse(&text)
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> Result<Vec<T>> {
    // Without a single interface `ip` prints nothing at all.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|error| Error::io("understanding what `ip -j` printed")(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdp_modes_are_told_apart() {
        let text = r#"[
            {"ifname":"a","xdp":{"mode":1,"prog":{"id":7,"tag":"x","jited":1}}},
            {"ifname":"b","xdp":{"mode":2,"prog":{"id":8}}},
            {"ifname":"c"},
            {"ifname":"d","xdp":{"mode":4,"attached":[{"mode":3},{"mode":1,"prog":{"id":9}}]}}
        ]"#;
        let found: Vec<_> = parse::<Description>(text).unwrap().iter().map(Description::xdp).collect();
        let program = |id, mode| Some(XdpProgram { id, mode });
        let expected =
            [program(7, XdpMode::Native), program(8, XdpMode::Generic), None, program(9, XdpMode::Multiple)];
        assert_eq!(found, expected);
    }
}
