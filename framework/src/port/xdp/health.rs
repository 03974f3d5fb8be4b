//! How a queue is, in words.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::xsk::{Granted, Pages, RingAccess};

/// What a queue was granted of what afx does best with.
pub(super) fn describe(granted: &Granted, pages: Pages) -> String {
    let busy_poll = match granted.busy_poll {
        Some(poll) => format!("busy polling {} packets", poll.budget),
        None => "no busy polling".into(),
    };
    let rings = match granted.ring_access {
        RingAccess::Library => "rings through xsk-rs",
        RingAccess::Auto | RingAccess::Native => "rings mapped",
    };
    let pages = match pages {
        Pages::Huge { size } => format!("huge pages of {} MiB", size >> 20),
        Pages::Normal => "no huge pages".into(),
    };
    format!("{}, {busy_poll}, {rings}, {pages}", granted.mode)
}

/// How a queue is, for whoever asks: written by its worker, and only when that changes.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: AtomicU8,
    /// Busy polling was granted, and then given up.
    pub(super) unpolled: AtomicBool,
}

impl Health {
    pub(super) const WELL: u8 = 0;
    pub(super) const DOWN: u8 = 1;
    pub(super) const GONE: u8 = 2;
    pub(super) const FAILING: u8 = 3;

    pub(super) fn set(&self, health: u8) {
        if self.state.load(Ordering::Relaxed) != health {
            self.state.store(health, Ordering::Relaxed);
        }
    }

    pub(super) fn describe(&self) -> String {
        let polling = match self.unpolled.load(Ordering::Relaxed) {
            true => "; busy polling given up, since the driver does not send by it",
            false => "",
        };
        let state = match self.state.load(Ordering::Relaxed) {
            Self::WELL => "",
            Self::DOWN => "; the interface is down",
            Self::GONE => "; the interface is gone: start again once it is back",
            _ => "; the kernel refuses to send",
        };
        format!("{polling}{state}")
    }
}
