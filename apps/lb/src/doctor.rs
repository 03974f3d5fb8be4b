//! `afx-lb doctor`: what this machine and an interface can do, what is in the way, and the command that mends it.

mod json;
mod restore;
mod text;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use afx::doctor::{Error, Report, Verdict, examine, examine_by_trying};

use crate::BAD_INPUT;
use crate::text::{Style, complain};

/// What can be said to the doctor.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The interface that afx is to work on. Without it, only the machine is looked at.
    #[arg(value_name = "INTERFACE")]
    interface: Option<String>,
    /// Find out by trying as well: attach the program that takes packets, without having it take any, and open sockets,
    /// each for a moment. Some drivers take the link down for a second or two meanwhile.
    #[arg(long = "try", requires = "interface")]
    trying: bool,
    /// Mend what may be mended at once: settings of the interface that nothing but speed depends on. Says what each was
    /// before, and examines again.
    #[arg(long, requires = "interface")]
    fix: bool,
    /// Put back what an afx that was killed has left changed: settings of the interface, or without one of all interfaces
    /// of this network namespace. Examines nothing.
    #[arg(long, conflicts_with_all = ["trying", "fix"])]
    restore: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// What came of a remedy: its command, and what there was before, or why it was not done.
struct Fixed {
    command: String,
    result: Result<String, String>,
}

/// Prints what was found. Status 0 where all may work, 1 where something will not, 2 where it cannot be found out.
pub(crate) fn run(options: &Options) -> ExitCode {
    if options.restore {
        return restore::run(options.interface.as_deref(), options.json);
    }
    let (report, fixed) = match examined(options) {
        Ok(found) => found,
        Err(error) => {
            complain(format_args!("afx-lb: {}", with_cause(&error)));
            return ExitCode::from(BAD_INPUT);
        }
    };
    let output = if options.json {
        json::show(&report, fixed.as_deref())
    } else {
        let style = Style::of(io::stdout().is_terminal());
        text::show(&report, fixed.as_deref(), options.trying, style)
    };
    // Whoever closes it has seen enough.
    let _ = io::stdout().write_all(output.as_bytes());
    let is_ill = report.count(Verdict::WillNotWork) > 0;
    let is_unmended = fixed.iter().flatten().any(|fixed| fixed.result.is_err());
    if is_ill || is_unmended { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The report, and what was mended before it where that was asked for.
fn examined(options: &Options) -> Result<(Report, Option<Vec<Fixed>>), Error> {
    let interface = options.interface.as_deref();
    let fixed = if options.fix {
        let before = examine(interface)?;
        let apply = |remedy: &afx::doctor::Remedy| Fixed {
            command: remedy.command.clone(),
            result: remedy.apply().map_err(|error| error.to_string()),
        };
        Some(before.safe_remedies().map(apply).collect())
    } else {
        None
    };
    let report = match interface {
        Some(name) if options.trying => examine_by_trying(name)?,
        _ => examine(interface)?,
    };
    Ok((report, fixed))
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
