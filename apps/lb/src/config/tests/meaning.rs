//! What files mean.

use std::time::Duration;

use super::*;

#[test]
fn what_is_left_out_has_its_default() {
    let config = valid(RIGHT);
    assert_eq!(
        config.ports,
        [Port {
            interface: "eth1".to_owned(),
            queues: Queues::All,
            mode: Mode::Auto,
            attach: Attach::Auto,
            multi_buffer: MultiBuffer::Auto,
            coexist: Coexist::Refuse,
            settings: Settings::DEFAULT
        }]
    );
    assert_eq!((config.workers, config.idle), (Workers::Auto, Idle::Busy));
    assert_eq!(config.maglev, Maglev { table_size: TableSize::DEFAULT, seed: 0 });
    assert_eq!(config.connections, Connections { capacity: 1 << 20, timeouts: Timeouts::default() });
    assert_eq!(config.vips[0].reals[0].weight, 100);
}

#[test]
fn what_is_said_counts() {
    let text = RIGHT.replace("\"eth1\"", "\"eth1\"\nqueues = 4\nmode = \"zero-copy\"\nattach = \"native\"\nmulti_buffer = \"on\"\ncoexist = \"chain\"\n\
         channels = 4\nspread = \"required\"\nrss_key = \"a1:b2\"\ninterrupts = \"auto\"\ndefer = \"off\"").replace(
        "[forwarding]",
        "[workers]\ncount = 2\nidle = \"adaptive\"\n[maglev]\ntable_size = 655373\nseed = 7\n\
         [connections]\ncapacity = 2_000_000\nopening = \"5s\"\nestablished = \"2h\"\nclosing = \"1m\"\nudp = \"1d\"\n\
         [forwarding]",
    );
    let config = valid(&text);
    let count = NonZeroU16::new(4).unwrap();
    let four = Queues::First(count);
    let settings = Settings {
        channels: Some(count),
        spread: Want::Required,
        rss_key: "a1b2".parse().ok(),
        interrupts: Want::Auto,
        defer: Want::Off,
    };
    assert_eq!(
        config.ports,
        [Port {
            interface: "eth1".to_owned(),
            queues: four,
            mode: Mode::ZeroCopy,
            attach: Attach::Native,
            multi_buffer: MultiBuffer::On,
            coexist: Coexist::Chain,
            settings
        }]
    );
    assert_eq!((config.workers, config.idle), (Workers::Count(NonZeroU16::new(2).unwrap()), Idle::Adaptive));
    assert_eq!((config.maglev.table_size.slots(), config.maglev.seed), (655_373, 7));
    let seconds = Duration::from_secs;
    assert_eq!(
        config.connections,
        Connections {
            capacity: 2_000_000,
            timeouts: Timeouts {
                opening: seconds(5),
                established: seconds(7200),
                closing: seconds(60),
                datagram: seconds(86_400)
            }
        }
    );
}
