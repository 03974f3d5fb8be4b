//! The board: words that one worker writes whole and anyone reads whole.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Words under a sequence lock: one writer that never waits, readers that try again when the writer
/// was at it (H.-J. Boehm, "Can seqlocks get along with programming language memory models?", 2012).
pub(crate) struct Board {
    sequence: AtomicU64,
    words: Box<[AtomicU64]>,
}

impl Board {
    pub(crate) fn new(words: usize) -> Self {
        Self { sequence: AtomicU64::new(0), words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Writes all words, at most as many as there are. For the board's one writer.
    pub(crate) fn write(&self, words: impl IntoIterator<Item = u64>) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.sequence.store(sequence + 2, Ordering::Release);
    }

    /// All words as they were at one moment.
    pub(crate) fn read(&self) -> Vec<u64> {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let words = self.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.sequence.load(Ordering::Relaxed) {
                return words;
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_reader_never_sees_half_of_a_write() {
        let board = Arc::new(Board::new(16));
        let writer = {
            let board = board.clone();
            std::thread::spawn(move || (1..=200_000u64).for_each(|round| board.write([round; 16])))
        };
        let mut seen = 0;
        while seen < 200_000 {
            let words = board.read();
            assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
            assert!(words[0] >= seen);
            seen = words[0];
        }
        writer.join().unwrap();
    }
}
