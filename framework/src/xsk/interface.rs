//! What the kernel says of an interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `ETHTOOL_GCHANNELS` of `linux/ethtool.h`.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels` of `linux/ethtool.h`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// `struct ifreq` of `linux/if.h`: a name, and a union of 24 bytes.
#[repr(C)]
struct Request<T> {
    name: [u8; libc::IFNAMSIZ],
    data: T,
}

/// Asks the kernel something about an interface.
///
/// # Safety
/// `T` is what the request `code` takes and writes in the union of `struct ifreq`, filled up to 24 bytes.
unsafe fn ask<T>(interface: &str, code: libc::c_ulong, data: T) -> io::Result<T> {
    const { assert!(size_of::<T>() == 24, "the union of struct ifreq has 24 bytes") };
    let mut name = [0; libc::IFNAMSIZ];
    if interface.len() >= name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    name[..interface.len()].copy_from_slice(interface.as_bytes());
    let mut request = Request { name, data };
    // SAFETY: a plain socket call; the descriptor it returns is ours alone.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: the kernel reads and writes `request`, which is as the caller vouches, during the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), code as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request.data)
}

/// A pointer in the union of `struct ifreq`.
#[repr(C)]
struct Pointer(*mut Channels, [u64; 2]);

/// How many RX queues an interface has now, which may be fewer than its driver can have. 1 where the
/// driver does not say.
///
/// # Errors
/// Of opening a socket; [`io::ErrorKind::InvalidInput`] for a name that is too long.
pub(crate) fn rx_queues(interface: &str) -> io::Result<u32> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    let pointer = Pointer(&raw mut channels, [0; 2]);
    // SAFETY: SIOCETHTOOL takes a pointer to a command's structure, which is ours and alive.
    match unsafe { ask(interface, libc::SIOCETHTOOL, pointer) } {
        Ok(_) => Ok((channels.rx_count + channels.combined_count).max(1)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        Err(error) => Err(error),
    }
}

/// An interface's MAC address: zeros where it has none.
///
/// # Errors
/// The kernel's.
pub(crate) fn mac_address(interface: &str) -> io::Result<[u8; 6]> {
    // SAFETY: SIOCGIFHWADDR writes a `struct sockaddr`: two bytes of family, then the address.
    let data = unsafe { ask(interface, libc::SIOCGIFHWADDR, [0u8; 24]) }?;
    Ok([data[2], data[3], data[4], data[5], data[6], data[7]])
}

/// An interface's MTU in bytes.
///
/// # Errors
/// The kernel's.
pub(crate) fn mtu(interface: &str) -> io::Result<u32> {
    // SAFETY: SIOCGIFMTU writes an int.
    let data = unsafe { ask(interface, libc::SIOCGIFMTU, [0u32; 6]) }?;
    Ok(data[0])
}

/// Whether an interface was set up, whatever its carrier.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_up(interface: &str) -> io::Result<bool> {
    // SAFETY: SIOCGIFFLAGS writes a short.
    let data = unsafe { ask(interface, libc::SIOCGIFFLAGS, [0u16; 12]) }?;
    Ok(i32::from(data[0]) & libc::IFF_UP != 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_as_it_always_is() {
        assert_eq!(super::mac_address("lo").unwrap(), [0; 6]);
        assert!(super::mtu("lo").unwrap() >= 1500);
        assert!(super::mtu("no-such-link").is_err());
        assert!(super::mtu("a-name-that-is-far-too-long").is_err());
    }
}
