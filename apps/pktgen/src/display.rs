//! What people see: numbers with units, tables, and a display that is drawn anew while work goes on.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, presets};
use crossterm::QueueableCommand as _;
use crossterm::cursor::MoveToPreviousLine;
use crossterm::style::Stylize as _;
use crossterm::terminal::{Clear, ClearType, size};

/// Bytes of the frame check sequence, which no packet has any more when it comes to us: frame sizes and bit rates count
/// it, as RFC 2544 does.
pub(crate) const FCS: u64 = 4;

/// How often a display is drawn.
const DRAW_EVERY: Duration = Duration::from_secs(1);

/// Says something on the standard error. Where that cannot be written, nobody listens, and the work goes on.
pub(crate) fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// Prints a result on the standard output. A reader that has gone is no failure.
///
/// # Errors
/// Where it cannot be written: the disk is full, say.
pub(crate) fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// A number with its thousands apart.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 packet`, `1,234 packets`.
pub(crate) fn count(of: u64, thing: &str) -> String {
    format!("{} {thing}{}", number(of), if of == 1 { "" } else { "s" })
}

/// A part of a whole as a percentage, with three digits that say something; a dash for a part of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let percent = 100.0 * part as f64 / whole as f64;
    // Rounded to all, or to nothing, where it is not, it would hide what is asked for.
    match part {
        0 => "0 %".to_owned(),
        _ if part == whole => "100 %".to_owned(),
        _ if percent < 0.0001 => "< 0.0001 %".to_owned(),
        _ if percent < 1.0 => format!("{percent:.4} %"),
        _ => format!("{:.2} %", percent.min(99.99)),
    }
}

/// A time in µs.
pub(crate) fn micros(ns: f64) -> String {
    format!("{:.1}", ns / 1000.0)
}

/// Packets per second in millions, and bits per second in thousand millions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rate {
    pub(crate) packets_per_second: f64,
    pub(crate) bits_per_second: f64,
}

impl Rate {
    /// Of so many packets with so many bytes, the frame check sequence not counted yet.
    pub(crate) fn of(packets: u64, bytes: u64, seconds: f64) -> Self {
        if seconds <= 0.0 {
            return Self::default();
        }
        Self {
            packets_per_second: packets as f64 / seconds,
            bits_per_second: (bytes + FCS * packets) as f64 * 8.0 / seconds,
        }
    }

    pub(crate) fn mpps(self) -> String {
        format!("{:.3}", self.packets_per_second / 1e6)
    }

    pub(crate) fn gbits(self) -> String {
        format!("{:.3}", self.bits_per_second / 1e9)
    }
}

/// How text is shown: with headings in bold on a terminal, plain otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    /// Without any.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colour: false };

    pub(crate) fn on_stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    pub(crate) fn on_stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        // https://no-color.org
        Self { colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        if self.colour { text.bold().to_string() } else { text.to_owned() }
    }

    pub(crate) fn red(self, text: &str) -> String {
        if self.colour { text.red().to_string() } else { text.to_owned() }
    }
}

/// A table: the first column is of words, the others are of numbers.
pub(crate) fn table(
    style: Style,
    headings: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Vec<String> {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if style.colour {
        table.enforce_styling().style_text_only();
    } else {
        table.force_no_tty();
    }
    table.set_header(headings.iter().map(|heading| Cell::new(heading).add_attribute(Attribute::Bold)));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt().lines().map(str::to_owned).collect()
}

/// What is shown on the standard error while work goes on: on a terminal lines that are drawn over and over, elsewhere
/// a line a second.
pub(crate) struct Live {
    quiet: bool,
    terminal: bool,
    next: Instant,
    /// Lines as drawn last.
    drawn: u16,
}

impl Live {
    pub(crate) fn new(quiet: bool) -> Self {
        let next = Instant::now() + DRAW_EVERY;
        Self { quiet, terminal: io::stderr().is_terminal(), next, drawn: 0 }
    }

    /// Whether it is time to [`show`](Self::show).
    pub(crate) fn is_due(&self) -> bool {
        !self.quiet && Instant::now() >= self.next
    }

    /// Shows how it stands: `lines` in place of the last ones, or else `line`.
    pub(crate) fn show(&mut self, lines: &[String], line: &str) {
        let now = Instant::now();
        self.next = (self.next + DRAW_EVERY).max(now);
        // Nobody is left to be told where this fails.
        let _ = self.draw(lines, line);
    }

    /// Takes the lines away: what comes next takes their place.
    pub(crate) fn clear(&mut self) {
        if self.drawn > 0 {
            let mut out = io::stderr();
            let _ = out.queue(MoveToPreviousLine(self.drawn));
            let _ = out.queue(Clear(ClearType::FromCursorDown));
            let _ = out.flush();
            self.drawn = 0;
        }
    }

    fn draw(&mut self, lines: &[String], line: &str) -> io::Result<()> {
        let mut out = io::stderr();
        let (width, height) = size().unwrap_or_default();
        let fits = |line: &String| visible_width(line) <= usize::from(width);
        // Lines that do not fit cannot be drawn over.
        if !self.terminal || usize::from(height) <= lines.len() || !lines.iter().all(fits) {
            self.clear();
            return writeln!(out, "{line}");
        }
        if self.drawn > 0 {
            out.queue(MoveToPreviousLine(self.drawn))?;
        }
        for line in lines {
            writeln!(out, "{line}{}", Clear(ClearType::UntilNewLine))?;
        }
        out.queue(Clear(ClearType::FromCursorDown))?;
        self.drawn = lines.len() as u16;
        out.flush()
    }
}

/// Columns that a line takes, without the sequences that change its style.
fn visible_width(line: &str) -> usize {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().map_or(0, |text| text.chars().count());
    let rest = parts.map(|part| part.split_once('m').map_or(0, |(_, text)| text.chars().count()));
    first + rest.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 1234].map(|of| count(of, "packet")), ["0 packets", "1 packet", "1,234 packets"]);
        assert_eq!(micros(12_340.0), "12.3");
    }

    #[test]
    fn a_percentage_is_never_rounded_to_nothing_or_to_all() {
        let of = |part| percent(part, 10_000_000_000);
        let texts = [0, 1, 100_000, 50_000_000, 1_000_000_000, 9_999_999_999, 10_000_000_000].map(of);
        assert_eq!(texts, ["0 %", "< 0.0001 %", "0.0010 %", "0.5000 %", "10.00 %", "99.99 %", "100 %"]);
        assert_eq!(percent(0, 0), "-");
    }

    #[test]
    fn rates_count_the_frame_check_sequence() {
        // RFC 2544's smallest frame: 60 bytes and the check sequence.
        let rate = Rate::of(2_000_000, 120_000_000, 2.0);
        assert_eq!((rate.mpps(), rate.gbits()), ("1.000".to_owned(), "0.512".to_owned()));
        assert_eq!(Rate::of(1, 60, 0.0), Rate::default());
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long name".to_owned(), "1,000".to_owned()]];
        let plain = table(Style::PLAIN, &["name", "count"], rows.clone());
        assert_eq!(plain, ["name       count", "a              1", "long name  1,000"]);
        let coloured = table(Style { colour: true }, &["name", "count"], rows);
        assert!(coloured[0].contains('\u{1b}'), "{coloured:?}");
        assert_eq!(visible_width(&coloured[0].replace("\u{1b}[0m", "")), plain[0].len());
    }
}
