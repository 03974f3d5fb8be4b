//! What was found, for people.

use std::fmt::Write as _;

use afx::doctor::{Finding, Overview, Report, Topic, Verdict};

use super::Fixed;
use crate::text::{Color, Style, Table, number, numbers, plain, words};

/// Where explanations begin, and where their lines end at most.
const INDENT: usize = 19;
const WIDTH: usize = 110;

/// The page. `tried` is whether drivers were put to the test.
pub(super) fn show(report: &Report, fixed: Option<&[Fixed]>, tried: bool, style: Style) -> String {
    let mut sections: Vec<String> = fixed.map(|fixed| mended(fixed, style)).into_iter().collect();
    let width = report.findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for topic in report.findings.chunk_by(|one, other| one.topic == other.topic) {
        let heading = match (topic[0].topic, &report.interface) {
            (Topic::Interface, Some(name)) => format!("interface {name}"),
            (topic, _) => topic.to_string(),
        };
        let lines: String = topic.iter().map(|finding| of_finding(finding, width, style)).collect();
        sections.push(format!("{}\n{lines}", style.bold(&heading)));
    }
    sections.push(interfaces(&report.interfaces, style));
    let counts = [Verdict::WillNotWork, Verdict::CouldBeBetter, Verdict::Good]
        .map(|verdict| (report.count(verdict), verdict))
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, verdict)| style.paint(&format!("{count} {verdict}"), colour(verdict)));
    let mut end = counts.collect::<Vec<_>>().join(", ") + "\n";
    match &report.interface {
        None => end.push_str("`afx-lb doctor INTERFACE` looks at one of them.\n"),
        Some(name) if !tried => {
            let _ = writeln!(end, "`afx-lb doctor {name} --try` puts the driver to the test, for a moment.");
        }
        Some(_) => {}
    }
    sections.push(end);
    sections.join("\n")
}

fn colour(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Good => Color::Green,
        Verdict::CouldBeBetter => Color::Yellow,
        Verdict::WillNotWork => Color::Red,
    }
}

fn of_finding(finding: &Finding, width: usize, style: Style) -> String {
    let verdict = style.paint(&format!("{:<15}", finding.verdict), colour(finding.verdict));
    let mut text = format!("  {verdict}  {:<width$}  {}\n", finding.name, finding.what);
    for line in wrapped(&finding.why, WIDTH - INDENT) {
        let _ = writeln!(text, "{:INDENT$}{line}", "");
    }
    if let Some(remedy) = &finding.remedy {
        let note = if remedy.is_safe() { "    (or --fix)" } else { "" };
        let _ = writeln!(text, "{:INDENT$}$ {}{note}", "", remedy.command);
    }
    text
}

/// Lines of so many characters at most, but for words that are longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn mended(fixed: &[Fixed], style: Style) -> String {
    if fixed.is_empty() {
        return "There is nothing that may be mended at once.\n".to_owned();
    }
    let mut text = style.bold("mended") + "\n";
    for Fixed { command, result } in fixed {
        let _ = match result {
            Ok(before) => {
                let done = style.paint(&format!("{:<15}", "done"), Color::Green);
                writeln!(text, "  {done}  {command}\n{:INDENT$}before: {before}", "")
            }
            Err(error) => {
                let failed = style.paint(&format!("{:<15}", "failed"), Color::Red);
                writeln!(text, "  {failed}  {command}\n{:INDENT$}{error}", "")
            }
        };
    }
    text
}

fn interfaces(all: &[Overview], style: Style) -> String {
    let columns = [
        words("interface"),
        words("driver"),
        words("state"),
        numbers("queues"),
        numbers("MTU"),
        words("XDP"),
        words("XDP program"),
    ];
    let mut table = Table::new(style, "There is no interface.", &columns);
    for overview in all {
        let state = if overview.is_up { "up" } else { "down" };
        table.row([
            plain(&overview.name),
            plain(if overview.driver.is_empty() { "-" } else { &overview.driver }),
            plain(state),
            plain(number(overview.rx_queues.into())),
            plain(overview.mtu.to_string()),
            plain(&overview.xdp),
            plain(overview.program.as_deref().unwrap_or("none")),
        ]);
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, terminal: false };

    #[test]
    fn explanations_are_wrapped_and_commands_are_not() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a-word-that-is-long b", 4), ["a-word-that-is-long", "b"]);
        assert!(wrapped("", 4).is_empty());
    }

    #[test]
    fn what_was_mended_says_what_was_there_before() {
        let fixed = [
            Fixed { command: "ethtool -K eth0 gro off".into(), result: Ok("rx-gro on".into()) },
            Fixed { command: "echo 2 > file".into(), result: Err("Permission denied".into()) },
        ];
        let expected = "\
mended
  done             ethtool -K eth0 gro off
                   before: rx-gro on
  failed           echo 2 > file
                   Permission denied
";
        assert_eq!(mended(&fixed, PLAIN), expected);
        assert_eq!(mended(&[], PLAIN), "There is nothing that may be mended at once.\n");
    }

    #[test]
    fn every_finding_is_on_the_page() {
        let report = afx::doctor::examine(Some("lo")).unwrap();
        let page = show(&report, None, false, PLAIN);
        for finding in &report.findings {
            assert!(page.contains(&format!("{:<15}  {}", finding.verdict, finding.name)), "{page}");
        }
        assert!(page.contains("\ninterface lo\n") && page.contains("--try"), "{page}");
        assert!(!page.contains('\u{1b}'));
        let coloured = show(&report, None, true, Style { colour: true, terminal: true });
        assert!(coloured.contains('\u{1b}') && !coloured.contains("--try"));
    }
}
