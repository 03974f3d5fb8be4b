//! Header views: fields of a header that lies in borrowed bytes.
//!
//! `new_checked` looks once whether the header is whole; the accessors then read without failing. Setters are there
//! where the bytes are mutable, and write only their field: checksums are the caller's affair, see
//! [`checksum`](super::checksum) and [`rewrite`](super::rewrite).

mod ethernet;
mod icmp;
mod ipv4;
mod ipv6;
mod tcp;
mod udp;

pub use ethernet::{Ethernet, VlanTag};
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use tcp::{Tcp, TcpFlags};
pub use udp::Udp;

/// The two bytes at `at`. Views call it with offsets within the length they have checked.
#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The four bytes at `at`.
#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

/// The `N` bytes at `at`.
#[inline]
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Writes `array` at `at`.
#[inline]
fn put<const N: usize>(bytes: &mut [u8], at: usize, array: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&array);
}
