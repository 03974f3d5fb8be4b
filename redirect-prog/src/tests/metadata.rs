//! What the driver of a veth knows of packets, noted before them; and what is done where there is nothing to be known.

use super::harness::{Wire, XskSocket, eventually, ifindex};
use super::live::{CLIENT, HOST, rule, sockets};
use super::namespace::{in_namespace, ip, link_state};
use super::packets::*;
use crate::testing::{OtherProgram, tag_what_leaves};
use crate::{
    AttachMode, Attached, Coexist, Error, Kinds, NoMetadata, Note, Noting, Options, Redirect, RxMetadata,
    Steering,
};

fn options(rx_metadata: RxMetadata) -> Options {
    Options { rx_metadata, stall_limit: None, ..Options::default() }
}

fn attach(interface: &str, options: &Options) -> Result<Redirect, Error> {
    Redirect::attach(ifindex(interface), &Steering::All, options)
}

/// Sends a packet, and returns the note before it.
fn noted(redirect: &Redirect, sockets: &mut [XskSocket], packet: &[u8]) -> Option<Note> {
    Wire::new("veth0").send(packet);
    let mut received = None;
    eventually("the packet reaches a socket", || {
        received = sockets.iter_mut().flat_map(XskSocket::receive_noted).next();
        received.is_some()
    });
    let (mut before, bytes) = received?;
    assert_eq!(bytes, packet, "the packet itself is as it was sent");
    Note::take(&mut before, redirect.noting()?.mark())
}

/// Demands that nothing is noted, and says why.
fn why_not(redirect: &Redirect) -> String {
    assert_eq!(redirect.noting(), None);
    redirect.no_metadata().expect("it was asked for").to_string()
}

#[test]
fn the_hash_of_a_flow_is_noted_and_what_veth_does_not_know_is_not() {
    in_namespace(|| {
        let redirect = attach("veth1", &options(RxMetadata::On)).expect("veth has metadata");
        assert_eq!((redirect.mode(), redirect.no_metadata().is_none()), (Attached::Native, true));
        if let Some(kinds) = redirect.noting().expect("it notes").kinds() {
            assert!(kinds.contain(Kinds::HASH), "{kinds}");
        }
        let mut sockets = sockets(&redirect);
        let mut hash = |port: u16, payload: &[u8]| {
            let packet = frame(&udp(CLIENT, HOST, port, payload));
            let note = noted(&redirect, &mut sockets, &packet).expect("a note");
            assert_eq!((note.timestamp_ns, note.vlan), (None, None));
            note.hash.expect("veth knows a hash").value
        };
        let (one, again, other) = (hash(443, b"one"), hash(443, b"two"), hash(444, b"one"));
        assert_eq!(one, again, "one flow");
        assert_ne!(one, other, "another flow");
    });
}

#[test]
fn the_tag_that_travels_beside_a_packet_is_noted_and_one_in_its_bytes_is_not() {
    in_namespace(|| {
        let redirect = attach("veth1", &options(RxMetadata::On)).expect("veth has metadata");
        // From Linux 6.8 on.
        if redirect.noting().and_then(Noting::kinds).is_some_and(|kinds| kinds.contain(Kinds::VLAN_TAG)) {
            let mut sockets = sockets(&redirect);
            let packet = tagged(&[0x8100], &udp(CLIENT, HOST, 443, b"its own tag"));
            assert_eq!(noted(&redirect, &mut sockets, &packet).expect("a note").vlan, None);
            let packet = frame(&udp(CLIENT, HOST, 443, b"beside it"));
            tag_what_leaves(ifindex("veth0"), 0x6007).expect("a tag");
            let vlan = noted(&redirect, &mut sockets, &packet).expect("a note").vlan.expect("a tag");
            assert_eq!((vlan.tag, vlan.ethertype), (0x6007, 0x8100));
        }
    });
}

#[test]
fn nothing_is_noted_unless_asked_for() {
    in_namespace(|| {
        let redirect =
            attach("veth1", &Options { stall_limit: None, ..Options::default() }).expect("attached");
        assert_eq!((redirect.noting(), redirect.no_metadata().is_none()), (None, true));
        let mut sockets = sockets(&redirect);
        Wire::new("veth0").send(&frame(&udp(CLIENT, HOST, 443, b"bare")));
        eventually("the packet reaches a socket", || {
            let received = sockets.iter_mut().flat_map(XskSocket::receive_noted).next();
            received.is_some_and(|(before, _)| before == [0; Note::SIZE])
        });
    });
}

#[test]
fn a_change_keeps_it_also_from_a_thread_in_another_namespace() {
    in_namespace(|| {
        let options = Options { multi_buffer: true, ..options(RxMetadata::On) };
        let mut redirect = attach("veth1", &options).expect("veth has metadata");
        let mut sockets = sockets(&redirect);
        let packet = frame(&udp(CLIENT, HOST, 443, b"steered"));
        let before = noted(&redirect, &mut sockets, &packet).expect("a note");

        let steering = Steering::Match(vec![rule(HOST, Some(443))]);
        in_namespace(|| redirect.update_steering(&steering)).expect("the steering changes");
        assert_eq!(noted(&redirect, &mut sockets, &packet), Some(before));
        let blocked = "10.0.0.0/8".parse().expect("a prefix");
        redirect.update_blocklist(&[blocked]).expect("the blocklist changes");
        assert_eq!(noted(&redirect, &mut sockets, &packet), Some(before));
        in_namespace(|| redirect.update_frame_limit(3000)).expect("the limit changes");
        assert_eq!(noted(&redirect, &mut sockets, &packet), Some(before));
    });
}

#[test]
fn where_there_is_none_it_is_said_or_an_error_and_nothing_is_left() {
    in_namespace(|| {
        ip("link add bridge0 type bridge");
        // Longer packets than a program without multi-buffer can be given.
        ip("link set veth0 mtu 9000");
        let generic = AttachMode::Generic;
        for (interface, mode, says) in [
            ("lo", AttachMode::Auto, "the driver has none"),
            ("bridge0", AttachMode::Auto, "the driver has none"),
            ("veth1", generic, "generic mode has none"),
            ("veth1", AttachMode::Auto, "the driver does not take the program that reads it"),
        ] {
            let before = link_state(interface);
            let auto = attach(interface, &Options { mode, ..options(RxMetadata::Auto) }).expect("without it");
            assert!(why_not(&auto).contains(says), "{interface}: {}", why_not(&auto));
            assert_eq!(auto.mode(), Attached::Generic);
            assert_eq!(auto.fallback().is_some(), mode == AttachMode::Auto, "{interface}");
            drop(auto);
            assert_eq!(link_state(interface), before);

            let error =
                attach(interface, &Options { mode, ..options(RxMetadata::On) }).expect_err("demanded");
            let Error::Metadata { source, .. } = &error else { panic!("{error}") };
            assert!(source.to_string().contains(says), "{interface}: {source}");
            assert_eq!(link_state(interface), before);
        }
        // Of native mode alone, what it says itself is told.
        let native = Options { mode: AttachMode::Native, ..options(RxMetadata::Auto) };
        let error = attach("veth1", &native).expect_err("too long packets");
        assert!(matches!(error, Error::Attach { mode: Attached::Native, .. }), "{error}");
    });
}

#[test]
fn beside_another_program_it_is_noted_where_that_is_replaced_and_not_where_it_is_chained() {
    in_namespace(|| {
        let other = OtherProgram::load(false).expect("a small program");
        other.attach(ifindex("veth1"), Attached::Native).expect("veth takes native mode");
        let before = link_state("veth1");
        let with = |rx_metadata, coexist| {
            let options = Options { coexist, ..options(rx_metadata) };
            Redirect::attach(ifindex("veth1"), &Steering::Match(vec![rule(HOST, Some(443))]), &options)
        };
        let packet = frame(&udp(CLIENT, HOST, 443, b"for the socket"));

        let replaced = with(RxMetadata::On, Coexist::Replace).expect("it takes the place");
        let mut sockets_of_it = sockets(&replaced);
        assert!(noted(&replaced, &mut sockets_of_it, &packet).is_some_and(|note| note.hash.is_some()));
        drop(sockets_of_it);
        replaced.detach().expect("the other is put back");
        assert_eq!(link_state("veth1"), before);

        let chained = with(RxMetadata::Auto, Coexist::Chain).expect("it comes first");
        assert!(why_not(&chained).contains("another program is chained"), "{}", why_not(&chained));
        let mut sockets_of_it = sockets(&chained);
        assert_eq!(noted(&chained, &mut sockets_of_it, &packet), None);
        Wire::new("veth0").send(&frame(&udp(CLIENT, HOST, 53, b"for the host")));
        eventually("the other sees what is passed", || other.seen().expect("a count") == 1);
        drop(sockets_of_it);
        chained.detach().expect("the other is put back");

        let error = with(RxMetadata::On, Coexist::Chain).expect_err("both cannot be");
        assert!(matches!(error, Error::Metadata { source: NoMetadata::Chained, .. }), "{error}");
        assert_eq!(link_state("veth1"), before);
    });
}

#[test]
fn an_interface_that_goes_away_takes_nothing_else_along() {
    in_namespace(|| {
        let mut redirect = attach("veth1", &options(RxMetadata::On)).expect("veth has metadata");
        ip("link del veth1");
        redirect.update_steering(&Steering::Match(vec![])).expect_err("no device to be bound to");
        redirect.counters().expect("the counters are still there");
        redirect.detach().expect("there is nothing left to do");
    });
}
