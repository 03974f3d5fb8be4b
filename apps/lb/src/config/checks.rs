//! Health checks: how a VIP's reals are asked whether they are well.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::DeValue;

use super::diagnostic::Problem;
use super::reader::Section;
use super::times::time;
use super::values::{self, integer, string};

/// The health check of a VIP's reals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) probe: Probe,
    /// From one check of a real to the next.
    pub(crate) interval: Duration,
    /// Not longer than the interval: no two checks of a real at a time.
    pub(crate) timeout: Duration,
    /// After so many good ones in a row a real is up.
    pub(crate) rise: u32,
    /// After so many bad ones in a row a real is down.
    pub(crate) fall: u32,
    /// By how much the interval varies, in per cent of it, so that checks do not come all at once.
    pub(crate) jitter: u32,
    pub(crate) flap: Flap,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Whether it accepts a connection.
    Tcp { port: u16 },
    /// Whether it answers a request for `path` with one of these statuses. `host` is the name that it is asked by,
    /// by default its address.
    Http { port: u16, path: String, host: Option<String>, status: Vec<RangeInclusive<u16>>, tls: Tls },
    /// Whether it answers an echo request.
    Icmp,
    /// Whether a program, named by its whole path, ends with status 0. `port` is for the program to know.
    Command { command: Vec<String>, port: Option<u16> },
}

/// Whether HTTP is spoken over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    Off,
    /// With the certificate verified, or whatever it is.
    On {
        verify: bool,
    },
}

/// What becomes of a real that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flap {
    /// If it went down so many times... 0 for never mind.
    pub(crate) limit: u32,
    /// ...within this time...
    pub(crate) window: Duration,
    /// ...it is kept down for this one.
    pub(crate) hold: Duration,
}

impl Probe {
    /// As files name it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Tcp { .. } => Kind::Tcp,
            Self::Http { tls: Tls::Off, .. } => Kind::Http,
            Self::Http { tls: Tls::On { .. }, .. } => Kind::Https,
            Self::Icmp => Kind::Icmp,
            Self::Command { .. } => Kind::Command,
        }
    }
}

super::words! {
    /// The kinds of checks, as files name them.
    Kind { Tcp = "tcp", Http = "http", Https = "https", Icmp = "icmp", Command = "command" }
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=HOUR;
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=HOUR;
const FLAP_TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Reads `[vip.check]`. `vip_port` is the VIP's: none for any, unknown if the file has that wrong.
pub(super) fn read(section: &Section<'_>, vip_port: Option<Option<u16>>) -> Option<Check> {
    let kind = section.required("type", |value| values::word(value, Kind::WORDS));
    let interval =
        section.value("interval", |value| time(value, INTERVALS)).unwrap_or(Duration::from_secs(2));
    let timeout = section.optional("timeout", |value| time(value, TIMEOUTS));
    let number = |key, range, default| {
        section.value(key, |value| integer(value, range)).map_or(default, |number| number as u32)
    };
    let (rise, fall) = (number("rise", 1..=1000, 2), number("fall", 1..=1000, 3));
    let jitter = number("jitter", 0..=50, 10);
    let limit = number("flap_limit", 0..=1000, 0);
    let flap_time = |key| section.value(key, |value| time(value, FLAP_TIMES)).unwrap_or(MINUTE);
    let flap = Flap { limit, window: flap_time("flap_window"), hold: flap_time("flap_hold") };
    let timeout = match timeout {
        Some(timeout) if *timeout.get_ref() > interval => {
            section.error_at(
                timeout.span(),
                Problem::new(
                    "the timeout is longer than the interval: a check would not be over when the next is due",
                )
                .help(format!("make it {} at most, or the interval longer", super::Time(interval))),
            );
            interval
        }
        Some(timeout) => timeout.into_inner(),
        None => interval.min(Duration::from_secs(1)),
    };
    let probe = read_probe(section, kind.map(toml::Spanned::into_inner), vip_port);
    section.finish();
    Some(Check { probe: probe?, interval, timeout, rise, fall, jitter, flap })
}

fn read_probe(section: &Section<'_>, kind: Option<Kind>, vip_port: Option<Option<u16>>) -> Option<Probe> {
    let port = section.optional("port", values::port);
    let path = section.optional("path", path);
    let host = section.optional("host", host);
    let status = section.optional("status", statuses);
    let verify = section.optional("verify", values::boolean);
    let command = section.optional("command", command);
    // What is to be asked is not known: nothing can be said of what belongs to it.
    let kind = kind?;
    let belongs = |key: &str, span: Option<Range<usize>>, kinds: &[Kind]| {
        if let Some(span) = span.filter(|_| !kinds.contains(&kind)) {
            let what = format!("`{key}` is nothing to a check of type \"{kind}\"");
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
            let help = format!("leave it out; it belongs to {}", kinds.join(" and "));
            section.error_at(span, Problem::new(what).help(help));
        }
    };
    let web = [Kind::Http, Kind::Https];
    belongs("port", port.as_ref().map(|it| it.span()), &[Kind::Tcp, Kind::Http, Kind::Https, Kind::Command]);
    belongs("path", path.as_ref().map(|it| it.span()), &web);
    belongs("host", host.as_ref().map(|it| it.span()), &web);
    belongs("status", status.as_ref().map(|it| it.span()), &web);
    belongs("verify", verify.as_ref().map(|it| it.span()), &[Kind::Https]);
    belongs("command", command.as_ref().map(|it| it.span()), &[Kind::Command]);

    let port = port.map(toml::Spanned::into_inner).or(vip_port.flatten());
    let needed = || {
        if port.is_none() && vip_port == Some(None) && !section.has("port") {
            let what = format!("a check of type \"{kind}\" needs a port, and the VIP's is any");
            section.error(Problem::new(what).help("say which one, such as `port = 80`"));
        }
        port
    };
    Some(match kind {
        Kind::Tcp => Probe::Tcp { port: needed()? },
        Kind::Http | Kind::Https => Probe::Http {
            port: needed()?,
            path: path.map_or_else(|| "/".to_owned(), toml::Spanned::into_inner),
            host: host.map(toml::Spanned::into_inner),
            status: status.map_or_else(|| vec![200..=399], toml::Spanned::into_inner),
            tls: match kind {
                Kind::Https => Tls::On { verify: verify.is_none_or(toml::Spanned::into_inner) },
                _ => Tls::Off,
            },
        },
        Kind::Icmp => Probe::Icmp,
        Kind::Command => {
            if !section.has("command") {
                let what = "`command` is missing: what is to be run?";
                let help =
                    "add the program and its arguments, such as `command = [\"/usr/local/bin/check\"]`";
                section.error(Problem::new(what).help(help));
            }
            Probe::Command { command: command?.into_inner(), port }
        }
    })
}

fn path(value: &DeValue<'_>) -> Result<String, Problem> {
    let example = "expected is what to ask for, such as \"/\" or \"/health\"";
    let path = string(value, example)?;
    if !path.starts_with('/') {
        return Err(Problem::new(format!("the path \"{path}\" does not begin with a slash")).help(example));
    }
    // RFC 9112, section 3.2: what is none of these would end the request's line, or has to be escaped.
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!("the path {path:?} has a character that a request cannot have");
        return Err(Problem::new(what).help("write blanks and what is not ASCII as %20 and the like"));
    }
    Ok(path.to_owned())
}

fn host(value: &DeValue<'_>) -> Result<String, Problem> {
    let example = "expected is a name or an address, such as \"www.example.com\"";
    let host = string(value, example)?;
    let is_right = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || host.len() > 253 || !host.chars().all(is_right) {
        return Err(Problem::new(format!("{host:?} is no name of a host")).help(example));
    }
    Ok(host.to_owned())
}

/// One status or range of them, or a list.
fn statuses(value: &DeValue<'_>) -> Result<Vec<RangeInclusive<u16>>, Problem> {
    let Some(array) = value.as_array() else { return Ok(vec![status(value)?]) };
    if array.is_empty() {
        return Err(Problem::new("the list of statuses is empty").help("name some, or leave `status` out"));
    }
    array.iter().map(|element| status(element.get_ref())).collect()
}

fn status(value: &DeValue<'_>) -> Result<RangeInclusive<u16>, Problem> {
    let example = "expected is \"200\", \"200-299\", or a list of these, from 100 to 599";
    let text = string(value, example)?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| is_number && (100..=599).contains(number))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(Problem::new(format!("\"{text}\" is no HTTP status, and no range of them")).help(example)),
    }
}

fn command(value: &DeValue<'_>) -> Result<Vec<String>, Problem> {
    let example =
        "expected is a list of the program and its arguments, such as [\"/usr/local/bin/check\", \"arg\"]";
    let Some(array) = value.as_array() else {
        return Err(Problem::new(format!("{} where a list is expected", values::kind(value))).help(example));
    };
    let words: Vec<String> = array
        .iter()
        .map(|word| string(word.get_ref(), example).map(str::to_owned))
        .collect::<Result<_, _>>()?;
    let Some(program) = words.first() else {
        return Err(Problem::new("the command is empty").help(example));
    };
    if !program.starts_with('/') {
        let what = format!("the program {program:?} is not named by its whole path");
        return Err(Problem::new(what).help(example));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(Problem::new("a program's argument cannot have the character 0").help(example));
    }
    Ok(words)
}
