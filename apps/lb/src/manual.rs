//! Completions for shells and pages for man(1), made of what the command line knows of itself.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::text::complain;
use crate::{Arguments, BAD_INPUT};

/// Prints the completions for a shell.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "afx-lb", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("afx-lb: the completions cannot be written: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes `afx-lb.1`, `afx-lb-run.1` and so on into a folder.
pub(crate) fn pages(folder: &Path) -> ExitCode {
    let written = fs::create_dir_all(folder).and_then(|()| {
        // `help` has a page for nothing.
        let command = Arguments::command().disable_help_subcommand(true);
        clap_mangen::generate_to(command, folder)
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("afx-lb: the manual cannot be written to {}: {error}", folder.display()));
            ExitCode::from(BAD_INPUT)
        }
    }
}
