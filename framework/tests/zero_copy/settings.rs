//! Settings of a card that has them: queues, the table of RSS, interrupts. Changed by a port, put back at its end.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};

use afx::port::{Coexist, Mode, ModeWanted, XdpPort};
use afx::settings::{SYMMETRIC_KEY, Settings, Want};
use afx::{Idle, Running, Runtime};
use afx_redirect::Attached;
use afx_redirect::testing::OtherProgram;
use afx_testbed::census::{Census, assert_nothing_left};
use afx_testbed::{Host, wait_for};

use crate::cable::Cable;
use crate::doctor::Card;
use crate::pump::Plan;
use crate::support::{Hosts, Mirror, PATIENCE, assert_settled, port, program};

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

/// The key of a card's hash in hexadecimal, and its table, as the kernel says.
fn rss(host: &Host) -> (String, Vec<String>) {
    let shown = host.command("ethtool").args(["-x", "eth0"]).check().unwrap();
    let (table, rest) = shown.split_once("RSS hash key:").expect("a key");
    let key = rest.lines().nth(1).unwrap().replace(':', "");
    let places = table.lines().filter_map(|line| line.trim().split_once(':')).skip(1);
    (key, places.flat_map(|(_, queues)| queues.split_whitespace().map(str::to_owned)).collect())
}

#[test]
fn a_card_hashes_by_the_key_that_is_wanted_and_its_own_again() {
    let hosts = Hosts::new("zset-key");
    hosts.join(Cable::Rss, "eth0");
    let before = rss(&hosts.near);
    assert_eq!((before.0.len(), before.1.len()), (80, 128), "{before:?}");
    assert!(before.1.contains(&"0".into()) && before.1.contains(&"1".into()), "{before:?}");
    for (queue, key) in [(1, &SYMMETRIC_KEY[..]), (0, &[0xa1, 0xb2, 0xc3])] {
        let settings = Settings::new().rss_key(key).spread(Want::Required);
        let running =
            start(&hosts, port("eth0", Mode::ZeroCopy).queues([queue]).settings(settings), 0).unwrap();
        let (now, table) = rss(&hosts.near);
        let whole: Vec<u8> = key.iter().copied().cycle().take(40).collect();
        assert_eq!(now, whole.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        assert!(table.iter().all(|place| *place == queue.to_string()), "{table:?}");
        let changed = changes(&running);
        assert_eq!(changed[0].0, "RSS key");
        assert_eq!(changed[1], ("RSS table".into(), "queues 0-1".into(), format!("queue {queue}")));
        let is_symmetric = changed[0].2 == "6d5a repeated, the same both ways";
        assert_eq!(is_symmetric, key == SYMMETRIC_KEY, "{changed:?}");
        // Of many flows, none comes on the other queue, where it would be the kernel's.
        let traffic = hosts.pump(&["eth0"], ModeWanted::Auto, Cable::Rss, Plan::endless().flows(64));
        traffic.wait_for_more(10_000);
        traffic.end();
        assert_eq!(running.redirect_counters("eth0").unwrap().passed_no_socket, 0);
        assert_settled(&running.stop().unwrap(), &hosts.near, &["eth0"]);
        assert_eq!(rss(&hosts.near), before);
    }
    // Longer than the card's: nothing is changed. Nor on a card that has no key to show.
    let long = port("eth0", Mode::ZeroCopy).settings(Settings::new().rss_key(&[1; 41]));
    let error = start(&hosts, long, 0).err().expect("its key has 40 bytes");
    assert!(format!("{error:?}").contains("a key of 41 bytes: the card's has 40"), "{error:?}");
    assert_eq!(rss(&hosts.near), before);
}

#[test]
fn a_card_without_a_key_says_so() {
    let hosts = Hosts::new("zset-no-key");
    hosts.join(Cable::First, "eth0");
    let one = port("eth0", Mode::Copy).settings(Settings::new().rss_key(&SYMMETRIC_KEY));
    let error = start(&hosts, one, 0).err().expect("with one queue there is nothing to hash for");
    assert!(format!("{error:?}").contains("no key of a hash to show"), "{error:?}");
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
    let mut key = None;
    for core in [1, 0] {
        let settings = Settings::new().spread(Want::Required).interrupts(Want::Required);
        let settings = settings.rss_key(&SYMMETRIC_KEY);
        let running = start(port(name, Mode::Copy).queues([1]).settings(settings), core);
        let changed = changes(&running);
        let find = |name: &str| changed.iter().find(|(setting, ..)| setting.starts_with(name));
        let (_, table, queue) = find("RSS table").unwrap();
        assert_eq!((table.as_str(), queue.as_str()), ("queues 0-1", "queue 1"));
        let (_, own, symmetric) = find("RSS key").unwrap();
        assert_eq!(symmetric, "6d5a repeated, the same both ways");
        assert_eq!(own, key.get_or_insert_with(|| own.clone()), "it was not put back");
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
    // igb's own table is not the kernel's usual one. It was put back as one set by hand, under which the kernel takes no
    // queue away.
    let one = port(name, Mode::Copy).settings(Settings::new().channels(1));
    let error =
        Runtime::builder().port(one).pipeline(|_| Mirror).start().err().expect("the table leads to both");
    assert!(format!("{error:?}").contains(&format!("ethtool -X {name} default")), "{error:?}");
    let reset = Command::new("ethtool").args(["-X", name, "default"]).status().unwrap();
    assert!(reset.success(), "{reset}");
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

/// In no namespace of its own: so are a card's files.
#[test]
fn interrupts_are_put_off_for_the_queues_taken_alone() {
    for (cable, mode) in [(Cable::TwoQueues, Mode::ZeroCopy), (Cable::Igb, Mode::Copy)] {
        let card = Card::new(cable);
        let name = card.ends[0].as_str();
        // The second time, everything is found as it was.
        for _ in 0..2 {
            let port = port(name, mode).queues([1]).settings(Settings::new().defer(Want::Required));
            let builder = Runtime::builder().port(port).workers(1).cores([0]).idle(Idle::ADAPTIVE);
            let running = builder.pipeline(|_| Mirror).start().unwrap();
            let wanted =
                ("interrupts put off, queue 1".into(), "0 times 0 ns".into(), "2 times 200000 ns".into());
            assert_eq!(changes(&running), [wanted], "{cable:?}");
            // Not for the interface, whose other queue has the kernel's own packets.
            for file in ["napi_defer_hard_irqs", "gro_flush_timeout"] {
                let value = fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap();
                assert_eq!(value.trim(), "0", "{cable:?}: {file}");
            }
            running.stop().unwrap();
        }
    }
}

#[test]
fn queues_that_a_driver_does_not_change_under_a_program_are_told_so() {
    let hosts = Hosts::new("zset-under");
    hosts.join(Cable::TwoQueues, "eth0");
    let index = hosts.near.interface_index("eth0").unwrap();
    let other = OtherProgram::load(false).unwrap();
    hosts.near.run(|| other.attach(index, Attached::Native)).unwrap().unwrap();
    let before = hosts.near.xdp_program("eth0").unwrap();
    let one = || port("eth0", Mode::Copy).settings(Settings::new().channels(1)).coexist(Coexist::Replace);
    let error = start(&hosts, one(), 0).err().expect("virtio-net changes no queues under a program");
    let text = format!("{error:?}");
    assert!(text.contains("the driver may change none while an XDP program is attached"), "{text}");
    assert_eq!(hosts.near.xdp_program("eth0").unwrap(), before);
    // What has as many already is not touched.
    let two = port("eth0", Mode::Copy).settings(Settings::new().channels(2)).coexist(Coexist::Replace);
    let running = start(&hosts, two, 0).unwrap();
    assert_eq!(changes(&running), []);
    running.stop().unwrap();
    assert_eq!(hosts.near.xdp_program("eth0").unwrap(), before);
    // It would stay on the card, which other tests have next.
    hosts.near.ip("link set dev eth0 xdpdrv off").unwrap();
}

/// Starts `afx-lb` with these lines in the section of the port, on the second core, and waits until it balances.
fn balance(folder: &Path, card: &str, mode: Mode, settings: &str) -> Child {
    let (file, log) = (folder.join("lb.toml"), folder.join("log"));
    let text = format!(
        "version = 1\n[[port]]\ninterface = \"{card}\"\nmode = \"{mode}\"\n{settings}\n[workers]\ncores = [1]\n\
         idle = \"adaptive\"\n[control]\nsocket = \"none\"\n[forwarding]\nmethod = \"ipip\"\n\
         [connections]\ncapacity = 4096\n[[vip]]\naddress = \"198.51.100.10\"\nport = 53\nprotocol = \"udp\"\n\
         [[vip.real]]\naddress = \"10.0.0.11\"\n"
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(program("afx-lb"));
    command.args(["run", "--config"]).arg(file).stderr(File::create(&log).unwrap());
    let balancer = command.spawn().unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    let balances = wait_for("it to balance", PATIENCE, || said().contains("balancing"));
    assert!(balances.is_ok(), "{}", said());
    balancer
}

fn end(mut balancer: Child, signal: &str) {
    let kill = ["-s", signal, &balancer.id().to_string()].map(str::to_owned);
    assert!(Command::new("kill").args(kill).status().unwrap().success());
    let status = balancer.wait().unwrap();
    assert_eq!(status.success(), signal == "TERM", "{status}");
}

/// The census does not see what is set for one queue.
fn assert_no_queue_is_put_off(name: &str) {
    let port = port(name, Mode::Copy).settings(Settings::new().defer(Want::Required));
    let builder = Runtime::builder().port(port).workers(1).cores([0]).idle(Idle::ADAPTIVE);
    let running = builder.pipeline(|_| Mirror).start().unwrap();
    let put_off = |queue: u32| {
        let name = format!("interrupts put off, queue {queue}");
        (name, "0 times 0 ns".into(), "2 times 200000 ns".into())
    };
    assert_eq!(changes(&running), [put_off(0), put_off(1)]);
    running.stop().unwrap();
}

/// What a balancer changes is seen, as the kernel says it; at its end all is as before. After a kill the next one, which
/// is to change nothing, puts it back.
fn changed_and_put_back(cable: Cable, mode: Mode, settings: &str, seen: &[&str]) {
    let card = Card::new(cable);
    let name = card.ends[0].as_str();
    let folder = tempfile::tempdir().unwrap();
    let start = |settings: &str| balance(folder.path(), name, mode, settings);
    // What is made once, and kept.
    end(start("defer = \"off\""), "TERM");
    // igb's goes down with a program, and its coming back would not be as before.
    card.wait_for_link();
    let take = || Census::take_of_machine(None, name);
    let before = take();
    let changed = || {
        let beyond = take().beyond(&before);
        for what in seen {
            assert!(
                beyond.iter().any(|line| line.starts_with("is: ") && line.contains(what)),
                "{what}: {beyond:#?}"
            );
        }
    };
    for _ in 0..3 {
        let balancer = start(settings);
        changed();
        end(balancer, "TERM");
        assert_nothing_left(&before, take);
        assert_no_queue_is_put_off(name);
        end(start(settings), "KILL");
        changed();
        end(start("defer = \"off\""), "TERM");
        assert_nothing_left(&before, take);
        assert_no_queue_is_put_off(name);
    }
    println!("{settings}: seen as {seen:?}, and {}", assert_nothing_left(&before, take));
}

#[test]
fn what_the_balancer_sets_of_a_card_is_put_back() {
    let settings = "queues = 1\nspread = \"required\"\ninterrupts = \"required\"\ndefer = \"required\"";
    // A line of the table of RSS, which has eight entries, and led to both queues.
    let table = ":      0     0     0     0     0     0     0     0";
    changed_and_put_back(Cable::Igb, Mode::Copy, settings, &[table, " on 1"]);
}

/// A driver makes its queues anew when a socket that does zero copy goes, just when their settings go back.
#[test]
fn what_is_set_of_queues_that_a_driver_makes_anew_is_put_back() {
    changed_and_put_back(Cable::TwoQueues, Mode::ZeroCopy, "defer = \"required\"", &[]);
}
