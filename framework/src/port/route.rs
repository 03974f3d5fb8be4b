//! Which interface the default route leaves by.

/// Whether a default route of this thread's network namespace, of IPv4 or of IPv6, leaves by `interface`.
///
/// # Errors
/// The system's, where it does not show its routes. A kernel without IPv6 has none of that.
#[doc(hidden)]
pub fn carries_default_route(interface: &str) -> std::io::Result<bool> {
    // /proc/net is the process's, which may be of another namespace than the thread.
    let read = |name| match std::fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        result => result,
    };
    Ok(has_default_route(&read("route")?, &read("ipv6_route")?, interface))
}

/// Whether the kernel's routing tables, in its own format, have a default route by an interface.
fn has_default_route(v4: &str, v6: &str, interface: &str) -> bool {
    let v4 = v4.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.next() == Some(interface) && fields.next() == Some("00000000")
    });
    let v6 = v6.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // The kernel's own unreachable default route is on `lo`.
        matches!(fields.as_slice(), [net, "00", .., device] if net.bytes().all(|b| b == b'0') && *device == interface)
    });
    v4 || v6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found_of_both_kinds() {
        let v4 = "Iface\tDestination\tGateway\neth0\t00000000\t0100000A\neth1\t0000000A\t00000000\n";
        let any = "0".repeat(32);
        let v6 = format!(
            "{any} 00 {any} 00 {any} 00000400 00000003 00000000 00000003 eth2\n\
             20010db8000000000000000000000000 20 {any} 00 {any} 00000100 00000001 00000000 00000001 eth3\n"
        );
        for (interface, has) in
            [("eth0", true), ("eth1", false), ("eth", false), ("eth2", true), ("eth3", false)]
        {
            assert_eq!(has_default_route(v4, &v6, interface), has, "{interface}");
        }
        assert!(!has_default_route("", "", "eth0"));
    }
}
