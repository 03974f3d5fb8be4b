//! What `receive` and `echo` have in common: which packets they take, and for how long they run.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afx::port::{Mode, ModeWanted, Protocol, Rule, Steering, XdpPort};
use afx::{Idle, Running, Runtime, RuntimeBuilder};
use clap::ValueEnum;
use ipnet::IpNet;

/// Which packets are taken from an interface, and how.
#[derive(clap::Args, Debug)]
pub(crate) struct Source {
    /// The interface that packets come on.
    #[arg(value_name = "INTERFACE")]
    pub(crate) interface: String,
    /// How packets come from the card: zero-copy where it works, unless said.
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    mode: ModeOption,
    /// Only these queues, such as `0,1`: all unless said. Packets on others stay with the kernel.
    #[arg(long, value_delimiter = ',', value_name = "QUEUES")]
    queues: Vec<u32>,
    /// Only packets to an address: udp:ADDRESS:PORT, tcp:ADDRESS, icmp:ADDRESS or any:ADDRESS, where an address may be a
    /// prefix, and an IPv6 address with a port stands in brackets. May be given several times. All that comes on the
    /// queues unless said.
    #[arg(long = "match", value_name = "RULE")]
    rules: Vec<RuleOption>,
    /// Takes all that comes also on the interface of the default route: every connection to this machine, SSH too.
    #[arg(long)]
    force: bool,
    /// Spins instead of sleeping while nothing comes: the least latency, for a core per worker.
    #[arg(long)]
    busy: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
enum ModeOption {
    #[default]
    Auto,
    ZeroCopy,
    Copy,
}

impl Source {
    /// A runtime that has the interface as its only port.
    pub(crate) fn runtime(&self) -> RuntimeBuilder {
        let steering = match self.rules.as_slice() {
            [] => Steering::All,
            rules => Steering::Match(rules.iter().map(|rule| rule.0).collect()),
        };
        let mut port = XdpPort::new(&self.interface, steering).mode(match self.mode {
            ModeOption::Auto => ModeWanted::Auto,
            ModeOption::ZeroCopy => ModeWanted::Demand(Mode::ZeroCopy),
            ModeOption::Copy => ModeWanted::Demand(Mode::Copy),
        });
        if !self.queues.is_empty() {
            port = port.queues(self.queues.iter().copied());
        }
        if self.force {
            port = port.force();
        }
        let idle = if self.busy { Idle::Busy } else { Idle::ADAPTIVE };
        Runtime::builder().port(port).idle(idle)
    }

    /// How the interface came up, in a line, and the mode that all its queues have: `copy` or `zero-copy`.
    pub(crate) fn describe(running: &Running) -> (String, String) {
        let facts: Vec<_> = running.status().into_iter().flat_map(|status| status.facts).collect();
        let line =
            facts.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ");
        let queue = facts.iter().find(|(name, _)| name.starts_with("queue "));
        let mode = queue.and_then(|(_, value)| value.split(',').next()).unwrap_or("unknown").to_owned();
        (line, mode)
    }
}

/// A rule as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RuleOption(Rule);

impl FromStr for RuleOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str =
            "right would be udp:10.0.0.2:9, tcp:[2001:db8::1]:80, icmp:10.0.0.0/24 or any:10.0.0.2";
        let (protocol, end) = text.split_once(':').ok_or_else(|| format!("no protocol; {RIGHT}"))?;
        let protocol = match protocol {
            "udp" => Some(Protocol::UDP),
            "tcp" => Some(Protocol::TCP),
            "icmp" => None,
            "any" => None,
            other => return Err(format!("protocol `{other}`: udp, tcp, icmp or any; {RIGHT}")),
        };
        let (address, port) = split_port(end).ok_or_else(|| format!("`{end}` is no address; {RIGHT}"))?;
        let port = port
            .map(|port| port.parse::<u16>().map_err(|_| format!("port `{port}`: 1 to 65535 is right")))
            .transpose()?;
        let net = address
            .parse::<IpNet>()
            .or_else(|_| address.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| format!("`{address}` is no address; {RIGHT}"))?;
        let protocol = match (text.starts_with("icmp:"), net) {
            (false, _) => protocol,
            (true, IpNet::V4(_)) => Some(Protocol::ICMP),
            (true, IpNet::V6(_)) => Some(Protocol::ICMPV6),
        };
        Rule::new(net, port, protocol).map(Self).map_err(|error| error.to_string())
    }
}

/// The address, and the port behind it if there is one.
fn split_port(end: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = end.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((address, Some(port))),
            None => rest.is_empty().then_some((address, None)),
        };
    }
    match end.split_once(':') {
        Some((address, port)) if !port.contains(':') => Some((address, Some(port))),
        _ => Some((end, None)),
    }
}

/// When to end; on Ctrl-C and SIGTERM in any case.
#[derive(clap::Args, Debug)]
pub(crate) struct Until {
    /// Ends after this time, such as `10s` or `5m`.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    time: Option<Duration>,
    /// Ends once so many packets were counted; those that come until it has ended count as well.
    #[arg(long, value_name = "PACKETS")]
    count: Option<u64>,
}

/// Says when to end.
pub(crate) struct End {
    signalled: Arc<AtomicBool>,
    time: Option<Duration>,
    count: Option<u64>,
    /// End when nothing has come for so long after something had.
    idle: Option<Duration>,
    started: Instant,
    counted: u64,
    /// When packets were last seen to have come.
    changed: Instant,
}

impl End {
    /// From now on, signals end the work instead of the process.
    ///
    /// # Errors
    /// Where they cannot be had.
    pub(crate) fn new(until: &Until, idle: Option<Duration>) -> std::io::Result<Self> {
        let signalled = Arc::new(AtomicBool::new(false));
        for signal in signal_hook::consts::TERM_SIGNALS {
            signal_hook::flag::register(*signal, signalled.clone())?;
        }
        let now = Instant::now();
        let Until { time, count } = *until;
        Ok(Self { signalled, time, count, idle, started: now, counted: 0, changed: now })
    }

    /// The work begins now: the time counts from here.
    pub(crate) fn begin(&mut self) {
        self.started = Instant::now();
    }

    /// Whether it is time, where so many packets were counted.
    pub(crate) fn is_due(&mut self, counted: u64) -> bool {
        let now = Instant::now();
        if counted != self.counted {
            (self.counted, self.changed) = (counted, now);
        }
        let is_idle = counted > 0 && self.idle.is_some_and(|idle| now - self.changed >= idle);
        self.signalled.load(Ordering::Relaxed)
            || self.time.is_some_and(|time| now - self.started >= time)
            || self.count.is_some_and(|count| counted >= count)
            || is_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Rule, String> {
        text.parse::<RuleOption>().map(|rule| rule.0)
    }

    #[test]
    fn rules_are_written_as_one_thinks_of_them() {
        let right =
            |net: &str, port, protocol| Rule::new(net.parse::<IpNet>().unwrap(), port, protocol).unwrap();
        for (text, net, port, protocol) in [
            ("udp:10.0.0.2:9", "10.0.0.2/32", Some(9), Some(Protocol::UDP)),
            ("udp:10.0.0.0/24:9", "10.0.0.0/24", Some(9), Some(Protocol::UDP)),
            ("tcp:10.0.0.2", "10.0.0.2/32", None, Some(Protocol::TCP)),
            ("tcp:[2001:db8::1]:80", "2001:db8::1/128", Some(80), Some(Protocol::TCP)),
            ("udp:[2001:db8::/64]", "2001:db8::/64", None, Some(Protocol::UDP)),
            ("any:2001:db8::1", "2001:db8::1/128", None, None),
            ("icmp:10.0.0.2", "10.0.0.2/32", None, Some(Protocol::ICMP)),
            ("icmp:2001:db8::1", "2001:db8::1/128", None, Some(Protocol::ICMPV6)),
        ] {
            assert_eq!(rule(text), Ok(right(net, port, protocol)), "{text}");
        }
    }

    #[test]
    fn rules_that_are_wrong_say_what_would_be_right() {
        for (text, said) in [
            ("10.0.0.2", "no protocol; right would be udp:10.0.0.2:9"),
            ("sctp:10.0.0.2", "protocol `sctp`: udp, tcp, icmp or any"),
            ("udp:10.0.0.2:99999", "port `99999`: 1 to 65535 is right"),
            ("udp:10.0.0.2:0", "leave the port out"),
            ("udp:router:9", "`router` is no address"),
            ("udp:[2001:db8::1]9", "is no address"),
            ("icmp:10.0.0.2:9", "has no ports"),
        ] {
            let error = rule(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_end_is_when_it_was_asked_for() {
        let until = |time, count| Until { time, count };
        let end = |until: Until, idle| End::new(&until, idle).unwrap();
        let mut never = end(until(None, None), None);
        assert!(!never.is_due(0) && !never.is_due(u64::MAX));
        let mut counted = end(until(None, Some(10)), None);
        assert!(!counted.is_due(9) && counted.is_due(10));
        let mut timed = end(until(Some(Duration::from_millis(1)), None), None);
        timed.begin();
        std::thread::sleep(Duration::from_millis(2));
        assert!(timed.is_due(0));
        let mut idle = end(until(None, None), Some(Duration::from_millis(1)));
        std::thread::sleep(Duration::from_millis(2));
        assert!(!idle.is_due(0), "nothing has come yet");
        assert!(!idle.is_due(5));
        std::thread::sleep(Duration::from_millis(2));
        assert!(idle.is_due(5));
    }
}
