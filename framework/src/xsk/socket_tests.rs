#[path = "multi_buffer_tests.rs"]
mod multi_buffer;

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::ptr::NonNull;

use super::super::polling::Sleeper;
use super::super::test_net::{Redirect, Wire, forbid_mapping_fill_rings, in_namespace, ip, packet, veth};
use super::super::{Descriptor, UmemConfig};
use super::*;
use crate::mem::Region;

const FRAME: u64 = 2048;
const BOTH_ACCESSES: [RingAccess; 2] = [RingAccess::Native, RingAccess::Library];

/// A UMEM, and the frames that neither the kernel nor a ring has.
struct Frames {
    umem: Umem,
    free: BTreeSet<u64>,
}

impl Frames {
    fn new(count: u32) -> Self {
        let config = UmemConfig {
            frames: count,
            fill_entries: 64,
            completion_entries: 64,
            huge_pages: false,
            ..UmemConfig::default()
        };
        let umem = Umem::new(config).expect("a small UMEM");
        Self { umem, free: (0..u64::from(count)).map(|frame| frame * FRAME).collect() }
    }

    fn take(&mut self) -> u64 {
        self.free.pop_first().expect("a free frame")
    }

    /// Back to the free ones: any address within a frame means the frame.
    fn give_back(&mut self, addr: u64) {
        assert!(addr < self.umem.len() as u64, "address {addr} is outside of the UMEM");
        assert!(self.free.insert(addr - addr % FRAME), "the frame of {addr} came back twice");
    }

    fn refill(&mut self, socket: &mut Socket, count: usize) {
        let frames: Vec<_> = (0..count).map(|_| self.take()).collect();
        assert_eq!(socket.rings.fill.extend(frames) as usize, count);
        assert_eq!(socket.rings.fill.submit() as usize, count);
        socket.wake_rx().expect("woken");
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) {
        assert!(addr as usize + bytes.len() <= self.umem.len());
        // SAFETY: inside of the UMEM; the test holds the frame.
        unsafe {
            self.umem
                .base()
                .add(addr as usize)
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len())
        }
    }

    fn read(&self, descriptor: Descriptor) -> Vec<u8> {
        let (addr, len) = (descriptor.addr as usize, descriptor.len as usize);
        assert!(addr + len <= self.umem.len());
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.umem.base().add(addr).as_ptr(), len) }.to_vec()
    }

    /// Sends, and waits until the kernel has given the frames back.
    fn send(&mut self, socket: &mut Socket, descriptors: &[Descriptor]) {
        assert_eq!(socket.rings.tx.extend(descriptors.iter().copied()) as usize, descriptors.len());
        assert_eq!(socket.rings.tx.submit() as usize, descriptors.len());
        let mut back = 0;
        eventually("all sent and completed", || {
            let wake = socket.wake_tx().expect("woken");
            assert!(matches!(wake, Wake::NotNeeded | Wake::Done | Wake::Again), "{wake:?}");
            back += socket.rings.completion.consume(64, |addr| self.give_back(addr)) as usize;
            back == descriptors.len()
        });
        assert_eq!(socket.rings.tx.pending(), 0);
    }

    fn send_packet(&mut self, socket: &mut Socket, packet: &[u8]) {
        let addr = self.take() + 256;
        self.write(addr, packet);
        self.send(socket, &[Descriptor { addr, len: packet.len() as u32, options: 0 }]);
    }
}

fn receive(socket: &mut Socket, count: usize) -> Vec<Descriptor> {
    let mut received = Vec::new();
    eventually("received", || {
        socket.wake_rx().expect("woken");
        socket.rings.rx.consume(64, |descriptor| received.push(descriptor));
        received.len() >= count
    });
    assert_eq!(received.len(), count);
    received
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "not {what} within 20 s");
        thread::sleep(Duration::from_millis(1));
    }
}

fn config() -> SocketConfig {
    SocketConfig { rx_entries: 64, tx_entries: 64, ..SocketConfig::default() }
}

fn with_access(ring_access: RingAccess) -> SocketConfig {
    SocketConfig { ring_access, ..config() }
}

fn bind(umem: &Umem, interface: &str, queue: u32, config: &SocketConfig) -> Socket {
    Socket::bind(umem, interface, queue, config).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn refusal(umem: &Umem, interface: &str, queue: u32, config: &SocketConfig) -> Error {
    Socket::bind(umem, interface, queue, config).map(drop).expect_err("refused")
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}

#[test]
fn packets_are_echoed_byte_for_byte_with_heads_grown_and_shrunk() {
    for access in BOTH_ACCESSES {
        in_namespace(|| {
            veth("port", "peer", 1);
            let mut frames = Frames::new(64);
            let mut socket = bind(&frames.umem, "port", 0, &with_access(access));
            assert_eq!(socket.granted().ring_access, access);
            let redirect = Redirect::attach("port");
            redirect.register(0, &socket);
            let wire = Wire::open("peer");

            frames.refill(&mut socket, 32);
            // More rounds than the rings have entries: every slot is used several times.
            for round in 0..30u16 {
                let sent: Vec<_> =
                    (0..8).map(|n| packet(round * 8 + n, [60, 61, 511, 1494][n as usize % 4])).collect();
                sent.iter().for_each(|packet| wire.send(packet));
                let mut echoes = Vec::new();
                let mut expected = Vec::new();
                for (mut descriptor, sent) in receive(&mut socket, 8).into_iter().zip(&sent) {
                    let mut bytes = frames.read(descriptor);
                    assert!(&bytes == sent, "received other bytes than sent: {bytes:x?}");
                    match round % 3 {
                        0 => {}
                        1 => {
                            // As if 20 bytes had been put behind the Ethernet header: the packet begins earlier.
                            bytes.splice(14..14, [0xee; 20]);
                            descriptor.addr -= 20;
                        }
                        _ => {
                            bytes.drain(14..18);
                            descriptor.addr += 4;
                        }
                    }
                    descriptor.len = bytes.len() as u32;
                    frames.write(descriptor.addr, &bytes);
                    echoes.push(descriptor);
                    expected.push(bytes);
                }
                frames.send(&mut socket, &echoes);
                for expected in expected {
                    let seen = wire.receive().expect("the echo");
                    assert!(seen == expected, "{access:?}, round {round}: {seen:x?}");
                }
                frames.refill(&mut socket, 8);
            }
            assert_eq!(frames.free.len(), 32, "the others are in the fill ring");
            assert_eq!(
                socket.statistics().expect("statistics"),
                Statistics {
                    // The kernel counts a look at an empty TX ring, which is how each wakeup ends.
                    tx_ring_empty_descs: socket.statistics().expect("statistics").tx_ring_empty_descs,
                    ..Statistics::default()
                }
            );
        });
    }
}

#[test]
fn a_packet_goes_from_one_interface_to_another_without_leaving_its_frame() {
    for access in BOTH_ACCESSES {
        in_namespace(|| {
            veth("in", "source", 1);
            veth("out", "sink", 1);
            let mut frames = Frames::new(32);
            let mut input = bind(&frames.umem, "in", 0, &with_access(access));
            let mut output = bind(&frames.umem, "out", 0, &with_access(access));
            let redirects = [Redirect::attach("in"), Redirect::attach("out")];
            redirects[0].register(0, &input);
            redirects[1].register(0, &output);
            let (source, sink) = (Wire::open("source"), Wire::open("sink"));

            // And the way back, over rings of the other socket.
            frames.refill(&mut input, 8);
            frames.refill(&mut output, 8);
            for number in 0..100 {
                let sent = packet(number, 200);
                source.send(&sent);
                let received = receive(&mut input, 1);
                frames.send(&mut output, &received);
                assert_eq!(sink.receive().expect("forwarded"), sent);
                frames.refill(&mut input, 1);

                sink.send(&sent);
                let received = receive(&mut output, 1);
                frames.send(&mut input, &received);
                assert_eq!(source.receive().expect("forwarded back"), sent);
                frames.refill(&mut output, 1);
            }
            assert_eq!(frames.free.len(), 16);
        });
    }
}

#[test]
fn each_queue_has_rings_of_its_own() {
    for access in BOTH_ACCESSES {
        in_namespace(|| {
            veth("port", "peer", 2);
            let mut frames = Frames::new(64);
            let mut sockets = [0, 1].map(|queue| bind(&frames.umem, "port", queue, &with_access(access)));
            let redirect = Redirect::attach("port");
            (0..).zip(&sockets).for_each(|(queue, socket)| redirect.register(queue, socket));
            sockets.iter_mut().for_each(|socket| frames.refill(socket, 8));

            // Veth delivers to the queue that the sender sent on, and an AF_XDP socket sends on its own.
            let mut elsewhere = Frames::new(32);
            let mut senders = [0, 1].map(|queue| bind(&elsewhere.umem, "peer", queue, &config()));
            for number in [0, 1, 1, 0, 1, 0, 0, 0] {
                let queue = usize::from(number);
                let sent = packet(number, 100);
                elsewhere.send_packet(&mut senders[queue], &sent);
                let received = receive(&mut sockets[queue], 1);
                assert_eq!(frames.read(received[0]), sent);
                assert_eq!(sockets[1 - queue].rings.rx.available(1), 0);
                frames.give_back(received[0].addr);
            }
        });
    }
}

#[test]
fn a_queue_can_be_bound_again_once_it_was_closed_and_not_before() {
    in_namespace(|| {
        veth("port", "peer", 2);
        for access in [RingAccess::Native, RingAccess::Library, RingAccess::Native] {
            let frames = Frames::new(4);
            let _socket = bind(&frames.umem, "port", 1, &with_access(access));
            let other = Frames::new(4);
            let impatient = SocketConfig { patience: Duration::from_millis(30), ..config() };
            let error = refusal(&other.umem, "port", 1, &impatient);
            assert!(matches!(&error, Error::Busy { .. }), "{error:?}");
            assert!(error.to_string().starts_with("port queue 1: another socket has it bound"), "{error}");
            // The refused UMEM is as good as new.
            bind(&other.umem, "port", 0, &config());
            // Our own second socket on a queue is refused without a wait.
            let error = refusal(&frames.umem, "port", 1, &config());
            assert!(matches!(&error, Error::Busy { .. }), "{error:?}");
        }
    });
}

#[test]
fn closing_a_later_socket_frees_its_queue_while_the_umem_lives_on() {
    in_namespace(|| {
        veth("port", "peer", 2);
        let frames = Frames::new(4);
        let _first = bind(&frames.umem, "port", 0, &config());
        for access in [RingAccess::Native, RingAccess::Library, RingAccess::Native] {
            drop(bind(&frames.umem, "port", 1, &with_access(access)));
        }
    });
}

#[test]
fn a_umem_whose_sockets_are_all_gone_says_that_it_is_of_no_more_use() {
    in_namespace(|| {
        veth("port", "peer", 1);
        let frames = Frames::new(4);
        drop(bind(&frames.umem, "port", 0, &config()));
        let error = refusal(&frames.umem, "port", 0, &config());
        assert!(chain(&error).contains("stays bound to its queue until the UMEM goes"), "{}", chain(&error));
    });
}

/// Ends the child also when the test fails.
struct Outliving(Child);

impl Drop for Outliving {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it ends");
    }
}

#[test]
fn a_refusal_says_what_would_be_right_and_whether_another_way_might_do() {
    let name = Name { interface: "eth0".into(), queue: 3 };
    let refused = |errno, zero_copy, multi_buffer| {
        let error =
            name.refused(io::Error::from_raw_os_error(errno), Asked { zero_copy, multi_buffer }, true);
        let text = error.to_string();
        (
            text.strip_prefix("eth0 queue 3: ").unwrap_or(&text).to_owned(),
            error.is_of_the_way(),
            error.is_of_zero_copy(),
        )
    };
    let both = "packets of several frames in zero-copy mode take Linux 6.6 or newer, and a driver that has them; leave \
                the mode open, or take packets of one frame";
    let copy = "; use copy mode for all ports of the worker";
    for errno in [libc::EINVAL, libc::EOPNOTSUPP, ENOTSUPP] {
        assert_eq!(refused(errno, true, true), (both.into(), true, false));
        assert_eq!(
            refused(errno, true, false),
            (format!("its driver does not do zero-copy{copy}"), true, true)
        );
    }
    let older = "packets of several frames take Linux 6.6 or newer";
    assert_eq!(refused(libc::EINVAL, false, true), (older.into(), true, false));
    // What a driver says that has zero-copy, but not just now.
    for errno in [libc::ENOMEM, libc::ENOSPC, libc::EIO] {
        for multi_buffer in [false, true] {
            let failed = format!("its driver could not set zero-copy up{copy}");
            assert_eq!(refused(errno, true, multi_buffer), (failed, true, true));
            assert_eq!(refused(errno, false, multi_buffer), ("bind".into(), false, false));
        }
    }
    // No other way changes these.
    for errno in [libc::EPERM, libc::ENETDOWN, libc::ENODEV] {
        let (text, of_the_way, _) = refused(errno, true, true);
        assert!(!of_the_way, "{text}");
    }
}

#[test]
fn a_child_process_does_not_keep_the_queue() {
    in_namespace(|| {
        veth("port", "peer", 2);
        for access in BOTH_ACCESSES {
            let frames = Frames::new(4);
            let sleep =
                || Outliving(Command::new("sleep").arg("1000").spawn().expect("coreutils are installed"));
            // Before any socket is bound libxdp has opened one already.
            let _early = sleep();
            let sockets = [0, 1].map(|queue| bind(&frames.umem, "port", queue, &with_access(access)));
            let _late = sleep();
            drop((sockets, frames));
            let again = Frames::new(4);
            let _both = [0, 1].map(|queue| bind(&again.umem, "port", queue, &config()));
        }
    });
}

#[test]
fn the_mode_is_as_demanded_or_an_error_says_why_not() {
    in_namespace(|| {
        veth("port", "peer", 2);
        let demand = |mode| SocketConfig { mode: ModeWanted::Demand(mode), ..config() };
        let frames = Frames::new(4);
        let error = refusal(&frames.umem, "port", 0, &demand(Mode::ZeroCopy));
        assert!(matches!(error, Error::ZeroCopyUnavailable { .. }), "{error:?}");
        assert!(error.to_string().starts_with("port queue 0: its driver does not do zero-copy"), "{error}");

        let copy = bind(&frames.umem, "port", 0, &demand(Mode::Copy));
        assert_eq!(copy.granted().mode, Mode::Copy);
        let error = refusal(&frames.umem, "port", 1, &demand(Mode::ZeroCopy));
        assert_eq!(
            error.to_string(),
            "port queue 1: zero-copy mode demanded, but the first socket on this UMEM is in copy mode"
        );
        let auto = bind(&frames.umem, "port", 1, &config());
        assert_eq!(auto.granted().mode, Mode::Copy, "veth does no zero-copy");
    });
}

#[test]
fn rings_are_native_where_the_kernel_lets_us_map_them_and_xsk_rs_s_elsewhere() {
    in_namespace(|| {
        veth("port", "peer", 2);
        let [here, mut before_6_4, refused] = [8, 8, 8].map(Frames::new);
        let native = bind(&here.umem, "port", 0, &config()).granted().ring_access == RingAccess::Native;
        assert_eq!(native, kernel() >= (6, 4));
        drop(here);

        forbid_mapping_fill_rings();
        let mut socket = bind(&before_6_4.umem, "port", 0, &config());
        assert_eq!(socket.granted().ring_access, RingAccess::Library);
        let sent = packet(7, 80);
        let wire = Wire::open("peer");
        before_6_4.send_packet(&mut socket, &sent);
        assert_eq!(wire.receive(), Some(sent));

        let error = refusal(&refused.umem, "port", 1, &with_access(RingAccess::Native));
        assert!(
            error
                .to_string()
                .starts_with("port queue 1: map its rings (a bound socket's: from Linux 6.4 on)"),
            "{error}"
        );
    });
}

#[test]
fn a_socket_may_move_to_the_thread_of_its_worker() {
    fn moves<T: Send>() {}
    moves::<Socket>();
    moves::<Umem>();
}

#[test]
fn errors_name_the_interface_and_queue_that_are_not_there() {
    in_namespace(|| {
        veth("port", "peer", 2);
        let frames = Frames::new(4);
        for name in ["nowhere", "", "longer-than-an-interface-name", "with\0nul"] {
            let error = refusal(&frames.umem, name, 0, &config());
            assert!(matches!(&error, Error::NoSuchInterface { interface } if interface == name), "{error:?}");
        }
        let error = refusal(&frames.umem, "port", 2, &config());
        assert!(
            error.to_string().starts_with("port queue 2: bind (is there a queue of that number"),
            "{error}"
        );
        let error = refusal(&frames.umem, "port", 0, &SocketConfig { rx_entries: 100, ..config() });
        assert!(error.to_string().starts_with("RX ring entries cannot be 100"), "{error}");
    });
}

#[test]
fn busy_polling_and_the_tx_budget_are_granted_where_the_kernel_has_them() {
    for access in BOTH_ACCESSES {
        in_namespace(|| {
            veth("port", "peer", 1);
            let mut frames = Frames::new(64);
            let wanted = BusyPoll { microseconds: 30, budget: 32 };
            let config = SocketConfig { busy_poll: Some(wanted), ..with_access(access) };
            let mut socket = bind(&frames.umem, "port", 0, &config);
            let granted = socket.granted();
            let (major, minor) = kernel();
            assert_eq!(granted.busy_poll, ((major, minor) >= (5, 11)).then_some(wanted));
            assert_eq!(granted.tx_budget, ((major, minor) >= (6, 17)).then_some(64));
            assert!(granted.send_buffer_bytes >= 64 * 2048, "{granted:?}");

            let redirect = Redirect::attach("port");
            redirect.register(0, &socket);
            frames.refill(&mut socket, 16);
            let wire = Wire::open("peer");
            (0..16).for_each(|number| wire.send(&packet(number, 99)));
            for (number, descriptor) in receive(&mut socket, 16).into_iter().enumerate() {
                assert_eq!(frames.read(descriptor), packet(number as u16, 99));
            }
            // The whole ring leaves at one wakeup where the budget says so.
            if granted.tx_budget.is_some() {
                let sent: Vec<_> =
                    (0..40).map(|_| Descriptor { addr: frames.take(), len: 60, options: 0 }).collect();
                socket.rings.tx.extend(sent);
                socket.rings.tx.submit();
                assert_eq!(socket.wake_tx().expect("woken"), Wake::Done);
                assert_eq!(socket.rings.tx.pending(), 0);
                assert_eq!(socket.wake_tx().expect("nothing to do"), Wake::NotNeeded);
            }
        });
    }
}

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let mut numbers = release.split('.').map(|part| part.parse().expect("a number"));
    (numbers.next().expect("major"), numbers.next().expect("minor"))
}

#[test]
fn the_kernel_counts_what_it_could_not_receive_or_send() {
    in_namespace(|| {
        veth("port", "peer", 1);
        let mut frames = Frames::new(256);
        let small = SocketConfig { rx_entries: 16, ..config() };
        let mut socket = bind(&frames.umem, "port", 0, &small);
        let redirect = Redirect::attach("port");
        redirect.register(0, &socket);
        let wire = Wire::open("peer");

        wire.send(&packet(0, 60));
        eventually("counted as without a frame", || {
            socket.statistics().expect("statistics").rx_fill_ring_empty_descs > 0
        });
        frames.refill(&mut socket, 64);
        (0..20).for_each(|number| wire.send(&packet(number, 60)));
        eventually("four counted as too many for the RX ring", || {
            socket.statistics().expect("statistics").rx_ring_full == 4
        });
        assert_eq!(socket.rings.rx.available(u32::MAX), 16);

        let outside = frames.umem.len() as u64 + 100;
        assert!(socket.rings.tx.push(Descriptor { addr: outside, len: 60, options: 0 }));
        socket.rings.tx.submit();
        socket.wake_tx().expect("woken");
        assert_eq!(socket.statistics().expect("statistics").tx_invalid_descs, 1);
        // Linux 6.18 gives the address back as completed, earlier ones do not; either way nothing is sent.
        socket.rings.completion.consume(u32::MAX, |addr| assert_eq!(addr, outside));
        let valid = packet(1234, 70);
        frames.send_packet(&mut socket, &valid);
        assert_eq!(wire.receive(), Some(valid));
    });
}

#[test]
fn a_sleeper_wakes_when_any_of_its_sockets_receives() {
    in_namespace(|| {
        veth("one", "peer-one", 1);
        veth("two", "peer-two", 1);
        let mut frames = Frames::new(16);
        let mut sockets = ["one", "two"].map(|name| bind(&frames.umem, name, 0, &config()));
        let redirects = ["one", "two"].map(Redirect::attach);
        redirects.iter().zip(&sockets).for_each(|(redirect, socket)| redirect.register(0, socket));
        sockets.iter_mut().for_each(|socket| frames.refill(socket, 4));
        let mut sleeper = Sleeper::new(&sockets);
        assert!(!sleeper.wait(Duration::from_millis(1)).expect("polled"), "nothing was sent");
        for (name, socket) in ["peer-one", "peer-two"].into_iter().zip(&mut sockets) {
            Wire::open(name).send(&packet(1, 60));
            assert!(sleeper.wait(Duration::from_secs(20)).expect("polled"));
            receive(socket, 1);
            assert!(!sleeper.wait(Duration::ZERO).expect("polled"), "all was taken");
        }
    });
}

#[test]
fn an_interface_that_goes_down_or_away_is_told_from_other_failures() {
    for access in BOTH_ACCESSES {
        in_namespace(|| {
            veth("port", "peer", 1);
            let mut frames = Frames::new(16);
            let mut socket = bind(&frames.umem, "port", 0, &with_access(access));
            assert!(socket.rings.tx.push(Descriptor { addr: frames.take(), len: 60, options: 0 }));
            socket.rings.tx.submit();
            ip("link set port down");
            assert_eq!(socket.wake_tx().expect("an outcome"), Wake::Down);
            ip("link set port up");
            eventually("sent after all", || {
                socket.wake_tx().expect("an outcome");
                socket.rings.completion.available(1) == 1
            });

            assert!(socket.rings.tx.push(Descriptor { addr: frames.take(), len: 60, options: 0 }));
            socket.rings.tx.submit();
            ip("link delete port");
            assert_eq!(socket.wake_tx().expect("an outcome"), Wake::Gone);
        });
    }
}
