//! For the tests of sockets: a network namespace of the test's own, with veth
//! pairs in it, a program that redirects to sockets, and a plain raw socket.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::time::Duration;

/// An ethertype for experiments (IEEE 802, 0x88b5): nothing but the tests sends it.
pub(super) const ETHERTYPE: u16 = 0x88b5;

/// Runs `test` in a new network namespace. The namespace has no name; it goes
/// with the thread, whatever way that ends.
pub(super) fn in_namespace<R: Send>(test: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: concerns this thread alone, which has just begun.
            let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(unshared, 0, "a new network namespace (needs root): {}", io::Error::last_os_error());
            // No router solicitations between the tests' packets.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            test()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

pub(super) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A pair of interfaces, both in this namespace and up, with as many queues each.
pub(super) fn veth(one: &str, other: &str, queues: u32) {
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!("link add {one} {queues} type veth peer name {other} {queues}"));
    ip(&format!("link set {one} up"));
    ip(&format!("link set {other} up"));
}

pub(super) fn index(interface: &str) -> u32 {
    let name = std::ffi::CString::new(interface).expect("no NUL in a name");
    // SAFETY: a string with its NUL, read during the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{interface}: {}", io::Error::last_os_error());
    index
}

/// The smallest redirect program: whatever arrives on a queue goes to that
/// queue's socket, or to the kernel where there is none. Detached when dropped.
pub(super) struct Redirect {
    sockets: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    pub(super) fn attach(interface: &str) -> Self {
        const QUEUES: u32 = 8;
        // SAFETY: no pointers but the name's, which outlives the call.
        let sockets = owned("XSKMAP", unsafe {
            let kind = libbpf_sys::BPF_MAP_TYPE_XSKMAP;
            libbpf_sys::bpf_map_create(kind, c"test_sockets".as_ptr(), 4, 4, QUEUES, std::ptr::null())
        });
        let program = [
            instruction(0x61, 2, 1, 16, 0),                  // r2 = context->rx_queue_index
            instruction(0x18, 1, 1, 0, sockets.as_raw_fd()), // r1 = the map
            instruction(0x00, 0, 0, 0, 0),                   //      (second half)
            instruction(0xb7, 3, 0, 0, 2),                   // r3 = XDP_PASS
            instruction(0x85, 0, 0, 0, 51),                  // call bpf_redirect_map
            instruction(0x95, 0, 0, 0, 0),                   // return r0
        ];
        // SAFETY: the instructions and strings outlive the call.
        let program = owned("XDP program", unsafe {
            libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_XDP,
                c"test_redirect".as_ptr(),
                c"Dual BSD/GPL".as_ptr(),
                program.as_ptr().cast(),
                program.len() as libbpf_sys::size_t,
                std::ptr::null_mut(),
            )
        });
        // SAFETY: no options given.
        let link = owned("XDP link", unsafe {
            let (program, interface) = (program.as_raw_fd(), index(interface) as i32);
            libbpf_sys::bpf_link_create(program, interface, libbpf_sys::BPF_XDP, std::ptr::null())
        });
        Self { sockets, _program: program, _link: link }
    }

    pub(super) fn register(&self, queue: u32, socket: &impl AsRawFd) {
        let socket: u32 = socket.as_raw_fd() as u32;
        // SAFETY: the map's keys and values are 4 bytes, read during the call.
        let result = unsafe {
            let (key, value) = ((&raw const queue).cast(), (&raw const socket).cast());
            libbpf_sys::bpf_map_update_elem(self.sockets.as_raw_fd(), key, value, 0)
        };
        assert_eq!(result, 0, "register a socket: {}", io::Error::last_os_error());
    }
}

/// `struct bpf_insn`.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, source << 4 | destination, o0, o1, i0, i1, i2, i3]
}

fn owned(what: &str, fd: RawFd) -> OwnedFd {
    assert!(fd >= 0, "{what}: {}", io::Error::last_os_error());
    // SAFETY: just opened, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// From here on this thread may not map a fill ring: the kernel answers EBUSY, as
/// those before 6.4 do for the rings of a bound socket.
pub(super) fn forbid_mapping_fill_rings() {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let filter = |code: u32, on_true, on_false, k| libc::sock_filter {
        code: code as u16,
        jt: on_true,
        jf: on_false,
        k,
    };
    // `struct seccomp_data`: the system call's number at 0, the upper half of its sixth argument at 60.
    let mut program = [
        filter(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        filter(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, libc::SYS_mmap as u32),
        filter(BPF_LD | BPF_W | BPF_ABS, 0, 0, 60),
        filter(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (libc::XDP_UMEM_PGOFF_FILL_RING >> 32) as u32),
        filter(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EBUSY as u32),
        filter(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads the program during the call; it concerns this thread alone.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    assert_eq!(result, 0, "seccomp: {}", io::Error::last_os_error());
}

/// A plain raw socket on an interface: what the rest of the world sees and sends.
pub(super) struct Wire {
    fd: OwnedFd,
}

impl Wire {
    pub(super) fn open(interface: &str) -> Self {
        // SAFETY: plain integers.
        let fd = owned("AF_PACKET socket", unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)
        });
        // SAFETY: all zeroes make a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETHERTYPE.to_be();
        address.sll_ifindex = index(interface) as i32;
        // SAFETY: the kernel reads the address during the call.
        let bound =
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(bound, 0, "bind AF_PACKET: {}", io::Error::last_os_error());
        Self { fd }
    }

    pub(super) fn send(&self, packet: &[u8]) {
        // SAFETY: the kernel reads the packet during the call.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0) };
        assert_eq!(sent, packet.len() as isize, "send: {}", io::Error::last_os_error());
    }

    /// The next packet that arrives, its own sent ones left out; none if none does within 5 s.
    pub(super) fn receive(&self) -> Option<Vec<u8>> {
        self.receive_within(Duration::from_secs(5))
    }

    pub(super) fn receive_within(&self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let mut ready = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, ours.
            if unsafe { libc::poll(&mut ready, 1, left.as_millis() as i32) } <= 0 {
                return None;
            }
            let mut packet = vec![0; 65536];
            // SAFETY: all zeroes make a valid address.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut from_length = size_of_val(&from) as u32;
            // SAFETY: the kernel writes at most the length given of each, during the call.
            let got = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    packet.as_mut_ptr().cast(),
                    packet.len(),
                    0,
                    (&raw mut from).cast(),
                    &mut from_length,
                )
            };
            assert!(got >= 0, "receive: {}", io::Error::last_os_error());
            if from.sll_pkttype != libc::PACKET_OUTGOING {
                packet.truncate(got as usize);
                return Some(packet);
            }
        }
    }
}

/// A packet to be told apart from others: `number` in its payload, which fills up to `length` bytes.
pub(super) fn packet(number: u16, length: usize) -> Vec<u8> {
    let mut packet = vec![0xff; 12];
    packet[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    packet.extend(ETHERTYPE.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend((packet.len()..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(number as u8)));
    packet
}
