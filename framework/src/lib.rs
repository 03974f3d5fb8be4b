//! Userspace packet processing on AF_XDP.

pub mod mem;
