//! Settings of a card that has them: queues, the table of RSS, interrupts. Changed by a port, put back at its end.

use std::fs;

use afx::port::{Mode, XdpPort};
use afx::settings::{Settings, Want};
use afx::{Idle, Running, Runtime};

use crate::cable::Cable;
use crate::doctor::Card;
use crate::support::{Hosts, Mirror, assert_settled, port};

/// Setting, value before and value of each change.
fn changes(running: &Running) -> Vec<(String, String, String)> {
    let status = running.status();
    let changes = status[0].changes.iter();
    changes.map(|change| (change.setting.clone(), change.before.clone(), change.value.clone())).collect()
}

fn start(hosts: &Hosts, port: XdpPort, core: usize) -> afx::Result<Running> {
    let builder = || Runtime::builder().port(port).workers(1).cores([core]).idle(Idle::ADAPTIVE);
    hosts.start(builder, || Mirror)
}

/// The cores of each interrupt of a card, by its number.
fn interrupts(card: &str) -> Vec<(String, String)> {
    let names = fs::read_dir(format!("/sys/class/net/{card}/device/msi_irqs")).unwrap().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let cores = |number: String| {
        let cores = fs::read_to_string(format!("/proc/irq/{number}/smp_affinity_list")).unwrap();
        (number, cores.trim().to_owned())
    };
    let mut all: Vec<_> = names.map(number).map(cores).collect();
    all.sort();
    all
}

/// In no namespace of its own: a card's interrupts are in the `/sys` of the machine.
#[test]
fn a_card_leads_to_the_queue_that_is_served_and_its_interrupt_to_the_worker() {
    let card = Card::new(Cable::Igb);
    let name = card.ends[0].as_str();
    let before = interrupts(name);
    let start = |port: XdpPort, core: usize| {
        let builder = Runtime::builder().port(port).workers(1).cores([core]).idle(Idle::ADAPTIVE);
        builder.pipeline(|_| Mirror).start().unwrap()
    };
    for core in [1, 0] {
        let settings =
            Settings::new().spread(Want::Required).interrupts(Want::Required).defer(Want::Required);
        let running = start(port(name, Mode::Copy).queues([1]).settings(settings), core);
        let changed = changes(&running);
        let find = |name: &str| changed.iter().find(|(setting, ..)| setting.starts_with(name));
        let (_, table, queue) = find("RSS table").unwrap();
        assert_eq!((table.as_str(), queue.as_str()), ("queues 0-1", "queue 1"));
        assert_eq!(find("napi_defer_hard_irqs").unwrap().2, "2");
        // As the kernel says: the queue's interrupts come on the worker's core alone, and the others as they did.
        let now = interrupts(name);
        let moved: Vec<_> = now.iter().zip(&before).filter(|(now, before)| now != before).collect();
        assert!(!moved.is_empty() && moved.len() < before.len(), "{now:?}, {before:?}");
        assert!(moved.iter().all(|((_, cores), _)| *cores == core.to_string()), "{now:?}, {before:?}");
        running.stop().unwrap();
        assert_eq!(interrupts(name), before);
    }
    // The table is as it was: there is nothing to change for both queues.
    let both = port(name, Mode::Copy).settings(Settings::new().spread(Want::Required));
    let running = start(both, 0);
    assert_eq!(changes(&running), []);
    running.stop().unwrap();
}

#[test]
fn a_card_has_as_many_queues_as_are_wanted() {
    let hosts = Hosts::new("zset-queues");
    hosts.join(Cable::Igb, "eth0");
    let one = || port("eth0", Mode::Copy).settings(Settings::new().channels(1));
    let running = start(&hosts, one(), 0).unwrap();
    assert_eq!(changes(&running), [("channels".into(), "2".into(), "1".into())]);
    assert_eq!(running.stats().queues().count(), 1);
    assert_settled(&running.stop().unwrap(), &hosts.near, &["eth0"]);
    // And two again.
    let two = port("eth0", Mode::Copy).settings(Settings::new().channels(2));
    let running = start(&hosts, two, 0).unwrap();
    assert_eq!((changes(&running), running.stats().queues().count()), (vec![], 2));
    running.stop().unwrap();
    // More than it can have: nothing is changed.
    let many = port("eth0", Mode::Copy).settings(Settings::new().channels(64));
    let error = start(&hosts, many, 0).err().expect("it has no 64 queues");
    assert!(format!("{error:?}").contains("64 queues: it can have 1 to "), "{error:?}");
    let running = start(&hosts, one(), 0).unwrap();
    assert_eq!(changes(&running), [("channels".into(), "2".into(), "1".into())]);
    running.stop().unwrap();
}
