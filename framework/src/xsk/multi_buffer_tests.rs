//! Packets of several frames, through both ways to the rings.

use afx_redirect::{Options, Redirect as FragmentsRedirect, Steering};

use super::*;
use crate::xsk::frames::CONTINUED;
use crate::xsk::test_net::index;

/// A veth pair with jumbo frames, and the program of one end that takes them.
fn jumbo() -> FragmentsRedirect {
    veth("port", "peer", 1);
    ip("link set port mtu 9000");
    ip("link set peer mtu 9000");
    let options =
        Options { multi_buffer: true, frame_limit: 18 * 1792, stall_limit: None, ..Options::default() };
    FragmentsRedirect::attach(index("port"), &Steering::All, &options)
        .expect("veth takes a program for fragments")
}

#[test]
fn a_long_packet_comes_and_goes_in_several_descriptors() {
    for access in BOTH_ACCESSES {
        in_namespace(|| {
            let redirect = jumbo();
            let mut frames = Frames::new(64);
            let config = SocketConfig { multi_buffer: true, ..with_access(access) };
            let mut socket = bind(&frames.umem, "port", 0, &config);
            let granted = socket.granted();
            assert!(granted.multi_buffer && granted.ring_access == access, "{granted:?}");
            redirect.register(0, socket.as_fd()).expect("registered");
            frames.refill(&mut socket, 32);
            let wire = Wire::open("peer");
            for (length, count) in [(9014, 6), (60, 1), (1792, 1), (1793, 2), (3584, 2), (3585, 3)] {
                let sent = packet(length as u16, length);
                wire.send(&sent);
                let received = receive(&mut socket, count);
                let bytes: Vec<u8> =
                    received.iter().flat_map(|descriptor| frames.read(*descriptor)).collect();
                assert!(bytes == sent, "{length} bytes");
                let (last, first) = received.split_last().expect("one at least");
                assert!(first.iter().all(|descriptor| descriptor.options == CONTINUED), "{received:?}");
                assert_eq!(last.options, 0);
                // The same frames go back, as they came: all of them are completed, and one packet arrives.
                frames.send(&mut socket, &received);
                assert!(wire.receive().expect("sent") == sent, "{length} bytes back");
                frames.refill(&mut socket, count);
            }
        });
    }
}

#[test]
fn as_many_frames_as_any_kernel_sends_are_sent() {
    in_namespace(|| {
        let _redirect = jumbo();
        let mut frames = Frames::new(64);
        let config = SocketConfig { multi_buffer: true, ..config() };
        let mut socket = bind(&frames.umem, "port", 0, &config);
        let wire = Wire::open("peer");
        let sent = packet(7, 18 * 100);
        let descriptors: Vec<_> = sent
            .chunks(100)
            .enumerate()
            .map(|(index, chunk)| {
                let addr = frames.take() + 256;
                frames.write(addr, chunk);
                Descriptor { addr, len: 100, options: if index < 17 { CONTINUED } else { 0 } }
            })
            .collect();
        frames.send(&mut socket, &descriptors);
        assert!(wire.receive().expect("sent") == sent);
        assert_eq!(frames.free.len(), 64);
    });
}

#[test]
fn after_a_way_that_the_driver_does_not_have_the_next_is_bound_on_the_same_memory() {
    in_namespace(|| {
        let redirect = jumbo();
        let mut frames = Frames::new(64);
        let way = |mode| SocketConfig { multi_buffer: true, mode: ModeWanted::Demand(mode), ..config() };
        let refused = refusal(&frames.umem, "port", 0, &way(Mode::ZeroCopy));
        assert!(refused.is_of_the_way() && !frames.umem.is_bound(), "{refused}");
        let mut socket = bind(&frames.umem, "port", 0, &way(Mode::Copy));
        assert!(socket.granted().multi_buffer && frames.umem.is_bound());
        redirect.register(0, socket.as_fd()).expect("registered");
        frames.refill(&mut socket, 16);
        let sent = packet(1, 9000);
        Wire::open("peer").send(&sent);
        let received = receive(&mut socket, 6);
        assert!(received.iter().flat_map(|descriptor| frames.read(*descriptor)).collect::<Vec<_>>() == sent);
    });
}

#[test]
fn later_sockets_do_as_the_first() {
    in_namespace(|| {
        let _redirect = jumbo();
        veth("other", "other_peer", 1);
        for multi_buffer in [true, false] {
            let frames = Frames::new(64);
            let first = bind(&frames.umem, "port", 0, &SocketConfig { multi_buffer, ..config() });
            let later = SocketConfig { multi_buffer: !multi_buffer, ..config() };
            let second = bind(&frames.umem, "other", 0, &later);
            assert_eq!([first, second].map(|socket| socket.granted().multi_buffer), [multi_buffer; 2]);
        }
    });
}
