//! What a worker does when no packet comes.

/// What a worker does when no packet comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Idle {
    /// Spins: the least latency, and all of a core.
    Busy,
    /// Spins for a number of empty turns, then sleeps in poll(2) until a packet comes.
    Adaptive {
        /// Empty turns before it sleeps.
        turns: u32,
    },
}

impl Idle {
    /// Adaptive, after a thousand empty turns: some tens of microseconds.
    pub const ADAPTIVE: Self = Self::Adaptive { turns: 1000 };
}

impl Default for Idle {
    fn default() -> Self {
        Self::ADAPTIVE
    }
}
