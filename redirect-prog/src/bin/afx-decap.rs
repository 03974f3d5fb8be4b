//! `afx-decap`: takes the outer header off IP-in-IP packets that a load balancer sends to this server, until killed.
use std::error::Error;
use std::net::IpAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use afx_redirect::{AttachMode, Decap, TunnelEnds, interface_index};

const USAGE: &str = "\
usage: afx-decap [--native | --generic] INTERFACE [ADDRESS]...

Takes the outer header off IP-in-IP packets that arrive on INTERFACE, and lets the
stack receive the packet within. With ADDRESSes, only off packets sent to one of
them. Stays until killed; then the interface is as before.";

/// How often it looks whether the interface is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("afx-decap: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut mode = AttachMode::Auto;
    let mut interface = None;
    let mut ends: Vec<IpAddr> = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--native" => mode = AttachMode::Native,
            "--generic" => mode = AttachMode::Generic,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            option if option.starts_with('-') => {
                return Err(format!("no such option: {option}\n\n{USAGE}").into());
            }
            _ if interface.is_none() => interface = Some(argument),
            address => ends.push(address.parse().map_err(|_| format!("{address} is no IP address"))?),
        }
    }
    let interface = interface.ok_or(USAGE)?;
    let index = interface_index(&interface).map_err(|error| format!("interface {interface}: {error}"))?;
    let ends = if ends.is_empty() { TunnelEnds::Any } else { TunnelEnds::These(ends) };

    let decap = Decap::attach(index, &ends, mode)?;
    println!("afx-decap: attached to {interface} in {} mode", decap.mode());
    if let Some(reason) = decap.fallback() {
        println!("afx-decap: native mode does not work here: {reason}");
    }
    // Killing the process is the way to end it: the kernel takes the program off. It does so, too, when the interface
    // goes; one that comes back under the same name is another, which a service manager starts this anew for.
    while interface_index(&interface).is_ok_and(|now| now == index) {
        thread::sleep(LOOK_EVERY);
    }
    Err(format!("interface {interface} is gone").into())
}
