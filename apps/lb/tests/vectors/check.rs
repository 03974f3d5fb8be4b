//! What came out beside what another balancer sends, modulo the choice of the real and of the outer source.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config;
use crate::file::{Common, Encap, Selection, Suite, Vector, Vip, Wanted};
use crate::replay::{Line, Outcome};
use crate::wire::{Flow, Outer};

/// Which real each vector went to, by its id.
pub(crate) type Chosen = BTreeMap<String, IpAddr>;

/// Who served the vectors of a suite whose packets begin at `first`.
pub(crate) fn chosen(suite: &Suite, outcome: &Outcome, first: usize) -> Chosen {
    let lines = suite.vectors.iter().zip(&outcome.lines[first..]);
    lines.filter_map(|(vector, line)| Some((vector.id.clone(), line.real?))).collect()
}

/// Compares the vectors of a suite whose packets begin at `first`, and says of each what is wrong. `before` has who was
/// chosen in the suites that it continues.
pub(crate) fn check(
    suite: &Suite,
    common: &Common,
    outcome: &Outcome,
    first: usize,
    before: &Chosen,
) -> Vec<(String, String)> {
    let mut known = before.clone();
    known.extend(chosen(suite, outcome, first));
    let sources = config::sources(suite, common).expect("asked before");
    let mut compare =
        Compare { suite, sources, chosen: known, reals: BTreeMap::new(), entropy: BTreeMap::new() };
    let vectors = suite.vectors.iter().zip(first..);
    let wrong = vectors.filter_map(|(vector, index)| {
        let wrong = compare.vector(vector, &outcome.lines[index], &outcome.output(index)).err()?;
        Some((vector.id.clone(), wrong))
    });
    wrong.collect()
}

struct Compare<'s> {
    suite: &'s Suite,
    sources: [IpNet; 2],
    chosen: Chosen,
    /// Who serves a flow whose real is hashed.
    reals: BTreeMap<Flow, IpAddr>,
    /// The outer source, and GUE's source port, by flow and family.
    entropy: BTreeMap<(Flow, bool), (IpAddr, Option<u16>)>,
}

/// An error that says what is and what should be.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<(), String> {
    if is == should { Ok(()) } else { Err(format!("{what} is {is:x?}, and should be {should:x?}")) }
}

impl Compare<'_> {
    fn vector(&mut self, vector: &Vector, line: &Line, out: &[&[u8]]) -> Result<(), String> {
        let result = match vector.wanted().expect("asked before") {
            Wanted::Encap => self.encap(vector, line, out),
            Wanted::Answer => answer(vector, line, out),
            Wanted::Drop => same("the verdict", &*line.verdict, "drop")
                .and_then(|()| same("what went out", out.len(), 0))
                .and_then(|()| same("whether there is a reason", line.reason.is_some(), true)),
            Wanted::Pass | Wanted::PassModified => {
                same("the verdict", &*line.verdict, "pass").and_then(|()| same("what went out", out.len(), 0))
            }
        };
        let came = line
            .reason
            .as_ref()
            .map_or_else(|| line.verdict.clone(), |reason| format!("{}: {reason}", line.verdict));
        result.map_err(|wrong| format!("{wrong} ({came})"))
    }

    fn encap(&mut self, vector: &Vector, line: &Line, out: &[&[u8]]) -> Result<(), String> {
        same("the verdict", &*line.verdict, "tx")?;
        let [packet] = out else { return Err(format!("{} packets went out", out.len())) };
        let outer = Outer::decode(packet)?;
        let encap = vector.encap.as_ref().expect("it is encapsulated");
        let theirs = vector.output.as_ref().and_then(|packet| packet.get(encap.inner_offset..));
        same("the inner packet", Some(&*outer.inner), theirs)?;
        self.header(encap, &outer, packet.len() - outer.inner.len())?;

        same("the real of the line", line.real, Some(outer.destination))?;
        same("whether it is said how", line.how.is_some(), true)?;
        if let Some(vip) = vector.vip.as_ref().and_then(|name| self.vip(name)) {
            same("the VIP", line.vip.as_deref(), Some(&*ours(vip)))?;
        }
        let flow = Flow::of(&outer.inner);
        if let Some(flow) = flow {
            let entropy = (outer.source, outer.ports.map(|ports| ports.0));
            let first = *self.entropy.entry((flow, outer.source.is_ipv4())).or_insert(entropy);
            same("the flow's outer source", entropy, first)?;
        }
        if !vector.real_allowed.is_empty() && !vector.real_allowed.contains(&outer.destination) {
            return Err(format!("{} is not allowed: {:?}", outer.destination, vector.real_allowed));
        }
        vector
            .real_selection
            .as_ref()
            .map_or(Ok(()), |selection| self.real(selection, outer.destination, flow))
    }

    fn header(&self, encap: &Encap, outer: &Outer, inner_offset: usize) -> Result<(), String> {
        same("the destination MAC address", &outer.eth_dst, &encap.eth_dst)?;
        same("the source MAC address", &outer.eth_src, &encap.eth_src)?;
        same("the TTL", outer.ttl, encap.ttl)?;
        same("the TOS", outer.tos, encap.tos)?;
        same("the IP id", outer.ip_id, encap.ip_id.unwrap_or(0))?;
        same("flags and fragment offset", outer.frag, encap.frag.unwrap_or(0))?;
        same("the flow label", outer.flow_label, encap.flow_label.unwrap_or(0))?;
        if outer.destination.is_ipv4() == encap.outer_dst.is_ipv4() {
            same("the inner packet's place", inner_offset, encap.inner_offset)?;
        }
        let prefix = self.sources[usize::from(outer.source.is_ipv6())];
        if !prefix.contains(&outer.source) {
            return Err(format!("the outer source is {}, which is not in {prefix}", outer.source));
        }
        if prefix.prefix_len() == prefix.max_prefix_len()
            && outer.source.is_ipv4() == encap.outer_src.is_ipv4()
        {
            same("the outer source", outer.source, encap.outer_src)?;
        }
        let config = &self.suite.config;
        let port = (config.encap == "gue").then(|| config.gue_dport.unwrap_or(6080));
        same("GUE's port", outer.ports.map(|ports| ports.1), port)
    }

    fn real(&mut self, selection: &Selection, real: IpAddr, flow: Option<Flow>) -> Result<(), String> {
        if selection.must_not_be.contains(&real) {
            return Err(format!("the real must not be {real}"));
        }
        match &*selection.mode {
            "fixed" => same("the real", Some(real), selection.real),
            "consistent_hash" => match flow {
                Some(flow) => same("the flow's real", real, *self.reals.entry(flow).or_insert(real)),
                None => Ok(()),
            },
            "same_as" => {
                let of = |id: &String| self.chosen.get(id).copied();
                let others: Vec<_> = selection.ids.iter().filter_map(of).collect();
                match others.contains(&real) {
                    true => Ok(()),
                    false => {
                        Err(format!("the real is {real}, and that of {:?} is {others:?}", selection.ids))
                    }
                }
            }
            mode => Err(format!("the real is chosen by \"{mode}\": what is that?")),
        }
    }

    /// The VIP that a vector names.
    fn vip(&self, name: &str) -> Option<&Vip> {
        let theirs = |vip: &Vip| match vip.prefix_len {
            Some(len) => format!("{}/{len}:{}/{}", vip.addr, vip.port, vip.proto),
            None => format!("{}:{}/{}", vip.addr, vip.port, vip.proto),
        };
        self.suite.config.vips.iter().find(|vip| theirs(vip) == name)
    }
}

/// A VIP as ours are written.
fn ours(vip: &Vip) -> String {
    let network = config::network(vip);
    let is_host = network.prefix_len() == network.max_prefix_len();
    let address = if is_host { network.addr().to_string() } else { network.to_string() };
    let address = if vip.addr.is_ipv4() { address } else { format!("[{address}]") };
    let port = if vip.port == 0 { "*".to_owned() } else { vip.port.to_string() };
    format!("{address}:{port}/{}", vip.proto)
}

/// An answer to the client: to the byte. Of a packet that is too big it comes with a drop.
fn answer(vector: &Vector, line: &Line, out: &[&[u8]]) -> Result<(), String> {
    if line.verdict == "pass" {
        return Err("the verdict is pass".into());
    }
    let [packet] = out else { return Err(format!("{} packets went out", out.len())) };
    same("the answer", Some(*packet), vector.output.as_deref())
}
