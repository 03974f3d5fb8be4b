//! `afx-decap`: takes the outer headers off packets that a load balancer sends to this server, until killed.
use std::error::Error;
use std::net::IpAddr;
use std::num::NonZero;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use afx_redirect::{AttachMode, Decap, DecapOptions, OnFragment, TunnelEnds, interface_index};

const USAGE: &str = "\
usage: afx-decap [--gue PORT] [--fragments pass|drop] [--native | --generic]
                 INTERFACE [ADDRESS]...

Takes the outer header off IP-in-IP packets that arrive on INTERFACE, and lets the
stack receive the packet within. With ADDRESSes, only off packets sent to one of
them. Stays until killed; then the interface is as before.

  --gue PORT        the same with IP in UDP to this port (GUE, variant 1)
  --fragments pass  fragments go to the stack as they are (the default)
  --fragments drop  fragments are dropped: all of them, or those to the ADDRESSes
  --native          in the driver, or not at all
  --generic         in the kernel's generic receive path
By default in the driver where it can, else in the generic path.";

/// How often it looks whether the interface is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |&cause| cause.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            eprintln!("afx-decap: {error}{causes}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut options = DecapOptions::default();
    let mut interface = None;
    let mut ends: Vec<IpAddr> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--native" => options.mode = AttachMode::Native,
            "--generic" => options.mode = AttachMode::Generic,
            "--gue" => options.gue_port = Some(gue_port(arguments.next())?),
            "--fragments" => options.on_fragment = on_fragment(arguments.next())?,
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
    if !ends.is_empty() {
        options.ends = TunnelEnds::These(ends);
    }

    let decap = Decap::attach(index, &options)?;
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

fn gue_port(value: Option<String>) -> Result<NonZero<u16>, String> {
    let value = value.ok_or("--gue: a UDP port is missing, 6080 for example")?;
    value.parse().map_err(|_| format!("--gue: {value} is no UDP port; there are 1 to 65535"))
}

fn on_fragment(value: Option<String>) -> Result<OnFragment, String> {
    match value.as_deref() {
        Some("pass") => Ok(OnFragment::Pass),
        Some("drop") => Ok(OnFragment::Drop),
        _ => Err("--fragments: say pass or drop".into()),
    }
}
