//! What a generated packet says of itself, in the last bytes of its payload: whose it is in the order, and when it left.
//!
//! 18 bytes, so that it fits into a UDP packet over IPv4 of the shortest Ethernet frame (60 bytes without the frame
//! check sequence). Multi-byte fields in network order:
//!
//! ```text
//!  0      2            6            10                     18
//!  | mark | flow       | sequence   | time                  |
//! ```

/// Bytes of a signature.
pub(crate) const LENGTH: usize = 18;

/// What every signature begins with: a packet without it is somebody else's.
const MARK: [u8; 2] = [0xaf, 0x58];

/// One packet's place in the order of its flow, and the time it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The number of the flow, from 0.
    pub(crate) flow: u32,
    /// The number of the packet within its flow, from 0; it starts again after 2^32.
    pub(crate) sequence: u32,
    /// When it left, in ns of `CLOCK_MONOTONIC`: comparable on the machine that sent it, and nowhere else.
    pub(crate) time: u64,
}

impl Signature {
    /// The bytes that go to the end of the payload.
    #[inline(always)]
    pub(crate) fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..2].copy_from_slice(&MARK);
        bytes[2..6].copy_from_slice(&self.flow.to_be_bytes());
        bytes[6..10].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[10..].copy_from_slice(&self.time.to_be_bytes());
        bytes
    }

    /// What the end of a payload says; None where it is no signature.
    #[inline(always)]
    pub(crate) fn from_end(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = payload.last_chunk()?;
        let (mark, rest) = bytes.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (sequence, time) = rest.split_first_chunk()?;
        (*mark == MARK).then_some(Self {
            flow: u32::from_be_bytes(*flow),
            sequence: u32::from_be_bytes(*sequence),
            time: u64::from_be_bytes(*time.first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let signature = Signature { flow: 0x0102_0304, sequence: u32::MAX, time: 0x1122_3344_5566_7788 };
        let payload = [&[7; 5][..], &signature.to_bytes()].concat();
        assert_eq!(Signature::from_end(&payload), Some(signature));
    }

    #[test]
    fn other_payloads_have_none() {
        assert_eq!(Signature::from_end(&[]), None);
        assert_eq!(Signature::from_end(&[0xaf; LENGTH - 1]), None);
        assert_eq!(Signature::from_end(&[0; 64]), None);
    }
}
