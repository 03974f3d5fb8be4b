//! The documentation's tables and plots, made from results.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::row::Row;
use crate::{plot, table};

/// Files of results: in the folder where they were written, and in the documentation's.
pub(crate) const SUMMARY: &str = "summary.json";
pub(crate) const MACHINE: &str = "machine.json";

/// What was measured, and where.
#[derive(Debug, Clone)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) machine: Machine,
}

impl Results {
    /// Reads those of a summary; what is known of the machine lies beside it.
    pub(crate) fn read(summary: &Path) -> Result<Self> {
        Ok(Self { rows: json(summary)?, machine: json(&summary.with_file_name(MACHINE))? })
    }

    /// Files to be written beside a page: names and contents.
    pub(crate) fn files(&self) -> Result<Vec<(&'static str, String)>> {
        let mut files = vec![
            (SUMMARY, serde_json::to_string_pretty(&self.rows)? + "\n"),
            (MACHINE, serde_json::to_string_pretty(&self.machine)? + "\n"),
        ];
        files.extend(plot::ratios(&self.rows)?.map(|svg| ("ratios.svg", svg)));
        files.extend(plot::flows(&self.rows)?.map(|svg| ("balance-memory.svg", svg)));
        Ok(files)
    }

    /// A page with what stands between its marks made anew.
    pub(crate) fn page(&self, page: &str) -> Result<String> {
        let sections = [
            ("machine", self.machine.line() + "\n"),
            ("results", table::results(&self.rows)),
            ("balance-memory", table::by_flows(&self.rows)),
            ("settings", table::settings(&self.rows)),
        ];
        sections.iter().try_fold(page.to_owned(), |page, (name, text)| replace(&page, name, text))
    }

    /// Writes a page anew, and into the folder of its name the results and plots that it shows.
    pub(crate) fn write(&self, page: &Path) -> Result<()> {
        let folder = page.with_extension("");
        let text = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
        let text = self.page(&text).with_context(|| format!("in {}", page.display()))?;
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        for (name, content) in self.files()? {
            write(&folder.join(name), &content)?;
        }
        write(page, &text)
    }
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading {}: `make bench` writes it", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what `make bench` writes", path.display()))
}

pub(crate) fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

/// Replaces what stands between the two marks of a section.
fn replace(page: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin: {name} -->\n"), format!("<!-- end: {name} -->\n"));
    let parts = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else {
        bail!("the page has no lines `{}` and `{}`, with one after the other", begin.trim(), end.trim())
    };
    Ok(format!("{before}{begin}\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn what_is_between_marks_is_replaced_and_nothing_else() {
        let page = "a\n<!-- begin: x -->\nold\nolder\n<!-- end: x -->\nb\n";
        let new = replace(page, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\nb\n");
        assert_eq!(replace(&new, "x", "new\n").unwrap(), new);
    }

    #[test]
    fn a_page_without_marks_is_an_error_that_shows_them() {
        for page in ["", "<!-- begin: x -->\n", "<!-- end: x -->\n<!-- begin: x -->\n"] {
            let error = replace(page, "x", "").unwrap_err().to_string();
            assert!(error.contains("`<!-- begin: x -->` and `<!-- end: x -->`"), "{error}");
        }
    }

    #[test]
    fn results_that_are_not_there_are_an_error_that_says_what_writes_them() {
        let error = format!("{:#}", Results::read(Path::new("/nonexistent/summary.json")).unwrap_err());
        assert!(error.contains("/nonexistent/summary.json: `make bench` writes it"), "{error}");
    }

    /// Nobody has written a figure into the documentation by hand.
    #[test]
    fn the_documentation_shows_the_results_in_the_repository() {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let results = Results::read(&docs.join("performance").join(SUMMARY)).unwrap();
        let page = fs::read_to_string(docs.join("performance.md")).unwrap();
        let command =
            "cargo run -p afx-benches -- --report docs/performance.md --json docs/performance/summary.json";
        assert!(results.page(&page).unwrap() == page, "docs/performance.md is not what comes of `{command}`");
        for (name, content) in results.files().unwrap() {
            let kept = fs::read_to_string(docs.join("performance").join(name)).unwrap();
            assert!(kept == content, "docs/performance/{name} is not what comes of `{command}`");
            if name.ends_with(".svg") {
                assert!(page.contains(&format!("(performance/{name})")), "the page does not show {name}");
            }
        }
    }
}
