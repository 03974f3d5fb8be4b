//! Userspace packet processing on AF_XDP: the speed of a kernel-bypass data plane, in safe Rust, on
//! a network card that stays a Linux network card.

pub mod mem;
mod xsk;
