//! To be written.

#[allow(dead_code, reason = "the layers above are being built")]
pub(crate) mod xsk;
