//! What is said on the command line: rates, frame sizes, ranges of ports and addresses, times.
//!
//! The conventions, for all of `afx-pktgen`:
//!
//! - The size of a frame counts its frame check sequence of 4 bytes ([`FCS`]), as RFC 2544 does, and begins with the
//!   destination MAC address: a frame of 64 bytes is a packet of 60 given to the card.
//! - Bits per second are those of the frames' bytes, frame check sequence included, and nothing else.
//! - Per cent are of what the line takes: there each frame has 20 bytes more ([`GAP`]: preamble, start of frame, gap), so
//!   that 100 % of 10 Gbit/s are 14,880,952 frames of 64 bytes per second, or 7.62 Gbit/s.

mod range;
mod rate;
mod sizes;

pub(crate) use range::{AddressRange, PortRange};
pub(crate) use rate::Rate;
pub(crate) use sizes::Sizes;

use std::time::Duration;

/// Bytes of a frame that the card adds: the frame check sequence.
pub(crate) const FCS: usize = 4;

/// Bytes of line time between two frames: preamble and start of frame (8), and the shortest gap (12).
pub(crate) const GAP: usize = 20;

/// What was said is not what was asked for: what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnitError(String);

impl UnitError {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// A span of time above zero: `10s`, `1m 30s`, `500ms`. For clap's `value_parser`.
pub(crate) fn duration(text: &str) -> Result<Duration, UnitError> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(UnitError::new("no time at all: at least `1ms`")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(UnitError::new("not a time: say `10s`, `1m 30s` or `500ms`")),
    }
}

/// A number, of which decimal prefixes stand behind it: `2.5` and `k`, `M` or `G` as in `2.5G`.
fn scaled(text: &str) -> Option<f64> {
    let (digits, factor) = match text.trim_end().char_indices().next_back()? {
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'm' | 'M') => (&text[..at], 1e6),
        (at, 'g' | 'G') => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    // Plain decimals alone: `inf`, `nan`, `1e9` and signs are nobody's rate.
    let plain = digits.trim_end().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = plain.then(|| digits.trim_end().parse().ok())??;
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "10", "-1s", "soon"] {
            assert_eq!(
                duration(wrong).unwrap_err().to_string(),
                "not a time: say `10s`, `1m 30s` or `500ms`"
            );
        }
        assert_eq!(duration("0s").unwrap_err().to_string(), "no time at all: at least `1ms`");
    }

    #[test]
    fn numbers_with_prefixes() {
        assert_eq!(scaled("64"), Some(64.0));
        assert_eq!(scaled("2.5G"), Some(2.5e9));
        assert_eq!(scaled("500 k"), Some(500e3));
        for wrong in ["", "k", ".", "1e3", "inf", "nan", "-1", "1.2.3"] {
            assert_eq!(scaled(wrong), None, "{wrong}");
        }
    }
}
