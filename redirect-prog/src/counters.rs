//! What the programs count, summed over CPUs.

use std::ops::AddAssign;

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::error::{Error, io_error};

/// A structure of counters in the order of its C namesake, which exporters can walk.
macro_rules! counters {
    ($(#[$about:meta])* $name:ident { $(#[doc = $sentence:literal] $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $(#[doc = $sentence] pub $field: u64,)*
        }

        impl $name {
            /// Each counter with its name and the sentence that documents it.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), $sentence.trim_ascii(), self.$field),)*].into_iter()
            }

            /// `bytes`: one structure as the program wrote it.
            fn from_ne_bytes(bytes: &[u8]) -> Self {
                let mut words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
                Self { $($field: words.next().unwrap_or(0),)* }
            }

            /// The sum over CPUs of the entry `slot` of `map`.
            pub(crate) fn read(map: &MapHandle, slot: u32) -> Result<Self, Error> {
                let per_cpu = map
                    .lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY)
                    .map_err(|error| Error::Map { action: "read the counters".into(), source: io_error(error) })?;
                let mut sum = Self::default();
                for bytes in per_cpu.iter().flatten() {
                    sum += Self::from_ne_bytes(bytes);
                }
                Ok(sum)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }
        }
    };
}

counters! {
    /// What became of the packets that the redirect program saw, in packets: their sum is what the port received.
    ///
    /// A packet that was redirected to a full ring is lost behind the program's back: the socket's own
    /// statistics (`XDP_STATISTICS`) tell.
    Counters {
        /// Packets redirected to the socket of their queue.
        redirected,
        /// Packets passed to the kernel because no rule matches them.
        passed_unmatched,
        /// Steered packets passed to the kernel because their queue has no socket.
        passed_no_socket,
        /// Steered packets passed to the kernel because the worker of their queue is stalled, or was stopped.
        passed_stalled,
        /// Steered packets dropped because the worker of their queue is stalled, or was stopped.
        dropped_stalled,
        /// Packets dropped because their source is on the blocklist.
        blocked,
        /// Steered packets passed to the kernel because they do not fit the frames that a packet may have.
        oversize,
        /// Packets passed to the kernel because their headers are cut short or say nonsense.
        malformed,
    }
}

counters! {
    /// What became of the packets that the decapsulation program saw, in packets. All go to the kernel's stack, but
    /// for those that say they were dropped.
    DecapCounters {
        /// Packets freed of their outer headers.
        decapsulated,
        /// Packets that carry no other packet, or are addressed to none of the tunnel's ends.
        passed_other,
        /// Fragments of packets that may carry another, left as they are.
        passed_fragment,
        /// Fragments addressed to the tunnel's ends, dropped.
        dropped_fragment,
        /// Packets whose headers, the inner one included, are cut short or say nonsense.
        malformed,
    }
}
