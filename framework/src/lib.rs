//! To be written.

#[cfg(feature = "control")]
pub mod control;
pub mod stage;
