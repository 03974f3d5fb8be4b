//! Userspace packet processing on AF_XDP.

pub mod packet;
