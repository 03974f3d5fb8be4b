//! What was counted, beside what the repository says it was.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Instructions by the path's name, sorted.
pub type Counts = BTreeMap<String, u64>;

/// How far a count may be from its baseline, in per cent, without being told.
pub const TOLERANCE: f64 = 2.0;

/// The counts in gungraun's summaries, one JSON object a line (`--output-format=json`). A path is named by its
/// function and its id there.
///
/// # Errors
/// Where a line is no summary of a callgrind run, a name comes twice, or nothing was counted.
pub fn counted(text: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (name, instructions) = one_summary(line).with_context(|| format!("line {}", index + 1))?;
        if counts.insert(name.clone(), instructions).is_some() {
            bail!("line {}: {name} comes twice", index + 1);
        }
    }
    if counts.is_empty() {
        bail!("nothing was counted");
    }
    Ok(counts)
}

fn one_summary(line: &str) -> Result<(String, u64)> {
    let summary: serde_json::Value = serde_json::from_str(line).context("no summary by gungraun")?;
    let function = summary["function_name"].as_str().context("no function_name")?;
    let name = match summary["id"].as_str() {
        Some(id) => format!("{function}/{id}"),
        None => function.to_owned(),
    };
    let profiles = summary["profiles"].as_array().context("no profiles")?;
    let callgrind =
        profiles.iter().find(|profile| profile["tool"] == "Callgrind").context("no callgrind run")?;
    let values = &callgrind["data"]["total"]["metrics"]["Ir"]["values"];
    // `new` is this run's count, whether or not an earlier run lies about.
    let instructions = values["new"].as_u64().with_context(|| format!("no instructions of {name}"))?;
    Ok((name, instructions))
}

/// A comparison's outcome for one path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Within the tolerance.
    None,
    /// So many per cent more than the baseline, above the tolerance.
    Dearer(f64),
    /// So many per cent less, above the tolerance.
    Cheaper(f64),
    /// Counted, but not in the baseline.
    New,
    /// In the baseline, but not counted.
    Gone,
}

/// All paths beside their baselines.
pub struct Comparison {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    baseline: Option<u64>,
    now: Option<u64>,
    change: Change,
}

impl Comparison {
    /// Compares counts.
    pub fn new(baseline: &Counts, now: &Counts) -> Self {
        let names: std::collections::BTreeSet<&String> = baseline.keys().chain(now.keys()).collect();
        let rows = names.into_iter().map(|name| {
            let (baseline, now) = (baseline.get(name).copied(), now.get(name).copied());
            Row { name: name.clone(), baseline, now, change: change(baseline, now) }
        });
        Self { rows: rows.collect() }
    }

    /// Whether nothing is dearer than the tolerance allows, new or gone.
    pub fn passes(&self) -> bool {
        self.rows.iter().all(|row| matches!(row.change, Change::None | Change::Cheaper(_)))
    }

    fn count(&self, which: impl Fn(Change) -> bool) -> usize {
        self.rows.iter().filter(|row| which(row.change)).count()
    }

    /// The paths as a table, one a line.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["path", "baseline", "now", "change", ""]);
        for column in table.column_iter_mut().skip(1).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in &self.rows {
            let number = |count: Option<u64>| count.map_or("-".to_owned(), grouped);
            let change = match (row.baseline, row.now) {
                (Some(baseline), Some(now)) => format!("{:+.2} %", percent(baseline, now)),
                _ => "-".to_owned(),
            };
            let told = match row.change {
                Change::None => "",
                Change::Dearer(_) => "DEARER",
                Change::Cheaper(_) => "cheaper",
                Change::New => "NO BASELINE",
                Change::Gone => "NOT COUNTED",
            };
            table.add_row([row.name.clone(), number(row.baseline), number(row.now), change, told.to_owned()]);
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// What to do about it, a sentence for each kind of change that there is.
    fn advice(&self) -> Vec<String> {
        let dearer = self.count(|change| matches!(change, Change::Dearer(_)));
        let cheaper = self.count(|change| matches!(change, Change::Cheaper(_)));
        let new = self.count(|change| change == Change::New);
        let gone = self.count(|change| change == Change::Gone);
        let mut advice = Vec::new();
        if dearer > 0 {
            advice.push(format!(
                "{dearer} of {} paths cost more than {TOLERANCE} % above their baseline. Take the cost out; or, if the \
                 change is worth it, run `make guard-update`, commit the new baselines with it, and say in the \
                 message what costs more, by how much, and what for.",
                self.rows.len()
            ));
        }
        if new > 0 {
            advice.push(format!("{new} have no baseline yet: run `make guard-update` and commit it."));
        }
        if gone > 0 {
            advice.push(format!(
                "{gone} have a baseline but were not counted. If they were taken out on purpose, run `make \
                 guard-update` and commit it."
            ));
        }
        if cheaper > 0 {
            advice.push(format!(
                "{cheaper} cost less by more than {TOLERANCE} %: run `make guard-update` and commit it, so that it \
                 stays so."
            ));
        }
        if advice.is_empty() {
            advice
                .push(format!("All {} paths are within {TOLERANCE} % of their baselines.", self.rows.len()));
        }
        advice
    }
}

fn change(baseline: Option<u64>, now: Option<u64>) -> Change {
    let (Some(baseline), Some(now)) = (baseline, now) else {
        return if baseline.is_none() { Change::New } else { Change::Gone };
    };
    match percent(baseline, now) {
        percent if percent > TOLERANCE => Change::Dearer(percent),
        percent if percent < -TOLERANCE => Change::Cheaper(percent),
        _ => Change::None,
    }
}

/// By how many per cent of `baseline` the count has grown.
fn percent(baseline: u64, now: u64) -> f64 {
    // A baseline of nothing, which no path has, is taken for one instruction.
    (now as f64 - baseline as f64) * 100.0 / baseline.max(1) as f64
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.table(), self.advice().join("\n"))
    }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn compared(baseline: u64, now: u64) -> Comparison {
        Comparison::new(&counts(&[("parse/tcp4", baseline)]), &counts(&[("parse/tcp4", now)]))
    }

    #[test]
    fn two_per_cent_pass_and_more_fails() {
        for (now, passes) in [(10_000, true), (10_200, true), (10_201, false), (10_500, false), (1, true)] {
            assert_eq!(compared(10_000, now).passes(), passes, "{now}");
        }
    }

    #[test]
    fn what_costs_more_is_named_with_numbers_and_advice() {
        let baseline = counts(&[("checksum/20", 50), ("parse/tcp4", 10_000)]);
        let now = counts(&[("checksum/20", 50), ("parse/tcp4", 10_500)]);
        assert_eq!(
            Comparison::new(&baseline, &now).to_string(),
            " path         baseline     now   change
 checksum/20        50      50  +0.00 %
 parse/tcp4     10,000  10,500  +5.00 %  DEARER

1 of 2 paths cost more than 2 % above their baseline. Take the cost out; or, if the change is worth it, run `make \
             guard-update`, commit the new baselines with it, and say in the message what costs more, by how much, \
             and what for."
        );
    }

    #[test]
    fn what_costs_less_passes_and_is_told() {
        let comparison = compared(10_000, 9_000);
        assert!(comparison.passes());
        let text = comparison.to_string();
        assert!(text.contains("-10.00 %  cheaper"), "{text}");
        assert!(text.contains("1 cost less by more than 2 %: run `make guard-update`"), "{text}");
        assert!(
            compared(10_000, 9_800).to_string().ends_with("All 1 paths are within 2 % of their baselines.")
        );
    }

    #[test]
    fn paths_without_baseline_or_count_fail() {
        let (one, both) = (counts(&[("a", 1)]), counts(&[("a", 1), ("b", 2)]));
        let new = Comparison::new(&one, &both);
        assert!(!new.passes());
        assert!(new.to_string().contains("NO BASELINE"), "{new}");
        let gone = Comparison::new(&both, &one);
        assert!(!gone.passes());
        assert!(gone.to_string().contains("NOT COUNTED"), "{gone}");
        assert!(Comparison::new(&both, &both).passes());
    }

    fn summary(function: &str, id: &str, values: &str) -> String {
        let total = format!(r#"{{"metrics":{{"Dr":{{"values":{{"new":1}}}},"Ir":{{"values":{values}}}}}}}"#);
        let profile = format!(r#"{{"tool":"Callgrind","data":{{"parts":[],"total":{total}}}}}"#);
        format!(r#"{{"function_name":"{function}","id":{id},"profiles":[{profile}]}}"#)
    }

    #[test]
    fn counts_are_read_with_and_without_an_earlier_run() {
        let text = [
            summary("parse", r#""tcp4""#, r#"{"new":7}"#),
            summary("parse", r#""udp4""#, r#"{"new":8,"old":9}"#),
            summary("alone", "null", r#"{"new":10}"#),
        ];
        let expected = counts(&[("parse/tcp4", 7), ("parse/udp4", 8), ("alone", 10)]);
        assert_eq!(counted(&text.join("\n")).unwrap(), expected);
    }

    #[test]
    fn what_is_no_count_is_refused() {
        let fine = summary("parse", r#""tcp4""#, r#"{"new":7}"#);
        for (text, error) in [
            (String::new(), "nothing was counted"),
            ("what".to_owned(), "line 1: no summary by gungraun"),
            (format!("{fine}\n{fine}"), "line 2: parse/tcp4 comes twice"),
            (summary("parse", r#""tcp4""#, "{}"), "line 1: no instructions of parse/tcp4"),
            (fine.replace("Callgrind\",", "DHAT\","), "line 1: no callgrind run"),
        ] {
            let found = format!("{:#}", counted(&text).unwrap_err());
            assert!(found.starts_with(error), "{found}");
        }
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
