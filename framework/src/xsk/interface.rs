//! What the kernel says of an interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `ETHTOOL_GCHANNELS` and `ETHTOOL_SCHANNELS` of `linux/ethtool.h`.
const ETHTOOL_GCHANNELS: u32 = 0x3c;
#[cfg(feature = "settings")]
const ETHTOOL_SCHANNELS: u32 = 0x3d;

/// `struct ethtool_channels` of `linux/ethtool.h`: how many queues an interface has, and could have.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Channels {
    cmd: u32,
    pub(crate) max_rx: u32,
    pub(crate) max_tx: u32,
    max_other: u32,
    pub(crate) max_combined: u32,
    pub(crate) rx_count: u32,
    pub(crate) tx_count: u32,
    other_count: u32,
    pub(crate) combined_count: u32,
}

#[cfg(feature = "settings")]
impl Channels {
    /// With another number of queues that receive, of the kind that the driver has.
    pub(crate) fn with_receiving(self, count: u32) -> Self {
        match self.max_combined {
            0 => Self { rx_count: count, ..self },
            _ => Self { combined_count: count, ..self },
        }
    }
}

#[cfg(all(test, feature = "doctor"))]
impl Channels {
    /// Queues that both receive and send: so many of at most so many.
    pub(crate) fn combined(combined_count: u32, max_combined: u32) -> Self {
        Self { combined_count, max_combined, ..Self::default() }
    }

    /// Queues of which as many receive as others send.
    pub(crate) fn separate(count: u32, most: u32) -> Self {
        Self { rx_count: count, tx_count: count, max_rx: most, max_tx: most, ..Self::default() }
    }
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
struct Pointer<T>(*mut T, [u64; 2]);

/// Has the driver carry out an ethtool command.
///
/// # Safety
/// `command` is a structure of `linux/ethtool.h` that begins with its command's number, and has room for all that the
/// kernel writes for that command.
pub(super) unsafe fn ethtool<T>(interface: &str, command: &mut T) -> io::Result<()> {
    // SAFETY: SIOCETHTOOL takes a pointer to a command's structure, which is as the caller vouches, and alive.
    unsafe { ask(interface, libc::SIOCETHTOOL, Pointer(command, [0; 2])) }.map(drop)
}

/// How many queues an interface has and could have; None where its driver does not say.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::InvalidInput`] for a name that is too long.
pub(crate) fn channels(interface: &str) -> io::Result<Option<Channels>> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: the structure of ETHTOOL_GCHANNELS.
    match unsafe { ethtool(interface, &mut channels) } {
        Ok(()) => Ok(Some(channels)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has an interface have these queues.
///
/// # Errors
/// The kernel's: where the driver can have no such number, or a queue that would go is in use.
#[cfg(feature = "settings")]
pub(crate) fn set_channels(interface: &str, channels: Channels) -> io::Result<()> {
    let mut channels = Channels { cmd: ETHTOOL_SCHANNELS, ..channels };
    // SAFETY: the structure of ETHTOOL_SCHANNELS, which the kernel reads.
    unsafe { ethtool(interface, &mut channels) }
}

/// How many RX queues an interface has now, which may be fewer than its driver can have. 1 where the
/// driver does not say.
///
/// # Errors
/// Of opening a socket; [`io::ErrorKind::InvalidInput`] for a name that is too long.
pub(crate) fn rx_queues(interface: &str) -> io::Result<u32> {
    Ok(channels(interface)?.map_or(1, |channels| (channels.rx_count + channels.combined_count).max(1)))
}

/// `ETHTOOL_GRINGPARAM` of `linux/ethtool.h`.
const ETHTOOL_GRINGPARAM: u32 = 0x10;

/// `struct ethtool_ringparam` of `linux/ethtool.h`: packets that the rings of each queue hold, and could hold.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rings {
    cmd: u32,
    pub(crate) rx_max: u32,
    others_max: [u32; 2],
    pub(crate) tx_max: u32,
    pub(crate) rx: u32,
    others: [u32; 2],
    pub(crate) tx: u32,
}

#[cfg(test)]
impl Rings {
    /// Rings that hold so many of at most so many.
    pub(crate) fn of((rx, rx_max): (u32, u32), (tx, tx_max): (u32, u32)) -> Self {
        Self { rx_max, tx_max, rx, tx, ..Self::default() }
    }
}

/// The rings of an interface's queues; None where its driver does not say.
///
/// # Errors
/// The kernel's.
pub(crate) fn rings(interface: &str) -> io::Result<Option<Rings>> {
    let mut rings = Rings { cmd: ETHTOOL_GRINGPARAM, ..Rings::default() };
    // SAFETY: the structure of ETHTOOL_GRINGPARAM.
    match unsafe { ethtool(interface, &mut rings) } {
        Ok(()) => Ok(Some(rings)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `ETHTOOL_GSET` of `linux/ethtool.h`, which every kernel answers from the newer settings.
const ETHTOOL_GSET: u32 = 0x1;

/// `struct ethtool_cmd` of `linux/ethtool.h`.
#[repr(C)]
#[derive(Default)]
struct LinkSettings {
    cmd: u32,
    modes: [u32; 2],
    speed: u16,
    media: [u8; 6],
    max_packets: [u32; 2],
    speed_hi: u16,
    crossover: [u8; 2],
    partner_modes: u32,
    reserved: [u32; 2],
}

/// An interface's speed in bit/s; None where its driver knows none, or the link is down.
///
/// # Errors
/// The kernel's.
pub(crate) fn speed(interface: &str) -> io::Result<Option<u64>> {
    let mut settings = LinkSettings { cmd: ETHTOOL_GSET, ..LinkSettings::default() };
    // SAFETY: the structure of ETHTOOL_GSET.
    match unsafe { ethtool(interface, &mut settings) } {
        Ok(()) => {
            let megabits = u32::from(settings.speed_hi) << 16 | u32::from(settings.speed);
            // All ones: not known, as a number of either width.
            let known = !matches!(megabits, 0 | 0xffff | 0xffff_ffff);
            Ok(known.then_some(u64::from(megabits) * 1_000_000))
        }
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `ETHTOOL_GDRVINFO` of `linux/ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 0x3;

/// `struct ethtool_drvinfo` of `linux/ethtool.h`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    others: [u8; 32 * 4 + 12],
    private_flags: u32,
    statistics: u32,
    lengths: [u32; 3],
}

fn driver_info(interface: &str) -> io::Result<DriverInfo> {
    let mut info = DriverInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        others: [0; 32 * 4 + 12],
        private_flags: 0,
        statistics: 0,
        lengths: [0; 3],
    };
    // SAFETY: the structure of ETHTOOL_GDRVINFO.
    unsafe { ethtool(interface, &mut info) }.map(|()| info)
}

/// Text of a fixed length, up to its first zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The name of an interface's driver: `veth`, `ice`. Empty where it has none that says so.
///
/// # Errors
/// The kernel's.
pub(crate) fn driver(interface: &str) -> io::Result<String> {
    match driver_info(interface) {
        Ok(info) => Ok(text(&info.driver)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// `ETHTOOL_GSTRINGS` and `ETHTOOL_GSTATS` of `linux/ethtool.h`, and the set of strings that names the statistics.
pub(super) const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETH_SS_STATS: u32 = 1;
/// Bytes of a name, and how many statistics are read at most: more than any driver has.
pub(super) const NAME: usize = 32;
const STATISTICS: usize = 8192;

/// `struct ethtool_gstrings` with room for the names.
#[repr(C)]
struct Names {
    cmd: u32,
    set: u32,
    count: u32,
    names: [[u8; NAME]; STATISTICS],
}

/// `struct ethtool_stats` with room for the values.
#[repr(C)]
struct Values {
    cmd: u32,
    count: u32,
    values: [u64; STATISTICS],
}

/// The counters that an interface's driver keeps beside the kernel's own, as `ethtool -S` shows them: name and value.
///
/// # Errors
/// The kernel's: of kind [`io::ErrorKind::Unsupported`] where the driver keeps none.
pub(crate) fn driver_statistics(interface: &str) -> io::Result<Vec<(String, u64)>> {
    let count = driver_info(interface)?.statistics;
    if count == 0 || count as usize > STATISTICS / 2 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut names =
        Box::new(Names { cmd: ETHTOOL_GSTRINGS, set: ETH_SS_STATS, count, names: [[0; NAME]; STATISTICS] });
    // SAFETY: the structure of ETHTOOL_GSTRINGS. The kernel writes as many names as the driver has now, which is checked
    // above: as much room again is left for queues that come meanwhile.
    unsafe { ethtool(interface, &mut *names) }?;
    let mut values = Box::new(Values { cmd: ETHTOOL_GSTATS, count, values: [0; STATISTICS] });
    // SAFETY: the structure of ETHTOOL_GSTATS, with room as above.
    unsafe { ethtool(interface, &mut *values) }?;
    let count = names.count.min(values.count) as usize;
    Ok(names.names.iter().map(|name| text(name)).zip(values.values).take(count).collect())
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
    Ok(flags(interface)? & libc::IFF_UP != 0)
}

/// Whether an interface is up, and has its carrier.
///
/// # Errors
/// The kernel's.
pub(crate) fn is_running(interface: &str) -> io::Result<bool> {
    Ok(flags(interface)? & libc::IFF_RUNNING != 0)
}

fn flags(interface: &str) -> io::Result<i32> {
    // SAFETY: SIOCGIFFLAGS writes a short.
    let data = unsafe { ask(interface, libc::SIOCGIFFLAGS, [0u16; 12]) }?;
    Ok(i32::from(data[0]))
}

/// The NUMA node that an interface's card is at; None where it has no card, or the machine does not say. `number` reads
/// a file of `/sys`.
pub(crate) fn card_node(interface: &str, number: impl Fn(&str) -> Option<i64>) -> Option<u32> {
    let device = format!("/sys/class/net/{interface}/device");
    // What a virtio card is at is said of the PCI device above it.
    let node = number(&format!("{device}/numa_node")).or_else(|| number(&format!("{device}/../numa_node")));
    u32::try_from(node?).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_card_is_at_the_node_that_its_device_or_the_one_above_says() {
        let said =
            |path: &'static str, node| super::card_node("eth0", move |asked| (asked == path).then_some(node));
        assert_eq!(said("/sys/class/net/eth0/device/numa_node", 1), Some(1));
        assert_eq!(said("/sys/class/net/eth0/device/../numa_node", 0), Some(0));
        assert_eq!(said("/sys/class/net/eth0/device/numa_node", -1), None);
        assert_eq!(said("/sys/class/net/eth1/device/numa_node", 1), None);
    }

    #[test]
    fn loopback_is_as_it_always_is() {
        assert_eq!(super::mac_address("lo").unwrap(), [0; 6]);
        assert!(super::mtu("lo").unwrap() >= 1500);
        assert!(super::mtu("no-such-link").is_err());
        assert!(super::mtu("a-name-that-is-far-too-long").is_err());
        assert!(
            super::is_up("lo").unwrap_or_else(|error| panic!("{error}")) == super::is_running("lo").unwrap()
        );
        assert!(super::is_running("no-such-link").is_err());
        assert_eq!(super::speed("lo").unwrap(), None);
        assert!(super::driver_statistics("lo").is_err());
        assert!(super::speed("no-such-link").is_err());
        assert_eq!(super::rings("lo").unwrap(), None);
        assert!(super::rings("no-such-link").is_err());
    }
}
