//! Malformed packets, as drop reasons: one for each thing that can be wrong.

use crate::batch::Reason;
use crate::packet::ParseError;
use crate::worker::Build;

/// The drop reasons for malformed packets, `parse.*`, shared by all stages that drop them.
#[derive(Debug, Clone)]
pub struct Malformed([Reason; ParseError::ALL.len()]);

impl Malformed {
    /// Registers them.
    pub fn new(build: &mut Build<'_>) -> Self {
        Self(
            ParseError::ALL
                .map(|error| build.drop_reason(&format!("parse.{}", error.name()), error.sentence())),
        )
    }

    /// The reason for this error.
    #[inline]
    pub fn reason(&self, error: ParseError) -> Reason {
        self.0[usize::from(error.number()) % self.0.len()]
    }
}
