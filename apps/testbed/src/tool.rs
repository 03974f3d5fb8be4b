//! Calling `ip` and `ethtool`, the two programs that the testbed is built on.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::namespace::{self, Sysfs};

/// Runs a program in a namespace, or where the caller is, and returns what it printed.
pub(crate) fn run(namespace: Option<&str>, program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let work = || call(namespace.unwrap_or("this machine"), program, arguments, input);
    match namespace {
        Some(name) => namespace::inside(name, Sysfs::Machine, work)?,
        None => work(),
    }
}

fn call(place: &str, program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let command = format!("{program} {}", arguments.join(" "));
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let package = if program == "ip" { "iproute2" } else { "ethtool" };
            return Err(Error::MissingProgram { program: program.to_owned(), package });
        }
        Err(source) => return Err(Error::Io { what: format!("starting {command} on {place}"), source }),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stops reading has its reasons: they come with its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::io(format!("waiting for {command} on {place}")))?;
    if !output.status.success() {
        let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !input.is_empty() {
            said.push_str("\nits input was:\n");
            said.push_str(input);
        }
        return Err(Error::Failed { command, place: place.to_owned(), status: output.status, output: said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
