#[cfg(not(loom))]
use super::super::anonymous::shared;
use super::super::anonymous::{pair, starting_at};
#[cfg(not(loom))]
use super::*;

/// Everything that the consumer holds now.
#[cfg(not(loom))]
fn drain(consumer: &mut Consumer<u64>) -> Vec<u64> {
    let mut seen = Vec::new();
    consumer.consume(u32::MAX, |value| seen.push(value));
    seen
}

#[cfg(not(loom))]
mod single_thread {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn entries_arrive_in_order_and_only_after_submit() {
        let (mut producer, mut consumer) = pair::<u64>(8);
        assert_eq!(producer.extend([1, 2, 3]), 3);
        assert_eq!(drain(&mut consumer), Vec::<u64>::new());
        assert_eq!(producer.submit(), 3);
        assert_eq!(producer.submit(), 0);
        assert_eq!(drain(&mut consumer), [1, 2, 3]);
    }

    #[test]
    fn a_full_ring_takes_nothing_more_and_takes_no_value_from_the_iterator() {
        let (mut producer, mut consumer) = pair::<u64>(4);
        let mut values = 0..10;
        assert_eq!(producer.extend(&mut values), 4);
        assert_eq!(values, 4..10);
        assert!(!producer.push(99));
        producer.submit();
        assert_eq!(drain(&mut consumer), [0, 1, 2, 3]);
        assert!(producer.push(4));
    }

    #[test]
    fn peeked_entries_stay_until_released() {
        let (mut producer, mut consumer) = pair::<u64>(4);
        producer.extend([1, 2, 3]);
        producer.submit();
        assert_eq!(consumer.peek(2).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(consumer.peek(9).len(), 3);
        assert_eq!(producer.free(4), 1);
        assert_eq!(consumer.release(2), 2);
        assert_eq!(producer.free(4), 3);
        assert_eq!(drain(&mut consumer), [3]);
        assert_eq!(consumer.release(1), 0, "nothing is left to release");
    }

    #[test]
    fn pending_counts_down_as_the_other_side_takes() {
        let (mut producer, mut consumer) = pair::<u64>(4);
        producer.extend([1, 2]);
        producer.submit();
        assert_eq!(producer.pending(), 2);
        consumer.consume(1, drop);
        assert_eq!(producer.pending(), 1);
    }

    #[test]
    fn an_entry_is_never_seen_twice_when_the_reader_panics() {
        let (mut producer, mut consumer) = pair::<u64>(4);
        producer.extend([1, 2, 3]);
        producer.submit();
        let panicked = catch_unwind(AssertUnwindSafe(|| consumer.consume(2, |_| panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(drain(&mut consumer), [3]);
    }

    /// Sets an atomic as the other side would.
    fn meddle(atomic: NonNull<AtomicU32>, value: u32) {
        // SAFETY: callers hold the ring memory that the atomic lies in.
        unsafe { atomic.as_ref() }.store(value, Ordering::Release);
    }

    #[test]
    fn a_consumer_stays_within_the_ring_when_the_producer_s_cursor_goes_mad() {
        let (ours, theirs) = shared::<u64>(0, 8);
        // SAFETY: the memory is new, and the other side is this thread.
        let mut consumer = unsafe { Consumer::new(ours) };
        meddle(theirs.producer, 1 << 30);
        assert_eq!(consumer.available(u32::MAX), 8);
        assert_eq!(drain(&mut consumer).len(), 8);
    }

    #[test]
    fn a_consumer_ahead_of_its_producer_leaves_no_room() {
        let (ours, theirs) = shared::<u64>(0, 8);
        // SAFETY: as above.
        let mut producer = unsafe { Producer::new(ours) };
        meddle(theirs.consumer, 12345);
        assert_eq!(producer.free(9), 0);
        assert!(!producer.push(1));
    }

    #[test]
    fn the_kernel_asks_to_be_woken_through_the_flags() {
        let (ours, theirs) = shared::<u64>(0, 8);
        // SAFETY: as above.
        let producer = unsafe { Producer::new(ours) };
        assert!(!producer.needs_wakeup());
        meddle(theirs.flags, NEED_WAKEUP);
        assert!(producer.needs_wakeup());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Extend(usize),
        Push,
        Submit,
        Consume(u32),
        PeekThenRelease(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0usize..40).prop_map(Step::Extend),
            Just(Step::Push),
            Just(Step::Submit),
            (0u32..40).prop_map(Step::Consume),
            (0u32..40, 0u32..40).prop_map(|(peek, release)| Step::PeekThenRelease(peek, release)),
        ]
    }

    proptest! {
        /// The ring against two queues: written but not submitted, and submitted.
        #[test]
        fn behaves_as_a_bounded_queue(
            steps in prop::collection::vec(step(), 1..200),
            size_log2 in 0u32..6,
            before_the_wrap in 0u32..100,
        ) {
            let size = 1u32 << size_log2;
            let (mut producer, mut consumer) =
                starting_at::<u64>(0u32.wrapping_sub(before_the_wrap), size);
            let (mut written, mut submitted) = (VecDeque::new(), VecDeque::new());
            let mut fresh = 0u64;
            for step in steps {
                let room = size as usize - written.len() - submitted.len();
                match step {
                    Step::Extend(count) => {
                        let took = producer.extend(fresh..fresh + count as u64);
                        prop_assert_eq!(took as usize, count.min(room));
                        written.extend(fresh..fresh + u64::from(took));
                        fresh += u64::from(took);
                    }
                    Step::Push => {
                        prop_assert_eq!(producer.push(fresh), room > 0);
                        if room > 0 {
                            written.push_back(fresh);
                            fresh += 1;
                        }
                    }
                    Step::Submit => {
                        prop_assert_eq!(producer.submit() as usize, written.len());
                        submitted.append(&mut written);
                    }
                    Step::Consume(max) => {
                        let mut seen = Vec::new();
                        let count = consumer.consume(max, |value| seen.push(value));
                        let expected: Vec<_> =
                            submitted.drain(..submitted.len().min(max as usize)).collect();
                        prop_assert_eq!(count as usize, expected.len());
                        prop_assert_eq!(seen, expected);
                    }
                    Step::PeekThenRelease(peek, release) => {
                        let seen: Vec<_> = consumer.peek(peek).collect();
                        let expected: Vec<_> =
                            submitted.iter().copied().take(peek as usize).collect();
                        prop_assert_eq!(&seen, &expected);
                        let release = release.min(seen.len() as u32);
                        prop_assert_eq!(consumer.release(release), release);
                        submitted.drain(..release as usize);
                    }
                }
                prop_assert_eq!(producer.pending() as usize, written.len() + submitted.len());
            }
        }
    }

    #[test]
    fn two_threads_pass_a_million_entries_in_order_across_the_wrap() {
        const COUNT: u64 = 1_000_000;
        let (mut producer, mut consumer) = starting_at::<u64>(0u32.wrapping_sub(500_000), 64);
        let sender = std::thread::spawn(move || {
            let mut next = 0;
            while next < COUNT {
                let batch = (next % 37) + 1;
                let took = producer.extend(next..COUNT.min(next + batch));
                producer.submit();
                next += u64::from(took);
                if took == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < COUNT {
            let count = consumer.consume(29, |value| {
                assert_eq!(value, expected);
                expected += 1;
            });
            if count == 0 {
                std::thread::yield_now();
            }
        }
        sender.join().expect("the sender has not panicked");
        assert_eq!(consumer.available(1), 0);
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p afx --release xsk::ring`
#[cfg(loom)]
mod every_interleaving {
    use super::{pair, starting_at};
    use loom::thread;

    #[test]
    fn entries_cross_in_order_and_slots_are_reused_only_after_release() {
        loom::model(|| {
            // Two slots, three entries, and the wrap of the cursors between: one slot is used twice.
            let (mut producer, mut consumer) = starting_at::<u64>(u32::MAX, 2);
            let sender = thread::spawn(move || {
                let mut next = 0;
                while next < 3 {
                    let took = producer.extend(next..3);
                    producer.submit();
                    next += u64::from(took);
                    if took == 0 {
                        thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < 3 {
                let count = consumer.consume(2, |value| {
                    assert_eq!(value, expected);
                    expected += 1;
                });
                if count == 0 {
                    thread::yield_now();
                }
            }
            sender.join().expect("the sender has not panicked");
        });
    }

    #[test]
    fn nothing_is_seen_before_submit() {
        loom::model(|| {
            let (mut producer, mut consumer) = pair::<u64>(2);
            let sender = thread::spawn(move || {
                assert!(producer.push(7));
                assert!(producer.push(8));
                producer.submit();
            });
            let seen: Vec<_> = consumer.peek(2).collect();
            assert!(
                seen.is_empty() || seen == [7, 8],
                "one submission is seen whole or not at all: {seen:?}"
            );
            sender.join().expect("the sender has not panicked");
        });
    }

    #[test]
    fn released_slots_become_free_while_later_ones_are_still_read() {
        loom::model(|| {
            let (mut producer, mut consumer) = pair::<u64>(2);
            producer.extend([1, 2]);
            producer.submit();
            let reader = thread::spawn(move || {
                assert_eq!(consumer.peek(2).collect::<Vec<_>>(), [1, 2]);
                consumer.release(1);
                assert_eq!(consumer.peek(1).next(), Some(2));
            });
            if producer.push(3) {
                producer.submit();
            }
            reader.join().expect("the reader has not panicked");
        });
    }
}
