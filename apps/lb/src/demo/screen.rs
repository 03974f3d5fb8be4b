//! What the demo is shown on: a terminal, on which a table is drawn again and again in place, or anything else, which
//! gets a line now and then.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use crossterm::QueueableCommand as _;
use crossterm::cursor::MoveToPreviousLine;
use crossterm::style::{Color, Stylize as _};
use crossterm::terminal::{Clear, ClearType, size};

use super::live::View;
pub(super) use crate::text::{number, percent};

/// How often a table is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Where the demo is shown.
pub(super) struct Screen {
    out: Box<dyn Write + Send>,
    terminal: bool,
    colour: bool,
    /// When the table, or the line, is due; None before it was asked for the first time.
    next: Option<Instant>,
    /// Lines of the table as it was drawn last.
    drawn: u16,
}

impl Screen {
    pub(super) fn on_stdout() -> Self {
        Self::new(Box::new(io::stdout()), io::stdout().is_terminal())
    }

    pub(super) fn on_stderr() -> Self {
        Self::new(Box::new(io::stderr()), io::stderr().is_terminal())
    }

    fn new(out: Box<dyn Write + Send>, terminal: bool) -> Self {
        // https://no-color.org
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out, terminal, colour, next: None, drawn: 0 }
    }

    /// Text in a colour, where there are colours.
    pub(super) fn paint(&self, text: impl fmt::Display, colour: Color) -> String {
        if self.colour { text.to_string().with(colour).to_string() } else { text.to_string() }
    }

    /// Text as a heading, where there are such.
    pub(super) fn bold(&self, text: impl fmt::Display) -> String {
        if self.colour { text.to_string().bold().to_string() } else { text.to_string() }
    }

    /// A heading, and below it names and values.
    pub(super) fn facts(&mut self, heading: &str, facts: &[(String, String)]) -> io::Result<()> {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        writeln!(self, "{heading}")?;
        for (name, value) in facts {
            writeln!(self, "  {name:width$}  {value}")?;
        }
        writeln!(self)
    }

    /// Whether it is time to draw. It is not at first: then there are no rates yet.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        now >= *self.next.get_or_insert(now + DRAW_EVERY)
    }

    /// Draws the table over the last one; without a terminal, prints a line.
    pub(super) fn draw(&mut self, view: &View<'_>) -> io::Result<()> {
        let lines = view.table(self);
        // A table that does not fit cannot be drawn over.
        let (width, height) = size().unwrap_or_default();
        let fits = usize::from(width) >= View::WIDTH && usize::from(height) > lines.len();
        if !self.terminal || !fits {
            self.next = Some(Instant::now() + LINE_EVERY);
            return writeln!(self, "{}", view.line());
        }
        self.next = Some(Instant::now() + DRAW_EVERY);
        if self.drawn > 0 {
            self.out.queue(MoveToPreviousLine(self.drawn))?;
        }
        for line in &lines {
            writeln!(self.out, "{line}{}", Clear(ClearType::UntilNewLine))?;
        }
        self.out.queue(Clear(ClearType::FromCursorDown))?;
        self.drawn = lines.len() as u16;
        self.out.flush()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
