//! Ranges of ports and addresses, both ends included.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::UnitError;

/// One port, or all from one to another: `53`, `1024-65535`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Just this one.
    pub(crate) const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// How many there are: at least one.
    pub(crate) fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// The `index`th; after the last comes the first again.
    pub(crate) fn nth(self, index: u64) -> u16 {
        self.first + (index % u64::from(self.count())) as u16
    }
}

impl FromStr for PortRange {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let port = |text: &str| {
            text.trim().parse::<u16>().map_err(|_| {
                UnitError::new("not a port, nor a range of them: say `53`, or `1024-65535` (0 to 65535)")
            })
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(UnitError::new(format!("the lower port comes first: `{last}-{first}`")));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// One address, all of a prefix, or all from one to another: `10.0.0.1`, `10.0.0.0/16`, `2001:db8::1-2001:db8::9`. Of a
/// prefix the first and the last address are not left out: a packet may have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// Just this one.
    pub(crate) const fn one(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }

    /// The first address.
    pub(crate) fn first(self) -> IpAddr {
        self.first
    }

    /// Whether they are of IPv4.
    pub(crate) fn is_ipv4(self) -> bool {
        self.first.is_ipv4()
    }

    /// How many there are: at least one, and at most `u128::MAX`.
    pub(crate) fn count(self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// The `index`th; after the last comes the first again.
    pub(crate) fn nth(self, index: u128) -> IpAddr {
        let number = number(self.first) + index % self.count();
        match self.first {
            // Not above the last, which is one of IPv4.
            IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for AddressRange {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError::new(
                "not an address, nor a range of them: say `10.0.0.1`, `10.0.0.0/16`, `10.0.0.1-10.0.0.9` or \
                 `2001:db8::/64`",
            )
        };
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
        if text.contains('/') {
            let net: IpNet = text.trim().parse().map_err(|_| wrong())?;
            return Ok(Self { first: net.network(), last: net.broadcast() });
        }
        let Some((first, last)) = text.split_once('-') else { return address(text).map(Self::one) };
        let (first, last) = (address(first)?, address(last)?);
        if first.is_ipv4() != last.is_ipv4() {
            return Err(UnitError::new("both ends of a range are of one IP version"));
        }
        if first > last {
            return Err(UnitError::new(format!("the lower address comes first: `{last}-{first}`")));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(text: &str) -> AddressRange {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn ports_as_they_are_said() {
        let ports: PortRange = "1024-1026".parse().expect("a range");
        assert_eq!((0..5).map(|index| ports.nth(index)).collect::<Vec<_>>(), [1024, 1025, 1026, 1024, 1025]);
        assert_eq!("0-65535".parse::<PortRange>().expect("all").count(), 65536);
        assert_eq!("53".parse::<PortRange>(), Ok(PortRange::one(53)));
        let refused = |text: &str| text.parse::<PortRange>().unwrap_err().to_string();
        for wrong in ["", "-", "1-", "65536", "http"] {
            assert!(refused(wrong).starts_with("not a port"), "{wrong}");
        }
        assert_eq!(refused("9-1"), "the lower port comes first: `1-9`");
    }

    #[test]
    fn addresses_as_they_are_said() {
        assert_eq!(addresses("10.0.0.0/16").count(), 65536);
        assert_eq!(addresses("10.0.0.1-10.0.0.9").count(), 9);
        assert_eq!(addresses("10.0.0.1").count(), 1);
        assert_eq!(addresses("::/0").count(), u128::MAX);
        assert_eq!(addresses("2001:db8::/64").count(), 1 << 64);
        let three = addresses("10.0.0.254-10.0.1.0");
        assert_eq!(three.nth(2).to_string(), "10.0.1.0");
        assert_eq!(three.nth(3).to_string(), "10.0.0.254");
        assert_eq!(three.to_string(), "10.0.0.254-10.0.1.0");
    }

    #[test]
    fn what_would_be_right_is_said() {
        let refused = |text: &str| text.parse::<AddressRange>().unwrap_err().to_string();
        for wrong in ["", "10.0.0", "10.0.0.0/33", "host", "10.0.0.1-"] {
            assert!(refused(wrong).contains("`10.0.0.1-10.0.0.9`"), "{wrong}");
        }
        assert_eq!(refused("10.0.0.1-::2"), "both ends of a range are of one IP version");
        assert_eq!(refused("10.0.0.2-10.0.0.1"), "the lower address comes first: `10.0.0.1-10.0.0.2`");
    }

    proptest! {
        #[test]
        fn a_range_has_its_addresses_in_order(low: u128, more: u128, index: u128, v4: bool) {
            let (first, last): (IpAddr, IpAddr) = if v4 {
                let low = low as u32;
                (Ipv4Addr::from_bits(low).into(), Ipv4Addr::from_bits(low.saturating_add(more as u32)).into())
            } else {
                (Ipv6Addr::from_bits(low).into(), Ipv6Addr::from_bits(low.saturating_add(more)).into())
            };
            let range = addresses(&format!("{first}-{last}"));
            prop_assert!((first..=last).contains(&range.nth(index)));
            prop_assert_eq!(range.nth(range.count() - 1), if range.count() == u128::MAX { range.nth(u128::MAX - 1) } else { last });
            prop_assert_eq!(addresses(&range.to_string()), range);
        }
    }
}
