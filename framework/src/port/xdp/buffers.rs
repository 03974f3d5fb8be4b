//! How much of a packet a driver's buffers take in zero-copy mode, where that is less than a frame does.

use super::multi_buffer::{LINK, frame_room};

/// The sizes that frames can have, in bytes.
const SIZES: [usize; 2] = [2048, 4096];

/// Drivers that tell their card in whole KiB how large a buffer is. Of a frame of 2048 bytes that leaves 1024: ixgbe drops
/// longer packets (on the 82599), and igb and igc take what is left of one for a packet of its own (`SRRCTL` in
/// `igb_setup_srrctl`, `igc_configure_rx_ring` and `ixgbe_configure_srrctl`, and `igb_clean_rx_irq_zc`).
const IN_KIB: [&str; 3] = ["igb", "igc", "ixgbe"];

/// Bytes of a packet that a buffer takes in zero-copy mode.
pub(super) fn room(driver: &str, frame_size: usize) -> usize {
    let room = frame_room(frame_size);
    if IN_KIB.contains(&driver) { room / 1024 * 1024 } else { room }
}

/// The longest IP packet that a buffer takes whole in zero-copy mode, in bytes.
pub(super) fn longest(driver: &str, frame_size: usize) -> usize {
    room(driver, frame_size) - LINK
}

/// The size of frames of which the driver's buffers take whole packets, where the usual one does not do and the larger one
/// does.
pub(crate) fn frame_size(driver: &str, mtu: u32) -> usize {
    let [small, large] = SIZES;
    let takes = |size| mtu as usize <= longest(driver, size);
    if IN_KIB.contains(&driver) && !takes(small) && takes(large) { large } else { small }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_whole_kib_take_less_than_a_frame() {
        assert_eq!(["ice", "igb"].map(|driver| room(driver, 2048)), [1792, 1024]);
        assert_eq!(["ice", "igc"].map(|driver| room(driver, 4096)), [3840, 3072]);
        assert_eq!(longest("ixgbe", 2048), 1006);
    }

    #[test]
    fn frames_are_as_large_as_the_drivers_buffers_need() {
        for (driver, mtu, size) in [
            ("igb", 1006, 2048),
            ("igb", 1007, 4096),
            ("igb", 1500, 4096),
            ("igb", 3054, 4096),
            // No frame does: packets are copied.
            ("igb", 3055, 2048),
            ("igc", 1500, 4096),
            ("ixgbe", 1500, 4096),
            ("ice", 1500, 2048),
            ("veth", 3000, 2048),
            ("", 9000, 2048),
        ] {
            assert_eq!(frame_size(driver, mtu), size, "{driver} {mtu}");
        }
    }
}
