//! Who gets how much: the promises of Maglev hashing, kept through the whole stage.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use afx::packet::{Protocol, TcpFlags};
use afx::stage::balancer::Vip;

use crate::lab::{Lab, Real, Setup, vip};
use crate::outer::Outer;
use crate::packets::tcp;

const VIP: &str = "198.51.100.10:443";
const FLOWS: u32 = 100_000;

fn syn(number: u32) -> Vec<u8> {
    // 10,000 ports on each of ten clients.
    let client = IpAddr::from([192, 0, 2, (number / 10_000) as u8]);
    tcp(SocketAddr::new(client, 10_000 + (number % 10_000) as u16), VIP.parse().unwrap(), TcpFlags::SYN)
}

fn setup(weights: impl IntoIterator<Item = u32>) -> Setup {
    let real = |(number, weight)| Real::new(&format!("10.0.1.{number}")).weight(weight);
    let reals = (1..).zip(weights).map(real).collect();
    Setup { table_size: 65_537, ..Setup::new([(service(), reals)]) }
}

fn service() -> Vip {
    vip(VIP, Protocol::TCP)
}

/// The real of each flow, as the packets show it.
fn choices(lab: &mut Lab) -> Vec<IpAddr> {
    let out = lab.exchange((0..FLOWS).map(syn));
    out.iter().map(|packet| Outer::decode(packet).destination).collect()
}

#[test]
fn removing_one_of_a_hundred_reals_moves_few_flows_of_the_others() {
    let before = setup([1; 100]);
    let mut after = before.clone();
    let removed = after.vips[0].reals.remove(37).address;
    // As many as there are flows: some thousands of them stand in their second bucket.
    let (mut full, mut reduced) =
        (Lab::with_capacity(&before, FLOWS as usize), Lab::with_capacity(&after, 200_000));

    // The slots themselves: how many of the survivors' changed hands.
    let (mut moved, mut others) = (0, 0);
    for (was, is) in choices(&mut full).into_iter().zip(choices(&mut reduced)) {
        assert_ne!(is, removed);
        if was != removed {
            others += 1;
            moved += u32::from(was != is);
        }
    }
    assert!(others > FLOWS * 98 / 100);
    let share = f64::from(moved) / f64::from(others);
    assert!(share < 0.015, "{share} of the other reals' flows have moved");

    // Flows that have begun do not move at all: only those of the real that is gone get another one.
    full.reload(&after);
    let followed = choices(&mut full);
    let fresh = choices(&mut reduced);
    let again = choices(&mut Lab::with_capacity(&before, 200_000));
    for ((was, is), new) in again.into_iter().zip(followed).zip(fresh) {
        assert_eq!(is, if was == removed { new } else { was });
    }
    full.finish();
    reduced.finish();
}

#[test]
fn shares_of_flows_follow_the_slots_and_the_weights() {
    let setup = setup(1..=10);
    let mut lab = Lab::with_capacity(&setup, 200_000);
    let slots = setup.services(&mut lab.directory).slots(&service());
    let mut flows: HashMap<IpAddr, u32> = HashMap::new();
    for real in choices(&mut lab) {
        *flows.entry(real).or_default() += 1;
    }
    for ((real, weight), (id, slots)) in setup.vips[0].reals.iter().zip(1..).zip(slots) {
        // To within one slot what the weight says.
        let exact = f64::from(weight) / 55.0;
        assert!((slots as f64 - exact * 65_537.0).abs() <= 1.0, "{slots} slots for weight {weight}");
        // Within five standard deviations of a fair draw.
        let count = f64::from(flows[&real.address]);
        let deviation = (f64::from(FLOWS) * exact * (1.0 - exact)).sqrt();
        assert!((count - f64::from(FLOWS) * exact).abs() < 5.0 * deviation, "{count} for weight {weight}");
        // And so it is counted.
        let stats = lab.monitor.real(id);
        assert_eq!((stats.opened, stats.packets), (count as u64, count as u64));
        assert_eq!(stats.bytes, 40 * count as u64);
    }
    assert_eq!(lab.finish().sent(), u64::from(FLOWS));
}
