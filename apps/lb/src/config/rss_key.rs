//! The key that a card hashes packets with.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use afx::settings::SYMMETRIC_KEY;

/// A key, or what is repeated until it is one: at least one byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RssKey(Vec<u8>);

/// The word for the well-known key that is the same both ways.
const SYMMETRIC: &str = "symmetric";
/// Bytes at most: more than the key of any card has.
const LONGEST: usize = 256;

impl RssKey {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for RssKey {
    type Err = ();

    /// Reads the word, or bytes in hexadecimal, with colons between or none.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text == SYMMETRIC {
            return Ok(Self(SYMMETRIC_KEY.into()));
        }
        let digits: Vec<u8> = if text.contains(':') {
            let bytes: Vec<&str> = text.split(':').collect();
            if bytes.iter().any(|byte| byte.len() != 2) {
                return Err(());
            }
            bytes.concat().into()
        } else {
            text.into()
        };
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect::<Option<_>>().ok_or(())?;
        if (1..=LONGEST).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(()) }
    }
}

impl Display for RssKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == SYMMETRIC_KEY {
            return f.write_str(SYMMETRIC);
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_written() {
        for (text, written) in [
            ("symmetric", "symmetric"),
            ("6d5a", "symmetric"),
            ("6D:5a", "symmetric"),
            ("a1b2c3", "a1b2c3"),
            ("a1:b2:c3", "a1b2c3"),
        ] {
            assert_eq!(text.parse::<RssKey>().unwrap().to_string(), written);
        }
        let long = "00".repeat(257);
        for text in ["", "6", "6d5", "6d:5", "6d:", ":6d", "6:d5", "0x6d", "6d5ä", "+a", "Symmetric", &long]
        {
            assert_eq!(text.parse::<RssKey>(), Err(()), "{text}");
        }
    }
}
