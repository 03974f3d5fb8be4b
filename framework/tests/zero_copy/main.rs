//! AF_XDP on cards that do zero copy. Runs in the guest that `make test-zero-copy` boots, and nowhere else: the cards
//! there are what `scripts/guest` gives it. What is in `copying` runs on every kernel of the guest.
//!
//! Each test ends with every frame accounted for and no XDP program left behind.

mod balance;
mod bytes;
mod cable;
mod copying;
mod doctor;
mod generator;
mod leaks;
mod modes;
mod probe;
mod proof;
mod pump;
mod settings;
mod stall;
mod support;
mod too_old;
mod trouble;
mod zero;
