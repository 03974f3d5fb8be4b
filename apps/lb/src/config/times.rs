//! Times: as files write them, and as they are written.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use afx::stage::balancer::connections::Timeouts;
use toml::de::DeValue;

use super::diagnostic::Problem;
use super::values;

/// For how long a flow may be silent. The balancer's clock of flows has steps of some 70 ms.
pub(super) const SILENCE: RangeInclusive<Duration> = Duration::from_millis(100)..=Timeouts::MAX;

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A time in the largest unit of which it is a whole number, as in a file: "15m". Below 1 ms nothing counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if milliseconds == 0 {
            return f.write_str("0s");
        }
        let (unit, length) =
            UNITS.iter().find(|(_, length)| milliseconds.is_multiple_of(*length)).expect("1 ms divides all");
        write!(f, "{}{unit}", milliseconds / length)
    }
}

impl serde::Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time within a range.
pub(super) fn time(value: &DeValue<'_>, range: RangeInclusive<Duration>) -> Result<Duration, Problem> {
    let example = "expected is a time such as \"500ms\", \"30s\", \"15m\" or \"2h\"";
    let text = values::string(value, example)?;
    let wrong = || Problem::new(format!("\"{text}\" is no time")).help(example);
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == &text[digits..]).ok_or_else(wrong)?;
    let duration = Duration::from_millis(number.saturating_mul(*unit));
    if !range.contains(&duration) {
        let help = format!("it can be {} to {}", Time(*range.start()), Time(*range.end()));
        return Err(Problem::new(format!("\"{text}\" is out of range")).help(help));
    }
    Ok(duration)
}
