//! How fast packets leave.

use std::fmt;
use std::str::FromStr;

use super::{GAP, UnitError, scaled};

/// How fast packets leave: `1Mpps`, `500kpps`, `10Gbit/s`, `2.5Gbit`, `50%`, `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// As fast as it goes.
    Max,
    /// Packets per second.
    Packets(f64),
    /// Bits per second, of frames with their frame check sequence.
    Bits(f64),
    /// Per cent of the frames that the line takes.
    Percent(f64),
}

impl Rate {
    /// Packets per second, for frames of `mean` bytes on a line of `line` bit/s; None for as fast as it goes.
    pub(crate) fn packets_per_second(self, mean: f64, line: Option<u64>) -> Result<Option<f64>, UnitError> {
        Ok(match self {
            Self::Max => None,
            Self::Packets(packets) => Some(packets),
            Self::Bits(bits) => Some(bits / (8.0 * mean)),
            Self::Percent(percent) => {
                let Some(line) = line else {
                    return Err(UnitError::new(format!(
                        "{self} of what? The interface says no speed: say the rate as `1Mpps` or `10Gbit/s`"
                    )));
                };
                Some(line as f64 * percent / 100.0 / (8.0 * (mean + GAP as f64)))
            }
        })
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError::new(
                "not a rate: say packets as `1Mpps`, bits as `10Gbit/s`, per cent of the line as `50%`, or `max`",
            )
        };
        let text = text.trim();
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        let lower = text.to_ascii_lowercase();
        let number = |unit: &str| lower.strip_suffix(unit).map(|number| scaled(number).ok_or_else(wrong));
        let bits = || ["bit/s", "bits/s", "bps", "bit"].into_iter().find_map(number);
        // `pps` before `bps`: neither ends in the other, but both are looked for behind a prefix.
        let rate = if let Some(packets) = number("pps") {
            Self::Packets(packets?)
        } else if let Some(percent) = number("%") {
            Self::Percent(percent?)
        } else if let Some(bits) = bits() {
            Self::Bits(bits?)
        } else {
            return Err(wrong());
        };
        match rate {
            Self::Packets(number) | Self::Bits(number) | Self::Percent(number) if number <= 0.0 => {
                Err(UnitError::new("nothing would ever be sent: say a rate above 0, or `max`"))
            }
            Self::Percent(percent) if percent > 100.0 => {
                Err(UnitError::new("more than the line takes: at most `100%`, or `max`"))
            }
            rate => Ok(rate),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match *self {
            Self::Max => return f.write_str("max"),
            Self::Percent(percent) => return write!(f, "{percent}%"),
            Self::Packets(number) => (number, "pps"),
            Self::Bits(number) => (number, "bit/s"),
        };
        let (factor, prefix) = match number {
            1e9.. => (1e9, "G"),
            1e6.. => (1e6, "M"),
            1e3.. => (1e3, "k"),
            _ => (1.0, ""),
        };
        write!(f, "{}{prefix}{unit}", number / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn rates_as_they_are_said() {
        assert_eq!(rate("max"), Rate::Max);
        assert_eq!(rate("1Mpps"), Rate::Packets(1e6));
        assert_eq!(rate("500kpps"), Rate::Packets(500e3));
        assert_eq!(rate("12 pps"), Rate::Packets(12.0));
        assert_eq!(rate("10Gbit/s"), Rate::Bits(10e9));
        assert_eq!(rate("2.5Gbit"), Rate::Bits(2.5e9));
        assert_eq!(rate("100 Mbps"), Rate::Bits(100e6));
        assert_eq!(rate("50%"), Rate::Percent(50.0));
    }

    #[test]
    fn what_is_shown_is_read() {
        for text in ["max", "1Mpps", "500kpps", "12pps", "10Gbit/s", "2.5Gbit/s", "99.9%"] {
            assert_eq!(rate(text).to_string(), text);
        }
    }

    #[test]
    fn what_would_be_right_is_said() {
        let refused = |text: &str| text.parse::<Rate>().unwrap_err().to_string();
        for wrong in ["", "1M", "1000", "fast", "-1pps", "infpps", "pps", "1e9pps", "1MB/s"] {
            assert!(refused(wrong).contains("say packets as `1Mpps`"), "{wrong}");
        }
        assert!(refused("0pps").contains("above 0"));
        assert!(refused("101%").contains("at most `100%`"));
    }

    #[test]
    fn per_cent_are_of_the_line() {
        let packets = |text: &str, mean, line| rate(text).packets_per_second(mean, line);
        // RFC 2544 and everyone after it: 14,880,952 frames of 64 bytes on 10 Gbit/s.
        assert_eq!(packets("100%", 64.0, Some(10_000_000_000)).unwrap().unwrap().floor(), 14_880_952.0);
        assert_eq!(packets("1Gbit/s", 125.0, None), Ok(Some(1e6)));
        assert_eq!(packets("3pps", 64.0, None), Ok(Some(3.0)));
        assert_eq!(packets("max", 64.0, None), Ok(None));
        assert!(packets("50%", 64.0, None).unwrap_err().to_string().starts_with("50% of what?"));
    }
}
