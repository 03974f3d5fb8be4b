//! What an application needs to know of an interface before it sends on it.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::packet::MacAddress;
use crate::xsk::interface as kernel;

/// An interface of the calling thread's network namespace, as it was when asked.
///
/// ```
/// let loopback = afx::control::interface::Interface::find("lo")?;
/// assert!(loopback.mtu > 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its MAC address.
    pub mac: MacAddress,
    /// The longest IP packet that it takes, in bytes.
    pub mtu: u32,
    /// Its speed in bit/s, where its driver says one: veth says 10 Gbit/s.
    pub speed: Option<u64>,
    /// The name of its driver: `veth`, `ice`; empty where it has none that says so.
    pub driver: String,
    /// Its addresses, those of the link (`fe80::/10`) left out.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// The interface of that name.
    ///
    /// # Errors
    /// Of kind [`io::ErrorKind::NotFound`] where there is none; what the kernel answers otherwise.
    pub fn find(name: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(name).map_err(|_| {
            let what = format!("there is no interface {name} in this network namespace");
            io::Error::new(io::ErrorKind::NotFound, what)
        })?;
        let own = getifaddrs()?.filter(|address| address.interface_name == name);
        let addresses = own.filter_map(|address| {
            let address = address.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        });
        let usable = |address: &IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        Ok(Self {
            index,
            mac: MacAddress(kernel::mac_address(name)?),
            mtu: kernel::mtu(name)?,
            // Drivers answer all kinds of errors while the link is down.
            speed: kernel::speed(name).ok().flatten(),
            driver: kernel::driver(name).unwrap_or_default(),
            addresses: addresses.filter(usable).collect(),
        })
    }
}

/// The counters that an interface's driver keeps beside the kernel's own, as `ethtool -S` shows them: name and value.
///
/// # Errors
/// The kernel's: of kind [`io::ErrorKind::Unsupported`] where the driver keeps none.
pub fn driver_statistics(name: &str) -> io::Result<Vec<(String, u64)>> {
    kernel::driver_statistics(name)
}
