//! How the balancer can be asked and told while it runs.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml::de::DeValue;

use super::diagnostic::Problem;
use super::reader::Section;
use super::values;
use super::{Control, Privileges};

/// Where the command socket is unless the file says otherwise.
const SOCKET: &str = "/run/afx-lb.sock";

/// The longest path of a Unix socket in bytes: `sun_path` of unix(7) has 108, the last of them 0.
const LONGEST_PATH: usize = 107;

pub(super) fn read(root: &Section<'_>) -> Control {
    let mut control = Control { socket: Some(SOCKET.into()), metrics: None, privileges: Privileges::Reload };
    let Some(section) = root.section("control") else { return control };
    if let Some(path) = section.value("socket", socket) {
        control.socket = path;
    }
    if let Some(address) = section.value("metrics", metrics) {
        control.metrics = address;
    }
    if let Some(privileges) = section.value("privileges", |value| values::word(value, Privileges::WORDS)) {
        control.privileges = privileges;
    }
    section.finish();
    control
}

fn socket(value: &DeValue<'_>) -> Result<Option<PathBuf>, Problem> {
    let example = "expected is an absolute path such as \"/run/afx-lb.sock\", or \"none\"";
    let text = values::string(value, example)?;
    if text == "none" {
        return Ok(None);
    }
    if !text.starts_with('/') {
        return Err(Problem::new(format!("the socket's path \"{text}\" is not absolute")).help(example));
    }
    if text.len() > LONGEST_PATH {
        return Err(Problem::new(format!("the socket's path has {} bytes", text.len()))
            .help(format!("a Unix socket's has at most {LONGEST_PATH}: choose a shorter one")));
    }
    if text.ends_with('/') || text.contains('\0') {
        return Err(Problem::new(format!("{text:?} cannot be the path of a socket")).help(example));
    }
    Ok(Some(text.into()))
}

fn metrics(value: &DeValue<'_>) -> Result<Option<SocketAddr>, Problem> {
    let example =
        "expected is an address and a port such as \"127.0.0.1:9100\" or \"[::1]:9100\", or \"none\"";
    let text = values::string(value, example)?;
    if text == "none" {
        return Ok(None);
    }
    let address: SocketAddr = text.parse().map_err(|_| {
        let help = match text.parse::<IpAddr>() {
            Ok(address) => format!("the port is missing: write it as \"{}\"", SocketAddr::new(address, 9100)),
            Err(_) => example.to_owned(),
        };
        Problem::new(format!("\"{text}\" is no address with a port")).help(help)
    })?;
    if address.port() == 0 {
        return Err(Problem::new("port 0 is no port to be found at").help("expected is one from 1 to 65535"));
    }
    Ok(Some(address))
}
