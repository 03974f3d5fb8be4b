//! Numbers, times and tables for people.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, presets};

/// Says something on the standard error. Where that cannot be written, nobody listens, and the work goes on.
pub(crate) fn complain(what: impl Display) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// What a colour is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Color {
    /// As it should be.
    Green,
    /// Not quite.
    Yellow,
    /// Not at all.
    Red,
}

impl Color {
    fn of_text(self) -> crossterm::style::Color {
        match self {
            Self::Green => crossterm::style::Color::Green,
            Self::Yellow => crossterm::style::Color::Yellow,
            Self::Red => crossterm::style::Color::Red,
        }
    }

    fn of_cell(self) -> comfy_table::Color {
        match self {
            Self::Green => comfy_table::Color::Green,
            Self::Yellow => comfy_table::Color::Yellow,
            Self::Red => comfy_table::Color::Red,
        }
    }
}

/// How text is shown: with colours on a terminal, plain otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Whether colours are wanted.
    pub(crate) colour: bool,
    /// Whether a line may be written over.
    pub(crate) terminal: bool,
}

impl Style {
    /// For something that is, or is not, a terminal.
    pub(crate) fn of(terminal: bool) -> Self {
        // https://no-color.org
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour, terminal }
    }

    /// Text in a colour, where there are colours.
    pub(crate) fn paint(self, text: &str, colour: Color) -> String {
        use crossterm::style::Stylize as _;
        if self.colour { text.with(colour.of_text()).to_string() } else { text.to_owned() }
    }

    /// Text as a heading, where there are such.
    pub(crate) fn bold(self, text: &str) -> String {
        use crossterm::style::Stylize as _;
        if self.colour { text.bold().to_string() } else { text.to_owned() }
    }
}

/// A table: columns with headings, aligned. Numbers stand at the right.
pub(crate) struct Table {
    style: Style,
    table: comfy_table::Table,
    rows: usize,
    /// What to say instead of a table without rows.
    empty: &'static str,
}

/// A column: its heading, and whether its entries are numbers.
pub(crate) type Column = (&'static str, bool);

/// A column of words.
pub(crate) const fn words(heading: &'static str) -> Column {
    (heading, false)
}

/// A column of numbers.
pub(crate) const fn numbers(heading: &'static str) -> Column {
    (heading, true)
}

impl Table {
    pub(crate) fn new(style: Style, empty: &'static str, columns: &[Column]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if style.colour {
            table.enforce_styling().style_text_only();
        } else {
            table.force_no_tty();
        }
        table
            .set_header(columns.iter().map(|(heading, _)| Cell::new(heading).add_attribute(Attribute::Bold)));
        for (column, (_, numbers)) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if *numbers {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { style, table, rows: 0, empty }
    }

    /// A row: texts, each in a colour or none.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (String, Option<Color>)>) {
        let cell = |(text, colour): (String, Option<Color>)| match colour {
            Some(colour) if self.style.colour => Cell::new(text).fg(colour.of_cell()),
            _ => Cell::new(text),
        };
        let cells: Vec<_> = cells.into_iter().map(cell).collect();
        self.table.add_row(cells);
        self.rows += 1;
    }

    /// The table, or what to say instead; ends with an end of line.
    pub(crate) fn finish(self) -> String {
        if self.rows == 0 { format!("{}\n", self.empty) } else { format!("{}\n", self.table.trim_fmt()) }
    }
}

/// An entry of a table without a colour.
pub(crate) fn plain(text: impl Into<String>) -> (String, Option<Color>) {
    (text.into(), None)
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

/// A number of things: `1 real`, `1,234 reals`.
pub(crate) fn count(of: u64, thing: &str) -> String {
    format!("{} {thing}{}", number(of), if of == 1 { "" } else { "s" })
}

/// A part of the whole as a percentage; a dash for a part of nothing.
pub(crate) fn percent(part: f64) -> String {
    if part.is_finite() { format!("{:.1} %", 100.0 * part) } else { "-".to_owned() }
}

/// A time in the two largest of its units: `1.2s`, `59s`, `3m 20s`, `4d 11h`.
pub(crate) fn time(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX).as_secs();
    match whole {
        0..10 => format!("{:.1}s", seconds.clamp(0.0, 9.9)),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{}m {}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let texts = [0, 999, 1000, 65_536, 1_234_567].map(number);
        assert_eq!(texts, ["0", "999", "1,000", "65,536", "1,234,567"]);
        assert_eq!(percent(0.25), "25.0 %");
        assert_eq!(percent(f64::NAN), "-");
        assert_eq!([0, 1, 1234].map(|of| count(of, "real")), ["0 reals", "1 real", "1,234 reals"]);
    }

    #[test]
    fn times_are_as_exact_as_need_be() {
        let texts = [0.0, 1.25, 9.99, 10.0, 59.9, 61.0, 3599.0, 3661.0, 90_061.0, f64::INFINITY].map(time);
        assert_eq!(texts[..9], ["0.0s", "1.2s", "9.9s", "10s", "59s", "1m 1s", "59m 59s", "1h 1m", "1d 1h"]);
        assert_eq!(time(-1.0), "0.0s");
    }

    #[test]
    fn tables_are_aligned_and_coloured_where_it_helps() {
        let make = |colour| {
            let style = Style { colour, terminal: colour };
            let mut table = Table::new(style, "There is nothing.", &[words("name"), numbers("count")]);
            table.row([plain("a"), ("1".to_owned(), Some(Color::Red))]);
            table.row([plain("long name"), plain("1,000")]);
            table.finish()
        };
        assert_eq!(make(false), "name       count\na              1\nlong name  1,000\n");
        let coloured = make(true);
        assert!(coloured.contains("\u{1b}[38;5;9m1\u{1b}[39m"), "{coloured:?}");
        let plain_style = Style { colour: false, terminal: false };
        assert_eq!(
            Table::new(plain_style, "There is nothing.", &[words("name")]).finish(),
            "There is nothing.\n"
        );
    }
}
