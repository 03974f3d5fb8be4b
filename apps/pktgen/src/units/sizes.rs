//! How long frames are.

use std::fmt;
use std::str::FromStr;

use super::UnitError;

/// Frame sizes in bytes, frame check sequence included: `64`, `64-1518` at random, `imix`, or shares as in
/// `list 64:7,570:4,1518:1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// All alike.
    Fixed(u16),
    /// Each size of these as often as another.
    Between(u16, u16),
    /// Sizes, and how many frames of so many have it. At least one; no share is 0.
    Shares(Vec<(u16, u32)>),
}

/// The shortest frame of Ethernet.
const SHORTEST: u16 = 64;
/// The longest that any card takes.
const LONGEST: u16 = 9600;

/// The simple Internet mix.
const IMIX: [(u16, u32); 3] = [(64, 7), (570, 4), (1518, 1)];

impl Sizes {
    /// The simple Internet mix: 7, 4 and 1 of 64, 570 and 1518 bytes.
    pub(crate) fn imix() -> Self {
        Self::Shares(IMIX.to_vec())
    }

    /// The mean size in bytes.
    pub(crate) fn mean(&self) -> f64 {
        match self {
            Self::Fixed(size) => f64::from(*size),
            Self::Between(low, high) => (f64::from(*low) + f64::from(*high)) / 2.0,
            Self::Shares(shares) => {
                let frames: f64 = shares.iter().map(|(_, share)| f64::from(*share)).sum();
                let bytes: f64 =
                    shares.iter().map(|(size, share)| f64::from(*size) * f64::from(*share)).sum();
                bytes / frames
            }
        }
    }

    /// The shortest.
    pub(crate) fn shortest(&self) -> u16 {
        match self {
            Self::Fixed(size) | Self::Between(size, _) => *size,
            Self::Shares(shares) => shares.iter().map(|(size, _)| *size).min().unwrap_or(SHORTEST),
        }
    }

    /// The longest.
    pub(crate) fn longest(&self) -> u16 {
        match self {
            Self::Fixed(size) | Self::Between(_, size) => *size,
            Self::Shares(shares) => shares.iter().map(|(size, _)| *size).max().unwrap_or(SHORTEST),
        }
    }
}

impl FromStr for Sizes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::imix());
        }
        if let Some(list) = text.strip_prefix("list ") {
            return list.split(',').map(share).collect::<Result<_, _>>().map(Self::Shares);
        }
        if text.contains(':') {
            return text.split(',').map(share).collect::<Result<_, _>>().map(Self::Shares);
        }
        match text.split_once('-') {
            None => size(text).map(Self::Fixed),
            Some((low, high)) => match (size(low)?, size(high)?) {
                (low, high) if low < high => Ok(Self::Between(low, high)),
                (low, high) if low == high => Ok(Self::Fixed(low)),
                (low, high) => Err(UnitError::new(format!("the smaller size comes first: `{high}-{low}`"))),
            },
        }
    }
}

fn wrong() -> UnitError {
    UnitError::new(
        "not frame sizes: say `64`, `64-1518` for any between, `imix`, or shares as `list 64:7,570:4,1518:1`",
    )
}

fn size(text: &str) -> Result<u16, UnitError> {
    let bytes: u64 = text.trim().parse().map_err(|_| wrong())?;
    match u16::try_from(bytes) {
        Ok(size @ SHORTEST..=LONGEST) => Ok(size),
        _ => Err(UnitError::new(format!(
            "frames of {bytes} bytes: {SHORTEST} to {LONGEST}, the frame check sequence's 4 counted"
        ))),
    }
}

fn share(text: &str) -> Result<(u16, u32), UnitError> {
    let (bytes, share) = text.split_once(':').ok_or_else(wrong)?;
    let share: u32 = share.trim().parse().map_err(|_| wrong())?;
    if !(1..=1000).contains(&share) {
        return Err(UnitError::new(format!("a share of {share}: 1 to 1000")));
    }
    Ok((size(bytes)?, share))
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Between(low, high) => write!(f, "{low}-{high}"),
            Self::Shares(shares) if *shares == IMIX => f.write_str("imix"),
            Self::Shares(shares) => {
                f.write_str("list ")?;
                for (index, (size, share)) in shares.iter().enumerate() {
                    write!(f, "{}{size}:{share}", if index > 0 { "," } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Sizes {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_shown_is_read() {
        for text in ["64", "64-1518", "imix", "list 64:1,1518:3"] {
            assert_eq!(sizes(text).to_string(), text);
        }
        assert_eq!(sizes("list 64:7,570:4,1518:1"), Sizes::imix());
        assert_eq!(sizes("64:7, 570:4, 1518:1"), Sizes::imix());
        assert_eq!(sizes("128-128"), Sizes::Fixed(128));
    }

    #[test]
    fn means_and_ends() {
        assert_eq!(sizes("64-1518").mean(), 791.0);
        assert_eq!(sizes("imix").mean(), (7.0 * 64.0 + 4.0 * 570.0 + 1518.0) / 12.0);
        assert_eq!((sizes("imix").shortest(), sizes("imix").longest()), (64, 1518));
        assert_eq!((sizes("100-200").shortest(), sizes("100-200").longest()), (100, 200));
    }

    #[test]
    fn what_would_be_right_is_said() {
        let refused = |text: &str| text.parse::<Sizes>().unwrap_err().to_string();
        for wrong in ["", "big", "64-", "-64", "list 64", "list ", "64:", "64:x", "6.4"] {
            assert!(refused(wrong).contains("say `64`, `64-1518`"), "{wrong}: {}", refused(wrong));
        }
        assert_eq!(refused("60"), "frames of 60 bytes: 64 to 9600, the frame check sequence's 4 counted");
        assert!(refused("64-70000").starts_with("frames of 70000 bytes"));
        assert_eq!(refused("1518-64"), "the smaller size comes first: `64-1518`");
        assert_eq!(refused("64:0"), "a share of 0: 1 to 1000");
    }
}
