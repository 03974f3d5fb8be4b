//! To be written.

pub mod stage;
