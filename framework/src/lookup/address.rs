//! What a table's addresses are: IPv4's or IPv6's, as numbers.

use std::fmt;

use ipnet::{Ipv4Net, Ipv6Net};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u128 {}
}

/// An address as a number, in host byte order: `u32` for IPv4, `u128` for IPv6, as
/// [`Ipv4Addr::to_bits`](std::net::Ipv4Addr::to_bits) and [`Ipv6Addr::to_bits`](std::net::Ipv6Addr::to_bits) give it.
///
/// No other type implements it.
pub trait Address: sealed::Sealed + Copy + Ord + Into<u128> + fmt::Debug + 'static {
    /// A prefix of such addresses: [`Ipv4Net`] or [`Ipv6Net`].
    type Prefix: Copy + Eq + fmt::Display + fmt::Debug;

    /// The address's length in bits.
    #[doc(hidden)]
    const BITS: u8;

    /// The prefix's first address and its length.
    #[doc(hidden)]
    fn of_prefix(prefix: Self::Prefix) -> (Self, u8);

    /// The prefix of that length which an address is in.
    #[doc(hidden)]
    fn prefix(self, len: u8) -> Self::Prefix;

    /// The uppermost 24 bits.
    #[doc(hidden)]
    fn upper(self) -> usize;

    /// The 8 bits that follow the uppermost `24 + 8 * depth`.
    #[doc(hidden)]
    fn byte(self, depth: u32) -> u8;

    /// The prefix's first address: all bits after the first `len` cleared.
    #[doc(hidden)]
    fn first_of(self, len: u8) -> Self;

    /// The prefix's last address: all bits after the first `len` set.
    #[doc(hidden)]
    fn last_of(self, len: u8) -> Self;

    /// The next address, unless this is the last.
    #[doc(hidden)]
    fn next(self) -> Option<Self>;

    /// The address before, unless this is the first.
    #[doc(hidden)]
    fn previous(self) -> Option<Self>;
}

macro_rules! address {
    ($number:ty, $prefix:ty, $byte:expr) => {
        impl Address for $number {
            type Prefix = $prefix;
            const BITS: u8 = <$number>::BITS as u8;

            fn of_prefix(prefix: $prefix) -> (Self, u8) {
                (prefix.network().to_bits(), prefix.prefix_len())
            }

            fn prefix(self, len: u8) -> $prefix {
                <$prefix>::new(self.into(), len).expect("no prefix is longer than its addresses")
            }

            #[inline(always)]
            fn upper(self) -> usize {
                (self >> (<$number>::BITS - 24)) as usize
            }

            #[inline(always)]
            fn byte(self, depth: u32) -> u8 {
                $byte(self, depth)
            }

            fn first_of(self, len: u8) -> Self {
                self & !host_bits::<$number>(len)
            }

            fn last_of(self, len: u8) -> Self {
                self | host_bits::<$number>(len)
            }

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }

        impl HostBits for $number {
            fn host_bits(len: u8) -> Self {
                <$number>::MAX.checked_shr(len.into()).unwrap_or(0)
            }
        }
    };
}

trait HostBits {
    fn host_bits(len: u8) -> Self;
}

/// The bits after the first `len`.
fn host_bits<A: HostBits>(len: u8) -> A {
    A::host_bits(len)
}

// An IPv4 address has only one byte behind the first 24 bits.
address!(u32, Ipv4Net, |address: u32, _| address as u8);
address!(u128, Ipv6Net, |address: u128, depth: u32| address.rotate_left(32 + 8 * depth) as u8);
