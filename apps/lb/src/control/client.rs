//! The commands that ask a running balancer.

mod ctl;
mod explain;
mod lists;
mod status;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use afx::control::socket::{Client, ClientError};
use clap::Args;
use crossterm::terminal::{Clear, ClearType};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::protocol::{
    Ask, Changed, ConfigText, Connection, ConnectionsEnd, ConnectionsWanted, DrainEnd, DrainProgress,
    RealDrain,
};
use crate::BAD_INPUT;
use crate::text::{Style, complain, count, time};

pub(crate) use ctl::{Ctl, ExplainArguments, NAMES};

/// How long to wait for an answer, or for the next line of a long one.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Where to ask, and how to print what is answered.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The balancer's command socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "AFX_LB_SOCKET",
        default_value = "/run/afx-lb.sock"
    )]
    socket: PathBuf,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// Asks, and prints the answer.
pub(crate) fn run(options: &Options, ask: &Ask) -> ExitCode {
    if let Err(why) = ask.check() {
        complain(format_args!("afx-lb: {why}"));
        return ExitCode::from(BAD_INPUT);
    }
    let style = Style::of(io::stdout().is_terminal());
    let client = Client::connect(&options.socket).map(|client| client.within(ANSWER_WITHIN));
    let said = client.map_err(Failure::from).and_then(|mut client| {
        let mut screen = Screen { out: &mut io::stdout().lock(), style, json: options.json };
        screen.converse(&mut client, ask)
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            complain(format_args!("afx-lb: {}", without_control(&failure.to_string())));
            ExitCode::FAILURE
        }
    }
}

/// Why nothing was printed, or not all of it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ask(#[from] ClientError),
    #[error("what the balancer answered is not known here: {0}; is it of another version?")]
    Answer(#[from] serde_json::Error),
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Where answers are printed.
struct Screen<'a> {
    out: &'a mut dyn Write,
    style: Style,
    json: bool,
}

impl Screen<'_> {
    fn converse(&mut self, client: &mut Client, ask: &Ask) -> Result<(), Failure> {
        let request = serde_json::to_value(ask)?;
        match ask {
            Ask::Connections(wanted) => return self.connections(client, &request, wanted),
            Ask::RealDrain(drain) if drain.wait => return self.drain(client, &request, drain),
            _ => {}
        }
        let answer = client.call(&request)?;
        if self.json {
            writeln!(self.out, "{answer:#}")?;
            return Ok(());
        }
        let style = self.style;
        let text = match ask {
            Ask::Status {} => status::show(&known(answer)?, style),
            Ask::Vips {} => lists::vips(&known::<Vec<_>>(answer)?, style),
            Ask::Reals(_) => lists::reals(&known::<Vec<_>>(answer)?, style),
            Ask::Counters(_) => lists::counters(&known::<Vec<_>>(answer)?, style),
            Ask::Explain(_) => explain::show(&known(answer)?, style),
            Ask::Config {} => known::<ConfigText>(answer)?.toml,
            // All others change something.
            _ => changed(&known(answer)?),
        };
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }

    fn connections(
        &mut self,
        client: &mut Client,
        request: &Value,
        wanted: &ConnectionsWanted,
    ) -> Result<(), Failure> {
        let mut parts = Vec::new();
        let end = client.stream(request, |part| parts.push(part))?;
        let mut connections = Vec::new();
        for part in parts {
            connections.append(&mut known::<Vec<Connection>>(part)?);
        }
        let end: ConnectionsEnd = known(end)?;
        if self.json {
            let ConnectionsEnd { matched, complete } = end;
            let all = json!({ "connections": connections, "matched": matched, "complete": complete });
            writeln!(self.out, "{all:#}")?;
        } else if wanted.count {
            writeln!(self.out, "{}", count(end.matched, "connection"))?;
        } else {
            self.out.write_all(lists::connections(&connections, &end, self.style).as_bytes())?;
        }
        Ok(())
    }

    /// Shows how far a drain is: on a terminal in one line that changes, otherwise in a line a second.
    fn drain(&mut self, client: &mut Client, request: &Value, drain: &RealDrain) -> Result<(), Failure> {
        let mut failed = None;
        let end = client.stream(request, |part| {
            let shown = if self.json {
                writeln!(self.out, "{part}").map_err(Failure::from)
            } else {
                self.progress(part, drain)
            };
            failed = failed.take().or(shown.err());
        });
        if self.style.terminal && !self.json {
            write!(self.out, "\r{}", Clear(ClearType::UntilNewLine))?;
            self.out.flush()?;
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        let end = end?;
        if self.json {
            writeln!(self.out, "{end}")?;
            return Ok(());
        }
        let DrainEnd { changes, warnings, connections, deadline_over, took_seconds } = known(end)?;
        self.out.write_all(changed(&Changed { changes, warnings }).as_bytes())?;
        let took = time(took_seconds);
        if deadline_over {
            let left = count(connections, "connection");
            writeln!(self.out, "The deadline is over after {took}: {left} left, which other reals get now.")?;
        } else {
            writeln!(self.out, "Drained after {took}: no connection is left.")?;
        }
        Ok(())
    }

    fn progress(&mut self, part: Value, of: &RealDrain) -> Result<(), Failure> {
        let DrainProgress { connections, drain } = known(part)?;
        let left = drain.remaining_seconds.map(|seconds| format!(", {} left", time(seconds)));
        let line = format!(
            "{} in {} drains: {}{}",
            of.real,
            of.vip,
            count(connections, "connection"),
            left.unwrap_or_default()
        );
        if self.style.terminal {
            write!(self.out, "\r{line}{}", Clear(ClearType::UntilNewLine))?;
        } else {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// An answer of a type that is known here.
fn known<T: DeserializeOwned>(mut answer: Value) -> Result<T, Failure> {
    harmless(&mut answer);
    Ok(serde_json::from_value(answer)?)
}

/// Takes from texts what a terminal would act on: a failed check may quote what a server has sent.
fn harmless(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_control(text),
        Value::Array(values) => values.iter_mut().for_each(harmless),
        Value::Object(values) => values.values_mut().for_each(harmless),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn without_control(text: &str) -> String {
    let harmless = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

/// What a command has changed.
fn changed(changed: &Changed) -> String {
    let mut text = String::new();
    if changed.changes.is_empty() {
        text += "Nothing to change: all is so already.\n";
    }
    for change in &changed.changes {
        text += &format!("{change}\n");
    }
    for warning in &changed.warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}
