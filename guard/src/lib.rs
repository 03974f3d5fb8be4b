//! The hot paths of afx on fixed inputs: for the benches of the crate `afx`, which time them, and for the guard,
//! which counts their instructions and compares them with what they were (`make guard`).
//!
//! Whatever is not to be counted is in a path's `new`, what is in its `run`. Seeds and keys are fixed and nothing
//! depends on the clock, so that the same program does the same each time.

pub mod compare;
pub mod paths;
