//! For tests (feature `testing`): programs run over packets that tests make, by the kernel, without an interface;
//! somebody else's program on one; a sender's VLAN tags.

mod other;
mod tagging;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::decap::Loaded;
use crate::{DecapCounters, DecapOptions, Error};

pub use other::OtherProgram;
pub use tagging::tag_what_leaves;

/// The decapsulation program, loaded and attached nowhere, which packets are given to one by one
/// (`BPF_PROG_TEST_RUN`).
///
/// ```no_run
/// use afx_redirect::testing::{DecapProgram, Verdict};
///
/// # fn example(ethernet_frame: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// let program = DecapProgram::load(&Default::default())?;
/// let (verdict, what_the_stack_gets) = program.run(ethernet_frame)?;
/// assert_eq!(verdict, Verdict::Pass);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DecapProgram(Loaded);

/// What a program does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The kernel's stack receives it: `XDP_PASS`.
    Pass,
    /// Nobody does: `XDP_DROP`.
    Drop,
    /// Something else, by its number in the kernel's `enum xdp_action`.
    Other(u32),
}

impl DecapProgram {
    /// Loads the program. Of the options, the mode to attach in does not count.
    ///
    /// # Errors
    ///
    /// [`Error::Load`], [`Error::TooOld`] or [`Error::Rights`] where the kernel refuses the program, [`Error::Map`].
    pub fn load(options: &DecapOptions) -> Result<Self, Error> {
        Loaded::new(options).map(Self)
    }

    /// Runs the program once over `packet`, which begins with its Ethernet header. Returns what it does with the packet
    /// and what it has made of it.
    ///
    /// # Errors
    ///
    /// What the kernel answers: it takes no packet of less than 14 bytes, or that does not fit a page of memory together
    /// with the room that XDP keeps around it (some 3500 bytes where a page has 4096).
    pub fn run(&self, packet: &[u8]) -> io::Result<(Verdict, Vec<u8>)> {
        let (verdict, packet) = run(self.0.program.as_fd(), packet, None)?;
        let verdict = match verdict {
            libbpf_sys::XDP_PASS => Verdict::Pass,
            libbpf_sys::XDP_DROP => Verdict::Drop,
            other => Verdict::Other(other),
        };
        Ok((verdict, packet))
    }

    /// What became of the packets so far.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<DecapCounters, Error> {
        self.0.counters()
    }
}

/// Runs `program` once over `packet`: its verdict, and what it has made of the packet. `context` says where the packet
/// has come from; by default from the first queue of the loopback interface.
#[allow(unsafe_code, reason = "calls libbpf's C interface")]
pub(crate) fn run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: Option<&libbpf_sys::xdp_md>,
) -> io::Result<(u32, Vec<u8>)> {
    // No program here makes a packet longer.
    let mut out = vec![0; packet.len()];
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: context.map_or(std::ptr::null(), |context| std::ptr::from_ref(context).cast()),
        ctx_size_in: context.map_or(0, |context| size_of_val(context) as u32),
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: every buffer outlives the call and its size is said; the kernel writes `out` alone.
    let result = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    out.truncate(options.data_size_out as usize);
    Ok((options.retval, out))
}
