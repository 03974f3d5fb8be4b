//! Settings that a port changes are put back whatever way the runtime ends, on whichever thread that is.

use afx::port::{Steering, XdpPort};
use afx::settings::Settings;
use afx::{Runtime, RuntimeBuilder};
use afx_testbed::{Host, wait_for};

use crate::support::*;

/// How many queues of `eth0` receive.
fn queues(host: &Host) -> u32 {
    let channels = host.command("ethtool").args(["-l", "eth0"]).check().unwrap();
    let now = channels.split_once("Current hardware settings:").expect("two lists").1;
    now.lines().find_map(|line| line.strip_prefix("RX:")).expect("a line").trim().parse().unwrap()
}

/// Two hosts; the one that afx runs on has one queue of the two that it can have.
fn one_of_two(name: &str) -> (afx_testbed::Testbed, Host, Host) {
    let (net, a, b) = pair(name, 2);
    a.command("ethtool").args(["-L", "eth0", "tx", "1"]).check().unwrap();
    b.command("ethtool").args(["-L", "eth0", "rx", "1"]).check().unwrap();
    (net, a, b)
}

fn with_two() -> RuntimeBuilder {
    let port = XdpPort::new("eth0", Steering::All).settings(Settings::new().channels(2));
    Runtime::builder().port(port).workers(1)
}

#[test]
fn queues_come_and_go_with_the_runtime() {
    let (_net, _a, b) = one_of_two("afxsetstop");
    for _ in 0..3 {
        let running = start_on(&b, with_two, |_| Mirror).unwrap();
        assert_eq!((queues(&b), running.stats().queues().count()), (2, 2));
        let status = running.status();
        let [change] = &status[0].changes[..] else { panic!("{status:?}") };
        assert_eq!(
            (change.setting.as_str(), change.before.as_str(), change.value.as_str()),
            ("channels", "1", "2")
        );
        // Not by a second runtime, which does not get the interface.
        assert!(start_on(&b, with_two, |_| Mirror).is_err());
        assert_eq!(queues(&b), 2);
        // This thread is in another network namespace.
        assert_settled(&running.stop().unwrap());
        assert_eq!(queues(&b), 1);
        assert_untouched(&b, "eth0");
    }
}

#[test]
fn a_start_that_fails_later_puts_them_back() {
    let (_net, _a, b) = one_of_two("afxsetfail");
    let refused = || with_two().cores([100_000]);
    let error = start_on(&b, refused, |_| Mirror).err().expect("there is no such core").to_string();
    assert!(error.contains("core 100000"), "{error}");
    assert_eq!(queues(&b), 1);
    let refused = || with_two().frames_per_queue(16);
    assert!(start_on(&b, refused, |_| -> Mirror { panic!("no pipeline") }).is_err());
    assert_eq!(queues(&b), 1);
    assert_untouched(&b, "eth0");
}

#[test]
fn a_panic_puts_them_back_too() {
    let (_net, a, b) = one_of_two("afxsetpanic");
    struct Fuse;
    impl afx::Stage for Fuse {
        fn process(&mut self, _: &mut afx::Batch) {
            panic!("blown");
        }
    }
    let running = start_on(&b, with_two, |_| Fuse).unwrap();
    wait_for("the panic", PATIENCE, || {
        let _ = a.command("ping").args(["-c", "1", "-W", "1", "10.0.0.2"]).output().unwrap();
        running.ended()
    })
    .unwrap();
    assert!(running.stop().is_err());
    assert_eq!(queues(&b), 1);
    assert_untouched(&b, "eth0");
}
