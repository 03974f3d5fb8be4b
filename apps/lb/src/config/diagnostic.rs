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

    /// In one line: what is wrong, and what would be right.
    pub(super) fn sentence(&self) -> String {
        sentence(&self.what, self.help.as_deref())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
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
    pub(super) fn new(severity: Severity, source: &Text<'_>, span: Range<usize>, problem: Problem) -> Self {
        let text = source.text;
        let start = text.floor_char_boundary(span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = text.floor_char_boundary(span.end).clamp(start, line_end);
        // Longer than any screen, such as a list written by a program: its place must do.
        let is_shown = line_end - line_start <= 1000;
        let place = Place {
            line: source.line(start),
            column: text[line_start..start].chars().count() + 1,
            text: if is_shown { text[line_start..line_end].trim_end().to_owned() } else { String::new() },
            length: text[start..end].chars().count().max(1),
        };
        Self {
            severity,
            file: source.file.to_owned(),
            place: Some(place),
            what: problem.what,
            help: problem.help,
        }
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

    /// In one line, without the place: what is wrong, and what would be right.
    pub(super) fn sentence(&self) -> String {
        sentence(&self.what, self.help.as_deref())
    }

    /// Whether it keeps the file from being used.
    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

fn sentence(what: &str, help: Option<&str>) -> String {
    match help {
        Some(help) => format!("{what}; {help}"),
        None => what.to_owned(),
    }
}

/// A file's name and text.
pub(super) struct Text<'t> {
    file: &'t str,
    pub(super) text: &'t str,
    /// Where the lines but the first begin: a file may have a hundred thousand, and as many errors.
    lines: Vec<usize>,
}

impl<'t> Text<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let lines = text.match_indices('\n').map(|(place, _)| place + 1).collect();
        Self { file, text, lines }
    }

    /// The line of a place in bytes, from 1.
    pub(super) fn line(&self, place: usize) -> usize {
        self.lines.partition_point(|start| *start <= place) + 1
    }
}

/// For programs: `{severity, file, line, column, message, help}`, null where there is none.
impl serde::Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Form<'a> {
            severity: String,
            file: &'a str,
            line: Option<usize>,
            column: Option<usize>,
            message: &'a str,
            help: Option<&'a str>,
        }
        let form = Form {
            severity: self.severity.to_string(),
            file: &self.file,
            line: self.place.as_ref().map(|place| place.line),
            column: self.place.as_ref().map(|place| place.column),
            message: &self.what,
            help: self.help.as_deref(),
        };
        form.serialize(serializer)
    }
}

/// `file:line:column: error: what`, the line itself with the place marked, and what would be right.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(Place { line, column, .. }) = &self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}: {}", self.severity, self.what)?;
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
