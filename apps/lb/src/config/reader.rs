//! Reading tables key by key, collecting what is wrong instead of stopping at it.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Problem, Severity, Text};
use super::values::kind;

/// A file's text, and what was found wrong with it.
pub(super) struct Source<'t> {
    text: Text<'t>,
    diagnostics: RefCell<Vec<(usize, Diagnostic)>>,
}

impl<'t> Source<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { text: Text::new(file, text), diagnostics: RefCell::default() }
    }

    /// The file as a table. None if it is not TOML.
    pub(super) fn document(&self) -> Option<Spanned<DeTable<'t>>> {
        let (document, errors) = DeTable::parse_recoverable(self.text.text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            self.add(Severity::Error, span, Problem::new(error.message().replace('\n', "; ")));
        }
        errors.is_empty().then_some(document)
    }

    /// All that was found wrong, in the order of the file.
    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut diagnostics = self.diagnostics.into_inner();
        diagnostics.sort_by_key(|(place, _)| *place);
        diagnostics.into_iter().map(|(_, diagnostic)| diagnostic).collect()
    }

    fn add(&self, severity: Severity, span: Range<usize>, problem: Problem) {
        let place = span.start;
        let diagnostic = Diagnostic::new(severity, &self.text, span, problem);
        self.diagnostics.borrow_mut().push((place, diagnostic));
    }
}

/// A table of the file, of which keys are asked for.
pub(super) struct Section<'s> {
    source: &'s Source<'s>,
    /// As the file writes it.
    name: String,
    span: Range<usize>,
    table: &'s DeTable<'s>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'s> Section<'s> {
    /// The top of a file.
    pub(super) fn root(source: &'s Source<'s>, document: &'s Spanned<DeTable<'s>>) -> Self {
        Self { source, name: String::new(), span: 0..0, table: document.get_ref(), asked: RefCell::default() }
    }

    /// Whether the key is there, with a right value or a wrong one.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.keys().any(|present| present.get_ref() == key)
    }

    /// The value of a key. None if it is not there, or wrong, which is then reported.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Spanned<T>> {
        let value = self.ask(key)?;
        match read(value.get_ref()) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err(problem) => {
                self.error_at(value.span(), problem);
                None
            }
        }
    }

    /// As [`optional`](Self::optional), where nobody asks for the place.
    pub(super) fn value<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<T> {
        self.optional(key, read).map(Spanned::into_inner)
    }

    /// The elements of a list that are right; each wrong one is reported by itself. None if the key is not there, or
    /// no list, which is then reported with `example`.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl Fn(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Vec<Spanned<T>>> {
        let value = self.ask(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let what = format!("{} where a list is expected", kind(value.get_ref()));
            self.error_at(value.span(), Problem::new(what).help(example));
            return None;
        };
        let element = |element: &Spanned<DeValue<'_>>| match read(element.get_ref()) {
            Ok(read) => Some(Spanned::new(element.span(), read)),
            Err(problem) => {
                self.error_at(element.span(), problem);
                None
            }
        };
        Some(array.iter().filter_map(element).collect())
    }

    /// As [`optional`](Self::optional), but it is also reported when the key is missing.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Spanned<T>> {
        if !self.has(key) {
            self.error(Problem::new(format!("`{key}` is missing in {}", self.name)));
        }
        self.optional(key, read)
    }

    /// A table in this one. None if it is not there, or no table, which is then reported.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'s>> {
        let value = self.ask(key)?;
        let name = self.name_of(key, "[", "]");
        match value.get_ref() {
            DeValue::Table(table) => Some(self.inner(name, value.span(), table)),
            _ => {
                let problem = Problem::new(format!("`{key}` is a section, not a value"));
                self.error_at(value.span(), problem.help(format!("write it as `{name}`")));
                None
            }
        }
    }

    /// All tables of that name in this one. What is no table is reported.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'s>> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let name = self.name_of(key, "[[", "]]");
        let mut sections = Vec::new();
        let mut add = |value: &'s Spanned<DeValue<'s>>| match value.get_ref() {
            DeValue::Table(table) => sections.push(self.inner(name.clone(), value.span(), table)),
            _ => {
                let problem = Problem::new(format!("`{key}` is a section, not a value"));
                self.error_at(value.span(), problem.help(format!("write it as `{name}`")));
            }
        };
        match value.get_ref() {
            DeValue::Array(array) => array.iter().for_each(add),
            DeValue::Table(_) => {
                let problem =
                    Problem::new(format!("there can be several `{key}`, so its brackets are double"));
                self.error_at(value.span(), problem.help(format!("write it as `{name}`")));
            }
            _ => add(value),
        }
        sections
    }

    /// How many elements a list has, right ones and wrong ones; 0 if it is not there, none if it is no list.
    pub(super) fn count(&self, key: &str) -> Option<usize> {
        match self.table.iter().find(|(present, _)| present.get_ref() == key) {
            Some((_, value)) => value.get_ref().as_array().map(|array| array.len()),
            None => Some(0),
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let place = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            let help = match nearest(name, &asked) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("known are {}", list(&asked)),
            };
            self.error_at(
                key.span(),
                Problem::new(format!("the key `{name}` is not known{place}")).help(help),
            );
        }
    }

    /// Reports something about the section as a whole.
    pub(super) fn error(&self, problem: Problem) {
        self.error_at(self.span.clone(), problem);
    }

    /// Reports something about a place in the file.
    pub(super) fn error_at(&self, span: Range<usize>, problem: Problem) {
        self.source.add(Severity::Error, span, problem);
    }

    /// Reports something about the section that does not keep it from being used.
    pub(super) fn warn(&self, problem: Problem) {
        self.warn_at(self.span.clone(), problem);
    }

    /// Reports something about a place in the file that does not keep it from being used.
    pub(super) fn warn_at(&self, span: Range<usize>, problem: Problem) {
        self.source.add(Severity::Warning, span, problem);
    }

    /// The line of a place in the file, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.source.text.line(span.start)
    }

    fn ask(&self, key: &'static str) -> Option<&'s Spanned<DeValue<'s>>> {
        self.asked.borrow_mut().push(key);
        self.table.iter().find(|(present, _)| present.get_ref() == key).map(|(_, value)| value)
    }

    fn inner(&self, name: String, span: Range<usize>, table: &'s DeTable<'s>) -> Section<'s> {
        Section { source: self.source, name, span, table, asked: RefCell::default() }
    }

    fn name_of(&self, key: &str, open: &str, close: &str) -> String {
        let outer = self.name.trim_matches(['[', ']']);
        let dot = if outer.is_empty() { "" } else { "." };
        format!("{open}{outer}{dot}{key}{close}")
    }
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The word that was probably meant: the nearest, if a third of its letters at most are other ones.
pub(super) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    known
        .iter()
        .map(|known| (distance(&word.to_lowercase(), known), *known))
        .min()
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .map(|(_, known)| known)
}

/// How many letters have to be changed, added, removed, or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}
