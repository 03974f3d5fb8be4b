//! Socket options, of any type that is plain data.

use std::io;
use std::os::fd::RawFd;

use bytemuck::{Pod, Zeroable};

/// `SOL_XDP` options that `libc` does not name yet (`linux/if_xdp.h`).
pub(super) const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Reads an option. The kernel may know a shorter form of it; the rest stays zero, and the length says so.
pub(super) fn read<T: Pod + Zeroable>(fd: RawFd, level: i32, name: i32) -> io::Result<(T, usize)> {
    let mut value = T::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is ours, writable for `length` bytes during the call, and any bytes make a valid `T`.
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((value, length as usize)) }
}

pub(super) fn write(fd: RawFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    let length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value` during the call.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes `fd` in whatever program this process starts: a child that inherits a
/// bound socket would keep the queue bound after our end.
pub(super) fn close_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: takes and returns plain integers.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// [`close_on_exec`] for every AF_XDP socket of this process, where /proc tells them.
///
/// libxdp opens a socket with each UMEM and keeps it to itself until the UMEM's
/// first socket is bound, which can take seconds.
pub(super) fn close_all_xdp_sockets_on_exec() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    for fd in open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok()) {
        if matches!(read::<i32>(fd, libc::SOL_SOCKET, libc::SO_DOMAIN), Ok((libc::AF_XDP, _))) {
            // Gone again meanwhile: nothing left to close.
            let _ = close_on_exec(fd);
        }
    }
}
