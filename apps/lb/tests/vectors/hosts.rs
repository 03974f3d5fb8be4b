//! The decapsulation program, which servers have, on vectors that are about it: the kernel runs it over each.

use std::num::NonZero;

use afx_redirect::testing::{DecapProgram, Verdict};
use afx_redirect::{DecapOptions, OnFragment};

use crate::file::{Suite, Vector, Wanted};
use crate::wire::Flow;

/// Why a suite cannot be run.
pub(crate) fn unsupported(suite: &Suite) -> Option<String> {
    let other = suite.vectors.iter().find(|vector| {
        !matches!(vector.wanted(), Some(Wanted::Pass | Wanted::PassModified | Wanted::Drop))
    })?;
    Some(format!("{}: what is a {} of kind \"{}\" on a server?", other.id, other.verdict, other.kind))
}

/// Says of each vector what is wrong.
pub(crate) fn check(suite: &Suite) -> Vec<(String, String)> {
    let options =
        DecapOptions { gue_port: gue_port(suite), on_fragment: OnFragment::Drop, ..DecapOptions::default() };
    let program = DecapProgram::load(&options).expect("the kernel takes the program: this needs root");
    let wrong =
        suite.vectors.iter().filter_map(|vector| Some((vector.id.clone(), differs(vector, &program)?)));
    wrong.collect()
}

fn differs(vector: &Vector, program: &DecapProgram) -> Option<String> {
    let (verdict, packet) = match program.run(&vector.input) {
        Ok(result) => result,
        Err(error) => return Some(error.to_string()),
    };
    let (wanted, output) = match vector.wanted() {
        Some(Wanted::Drop) => (Verdict::Drop, None),
        _ => (Verdict::Pass, vector.output.as_ref()),
    };
    if verdict != wanted {
        return Some(format!("the verdict is {verdict:?}, and should be {wanted:?}"));
    }
    output
        .filter(|output| **output != packet)
        .map(|output| format!("it is {packet:02x?}, and should be {output:02x?}"))
}

/// The port that IP in UDP comes to: where the suite does not say, the first one that packets to take out come to.
fn gue_port(suite: &Suite) -> Option<NonZero<u16>> {
    let taken_out = suite.vectors.iter().filter(|vector| vector.wanted() == Some(Wanted::PassModified));
    let mut ports = taken_out.filter_map(|vector| {
        let flow = Flow::of(vector.input.get(14..)?)?;
        (flow.protocol == 17).then_some(flow.ports.1)
    });
    suite.config.gue_dport.or_else(|| ports.next()).and_then(NonZero::new)
}
