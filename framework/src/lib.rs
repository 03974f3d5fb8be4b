//! To be written.

#[allow(dead_code, unused_imports, reason = "the layers above are being built")]
pub mod xsk;
