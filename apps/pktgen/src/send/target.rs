//! Where packets go on the link: the destination MAC address.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use afx::control::interface::Interface;
use afx::control::resolver::{Resolution, Resolver, Unresolved};
use afx::packet::MacAddress;

use crate::units::AddressRange;

use super::{Arguments, SendError};

/// How long a next hop may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The destination MAC address: the one said, or the kernel's neighbour on the way to the first destination.
pub(super) fn find(
    arguments: &Arguments,
    interface: &Interface,
    destination: AddressRange,
) -> Result<MacAddress, SendError> {
    if let Some(mac) = arguments.to_mac {
        return Ok(mac);
    }
    let address = destination.first();
    let name = &arguments.interface;
    let unknown = |why: &str| {
        SendError::usage(format!("no destination MAC address for {address}: {why}; say it with `--to-mac`"))
    };
    let resolver = Resolver::start().map_err(|error| SendError::because("", &error))?;
    resolver.watch([address]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match resolver.snapshot().get(&address) {
            Some(Resolution::Resolved(hop)) if hop.interface == interface.index => {
                return Ok(MacAddress(hop.destination_mac));
            }
            Some(Resolution::Resolved(_)) => {
                return Err(unknown(&format!("its route does not lead over {name}")));
            }
            Some(Resolution::Unresolved(Unresolved::NeighbourPending)) | None => {}
            Some(Resolution::Unresolved(why)) => return Err(unknown(&why.to_string())),
        }
        if resolver.changes().recv_deadline(deadline).is_err() {
            return Err(unknown(&Unresolved::NeighbourFailed.to_string()));
        }
    }
}

/// The interface's first address of that IP version.
pub(super) fn own_address(name: &str, interface: &Interface, ipv4: bool) -> Result<AddressRange, SendError> {
    let own = interface.addresses.iter().find(|address: &&IpAddr| address.is_ipv4() == ipv4);
    own.map(|address| AddressRange::one(*address)).ok_or_else(|| {
        let version = if ipv4 { 4 } else { 6 };
        SendError::usage(format!("{name} has no IPv{version} address to send from: say one with `--source`"))
    })
}
