//! `afx-lb check`: what a configuration file means, or what is wrong with it.

mod machine;
mod summary;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::BAD_INPUT;
use crate::config::{Config, Diagnostic, FileForm, Outcome};
use crate::text::complain;
use machine::{Machine, Told};
use summary::Summary;

/// Prints what a valid file means to the standard output, and the problems of a file to the standard error; as JSON
/// all of it to the standard output.
pub(crate) fn run(file: &Path, json: bool) -> ExitCode {
    if json {
        return run_json(Config::load(file));
    }
    let Some(config) = load(file) else { return ExitCode::from(BAD_INPUT) };
    print(&format!("{} is valid.\n\n{}{}", file.display(), Summary(&config), Machine::of(&config)));
    ExitCode::SUCCESS
}

/// Reads a file, with its problems told on the standard error.
pub(crate) fn load(file: &Path) -> Option<Config> {
    let Outcome { config, diagnostics } = Config::load(file);
    for diagnostic in &diagnostics {
        complain(format_args!("{diagnostic}\n"));
    }
    if config.is_none() {
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
        complain(format_args!(
            "{}: {errors} {}",
            file.display(),
            if errors == 1 { "error" } else { "errors" }
        ));
    }
    config
}

fn run_json(Outcome { config, diagnostics }: Outcome) -> ExitCode {
    /// The file's sections and keys, its warnings, and what it comes to here.
    #[derive(Serialize)]
    struct Meaning {
        #[serde(flatten)]
        file: FileForm,
        warnings: Vec<Diagnostic>,
        here: Told,
    }
    let (json, status) = match config {
        Some(config) => {
            let (file, here) = (FileForm::of(&config), Machine::of(&config).told());
            let meaning = Meaning { file, warnings: diagnostics, here };
            (serde_json::to_string_pretty(&meaning), ExitCode::SUCCESS)
        }
        None => (serde_json::to_string_pretty(&diagnostics), ExitCode::from(BAD_INPUT)),
    };
    print(&(json.expect("it is made of lists, strings and numbers, and its keys are strings") + "\n"));
    status
}

/// Prints to the standard output. Whoever closes it has seen enough.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
