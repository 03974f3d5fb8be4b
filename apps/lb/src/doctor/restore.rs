//! `afx-lb doctor --restore`: putting back what an afx that was killed has left changed.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use afx::settings::{Outcome, Restored, restore};
use serde::Serialize;

use crate::BAD_INPUT;
use crate::text::{Style, Table, complain, plain, words};

/// Status 0 where nothing is left to put back, 1 where something is, 2 where that cannot be found out.
pub(super) fn run(interface: Option<&str>, json: bool) -> ExitCode {
    let restored = match restore(interface) {
        Ok(restored) => restored,
        Err(error) => {
            complain(format_args!("afx-lb: {:#}", anyhow::Error::new(error)));
            return ExitCode::from(BAD_INPUT);
        }
    };
    let style = Style::of(io::stdout().is_terminal());
    let output = if json { document(&restored) } else { table(&restored, style) };
    // Whoever closes it has seen enough.
    let _ = io::stdout().write_all(output.as_bytes());
    let is_left = |restored: &Restored| matches!(restored.outcome, Outcome::Failed(_));
    if restored.iter().any(is_left) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn table(restored: &[Restored], style: Style) -> String {
    let columns = [words("interface"), words("setting"), words("before"), words("set to"), words("outcome")];
    let mut table = Table::new(style, "There is nothing to put back.", &columns);
    for Restored { interface, setting, before, value, outcome, .. } in restored {
        table.row([
            plain(interface),
            plain(setting),
            plain(before),
            plain(value),
            plain(outcome.to_string()),
        ]);
    }
    table.finish()
}

/// docs/doctor.md lists the fields.
fn document(restored: &[Restored]) -> String {
    #[derive(Serialize)]
    struct Document<'r> {
        restored: Vec<Entry<'r>>,
    }

    #[derive(Serialize)]
    struct Entry<'r> {
        interface: &'r str,
        setting: &'r str,
        before: &'r str,
        value: &'r str,
        outcome: &'static str,
        what: String,
    }

    fn entry(restored: &Restored) -> Entry<'_> {
        Entry {
            interface: &restored.interface,
            setting: &restored.setting,
            before: &restored.before,
            value: &restored.value,
            outcome: match restored.outcome {
                Outcome::Restored => "restored",
                Outcome::Already => "already",
                Outcome::ChangedSince(_) => "changed_since",
                Outcome::Gone => "gone",
                Outcome::InForce { .. } => "in_force",
                Outcome::Failed(_) => "failed",
                _ => "other",
            },
            what: restored.outcome.to_string(),
        }
    }

    serde_json::to_string_pretty(&Document { restored: restored.iter().map(entry).collect() })
        .expect("it is made of lists and strings, and its keys are strings")
        + "\n"
}
