//! Why packets are dropped: small numbers, each with a name and a sentence.

use std::sync::{Arc, Mutex, PoisonError};

/// A reason for which packets are dropped. Registered when a pipeline is built
/// ([`Build::drop_reason`](crate::worker::Build::drop_reason)); the same name gives the same number on
/// every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason(pub(crate) u8);

impl Reason {
    /// The reason's number: its place in [`Stats::reasons`](crate::Stats::reasons).
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a reason is called and means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropReason {
    /// In the form `stage.reason`, or one word for the framework's own.
    pub name: String,
    /// One sentence for whoever wonders where the packets went.
    pub sentence: String,
}

/// The framework's own reasons, in the order of their numbers.
pub(crate) mod builtin {
    use super::Reason;

    macro_rules! reasons {
        ($($constant:ident = $number:literal, $name:literal, $sentence:literal;)*) => {
            $(pub(crate) const $constant: Reason = Reason($number);)*
            pub(super) const ALL: &[(&str, &str)] = &[$(($name, $sentence)),*];
        };
    }

    reasons! {
        NO_VERDICT = 0, "no_verdict", "The packet came through the last stage and none had settled it.";
        TX_FULL = 1, "tx_full", "The port to send on took no more packets: its TX ring was full.";
        NO_QUEUE = 2, "no_queue", "The worker has no queue on the port that the packet was to be sent on.";
        TX_REFUSED = 3, "tx_refused", "The port to send on cannot carry this packet: too many segments, say.";
        HAND_OVER_FULL = 4, "hand_over_full", "The worker to hand over to was behind: its inbox was full.";
        HAND_OVER_SELF = 5, "hand_over_self", "A packet was handed over to a worker that does not exist, or to its own.";
        HAND_OVER_SIZE = 6, "hand_over_size", "The packet was too long to be handed over.";
        NO_FRAME = 7, "no_frame", "A packet from another worker or a file found no free frame.";
        NO_EXCEPTION_PATH = 8, "no_exception_path", "A stage passed the packet to the kernel, and the port has no way there.";
        HELD_DISCARDED = 9, "held_discarded", "A stage held the packet and let it go without releasing it.";
        BAD_DESCRIPTOR = 10, "bad_descriptor", "The RX ring named bytes that are in no frame, for the packet or a part of it.";
        HAND_OVER_STOPPED = 11, "hand_over_stopped", "The worker to hand over to was stopped.";
    }
}

/// The drop reasons of a runtime: the framework's and those that stages have registered.
#[derive(Debug, Clone)]
pub(crate) struct Reasons(Arc<Mutex<Vec<DropReason>>>);

impl Reasons {
    /// How many there can be.
    pub(crate) const MAX: usize = 256;

    pub(crate) fn new() -> Self {
        let builtin = builtin::ALL
            .iter()
            .map(|(name, sentence)| DropReason { name: (*name).into(), sentence: (*sentence).into() })
            .collect();
        Self(Arc::new(Mutex::new(builtin)))
    }

    /// The number for a name: the one it has, or the next.
    ///
    /// # Panics
    /// If there are [`Reasons::MAX`] already.
    pub(crate) fn register(&self, name: &str, sentence: &str) -> Reason {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = reasons.iter().position(|reason| reason.name == name) {
            return Reason(index as u8);
        }
        assert!(reasons.len() < Self::MAX, "more than {} drop reasons", Self::MAX);
        reasons.push(DropReason { name: name.into(), sentence: sentence.into() });
        Reason((reasons.len() - 1) as u8)
    }

    /// All of them, by number.
    pub(crate) fn list(&self) -> Vec<DropReason> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
