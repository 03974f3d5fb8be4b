//! The form of a file of packet vectors: suites of packets, what another balancer was set up with, and what it did.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is the same for all suites of a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Common {
    pub(crate) encap_src_v4: Option<IpAddr>,
    pub(crate) encap_src_v6: Option<IpAddr>,
    pub(crate) max_frame: Option<u32>,
    pub(crate) ring_size: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) vectors: Vec<Vector>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    pub(crate) encap: String,
    #[serde(default)]
    pub(crate) vips: Vec<Vip>,
    pub(crate) gue_dport: Option<u16>,
    #[serde(default)]
    pub(crate) server_id_map: Vec<ServerId>,
    #[serde(default)]
    pub(crate) src_routing: Vec<SourceRoute>,
    pub(crate) runs_after: Option<String>,
    pub(crate) max_frame: Option<u32>,
    pub(crate) mtu_advertised: Option<u32>,
    #[serde(flatten)]
    pub(crate) others: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vip {
    pub(crate) addr: IpAddr,
    pub(crate) prefix_len: Option<u8>,
    /// 0 for any.
    pub(crate) port: u16,
    pub(crate) proto: String,
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    #[serde(default)]
    pub(crate) reals: Vec<Real>,
    #[serde(default)]
    pub(crate) down_reals: Vec<DownReal>,
    #[serde(flatten)]
    pub(crate) others: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Real {
    pub(crate) addr: IpAddr,
    #[serde(default = "one")]
    pub(crate) weight: u32,
    /// On the balancer's own machine.
    #[serde(default)]
    pub(crate) local: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DownReal {
    pub(crate) addr: IpAddr,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ServerId {
    pub(crate) real: IpAddr,
    pub(crate) id: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SourceRoute {
    pub(crate) prefix: String,
    pub(crate) real: IpAddr,
}

/// A packet, and what becomes of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) verdict: String,
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(rename = "input_hex", deserialize_with = "bytes")]
    pub(crate) input: Vec<u8>,
    #[serde(rename = "output_hex", default, deserialize_with = "optional_bytes")]
    pub(crate) output: Option<Vec<u8>>,
    pub(crate) vip: Option<String>,
    pub(crate) encap: Option<Encap>,
    #[serde(default)]
    pub(crate) real_allowed: Vec<IpAddr>,
    pub(crate) real_selection: Option<Selection>,
}

/// What the outer header says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Encap {
    pub(crate) outer_src: IpAddr,
    pub(crate) outer_dst: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    pub(crate) ip_id: Option<u16>,
    /// Flags and offset.
    pub(crate) frag: Option<u16>,
    pub(crate) flow_label: Option<u32>,
    pub(crate) eth_dst: String,
    pub(crate) eth_src: String,
    pub(crate) inner_offset: usize,
}

/// Which real it has to be.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Selection {
    pub(crate) mode: String,
    pub(crate) real: Option<IpAddr>,
    #[serde(default)]
    pub(crate) ids: Vec<String>,
    #[serde(default)]
    pub(crate) must_not_be: Vec<IpAddr>,
}

fn one() -> u32 {
    1
}

/// What a vector asks for, told from what it says rather than from what its kind is called: kinds have many names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To a real, in an outer header.
    Encap,
    /// Back to the client: just these bytes, besides what becomes of the packet itself.
    Answer,
    Drop,
    /// To the kernel, as it came.
    Pass,
    /// To the kernel, changed.
    PassModified,
}

impl Vector {
    /// None where that cannot be told.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let unchanged = self.output.as_ref().is_none_or(|output| *output == self.input);
        match (&*self.verdict, &self.encap) {
            ("XDP_TX", Some(_)) => self.output.as_ref().map(|_| Wanted::Encap),
            ("XDP_TX", None) => self.output.as_ref().map(|_| Wanted::Answer),
            ("XDP_DROP", None) => Some(Wanted::Drop),
            ("XDP_PASS", None) if unchanged => Some(Wanted::Pass),
            ("XDP_PASS", None) => Some(Wanted::PassModified),
            _ => None,
        }
    }
}

fn bytes<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<u8>, D::Error> {
    let hex = String::deserialize(source)?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    bytes.ok_or_else(|| D::Error::custom(format!("{hex:?} is no hexadecimal number of whole bytes")))
}

fn optional_bytes<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Vec<u8>>, D::Error> {
    #[derive(Deserialize)]
    struct Bytes(#[serde(deserialize_with = "bytes")] Vec<u8>);
    Ok(Option::<Bytes>::deserialize(source)?.map(|bytes| bytes.0))
}

/// A suite, or the name of one that is of another form and why it is.
pub(crate) type Read = Result<Suite, (String, String)>;

/// The suites of a file, or why it is no file of these.
pub(crate) fn suites(text: &str) -> Result<(Common, Vec<Read>), String> {
    let root: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let suites = root.get("suites").and_then(Value::as_array).ok_or("there are no suites in it")?;
    let common = root.get("config").cloned().map(serde_json::from_value).transpose();
    let common: Option<Common> = common.map_err(|error| error.to_string())?;
    let suite = |value: &Value| {
        let name = value.get("name").and_then(Value::as_str).unwrap_or("a suite without a name");
        Suite::deserialize(value)
            .map_err(|error| (name.to_owned(), format!("it is of another form: {error}")))
    };
    Ok((common.unwrap_or_default(), suites.iter().map(suite).collect()))
}
