//! What is wrong with a file, where, and what would be right.

use std::fmt;
use std::ops::Range;

/// What is wrong, and what would be right, without the place.
#[derive(Debug)]
pub(super) struct Problem {
    what: String,
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// One problem of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    severity: Severity,
    file: String,
    /// None if it is about the file as a whole.
    place: Option<Place>,
    what: String,
    help: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    text: String,
    /// How many characters of the text are meant.
    length: usize,
}

impl Diagnostic {
    pub(super) fn new(
        severity: Severity,
        file: &str,
        text: &str,
        span: Range<usize>,
        problem: Problem,
    ) -> Self {
        let start = text.floor_char_boundary(span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = text.floor_char_boundary(span.end).clamp(start, line_end);
        let place = Place {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end().to_owned(),
            length: text[start..end].chars().count().max(1),
        };
        Self { severity, file: file.to_owned(), place: Some(place), what: problem.what, help: problem.help }
    }

    /// An error about the file as a whole.
    pub(super) fn of_file(file: &str, problem: Problem) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            place: None,
            what: problem.what,
            help: problem.help,
        }
    }

    /// Whether it keeps the file from being used.
    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `file:line:column: error: what`, the line itself with the place marked, and what would be right.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(Place { line, column, .. }) = &self.place {
            write!(f, ":{line}:{column}")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {severity}: {}", self.what)?;
        if let Some(Place { column, text, length, .. }) = &self.place
            && !text.is_empty()
        {
            // Tabs stay tabs, so that the mark stands where it should.
            let blank: String =
                text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n    {text}\n    {blank}{}", "^".repeat(*length))?;
        }
        match &self.help {
            Some(help) => write!(f, "\n    {help}"),
            None => Ok(()),
        }
    }
}
