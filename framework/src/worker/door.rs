//! The door between two workers: whether the one may still hand packets over to the other. A worker that is stopped
//! shuts it, and ends once nobody stands in it: so no packet is left in a ring that nobody looks at any more.

use std::sync::Arc;

use crate::xsk::sync::{AtomicBool, Ordering, fence};

/// The two words that both sides look at. Each writes one of them and reads the other, with a fence between, so that at
/// least one of two that come at the same time sees the other (Dekker's algorithm).
#[derive(Debug)]
struct Door {
    shut: AtomicBool,
    inside: AtomicBool,
}

/// The side that hands over.
#[derive(Debug)]
pub(super) struct Entrance {
    door: Arc<Door>,
    inside: bool,
}

/// The side that takes over.
#[derive(Debug)]
pub(super) struct Exit(Arc<Door>);

/// An open door.
pub(super) fn door() -> (Entrance, Exit) {
    let door = Arc::new(Door { shut: AtomicBool::new(false), inside: AtomicBool::new(false) });
    (Entrance { door: door.clone(), inside: false }, Exit(door))
}

impl Entrance {
    /// False where the door is shut. Else it stays open until [`leave`](Self::leave).
    pub(super) fn enter(&mut self) -> bool {
        if !self.inside {
            self.door.inside.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            self.inside = !self.door.shut.load(Ordering::Relaxed);
            if !self.inside {
                self.door.inside.store(false, Ordering::Relaxed);
            }
        }
        self.inside
    }

    /// True where it was inside. What was done there is seen by whoever sees that nobody is.
    pub(super) fn leave(&mut self) -> bool {
        let was_inside = std::mem::take(&mut self.inside);
        if was_inside {
            self.door.inside.store(false, Ordering::Release);
        }
        was_inside
    }
}

/// Of a worker that panicked inside.
impl Drop for Entrance {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Exit {
    /// From now on nobody enters.
    pub(super) fn shut(&self) {
        self.0.shut.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether nobody is inside who came before the door was shut.
    pub(super) fn is_clear(&self) -> bool {
        !self.0.inside.load(Ordering::Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_door_that_is_shut_lets_out_and_not_in() {
        let (mut entrance, exit) = door();
        assert!(entrance.enter() && entrance.enter() && !exit.is_clear());
        exit.shut();
        assert!(entrance.enter(), "it is inside still");
        assert!(entrance.leave() && !entrance.leave());
        assert!(!entrance.enter() && exit.is_clear());
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use crate::xsk::sync::AtomicU32;

    #[test]
    fn every_interleaving_of_a_door_leaves_nothing_behind_it() {
        loom::model(|| {
            let (mut entrance, exit) = door();
            let ring = Arc::new(AtomicU32::new(0));
            let shared = ring.clone();
            let sender = loom::thread::spawn(move || {
                let may = entrance.enter();
                if may {
                    shared.store(1, Ordering::Relaxed);
                }
                entrance.leave();
                u32::from(may)
            });
            exit.shut();
            // Seen to be clear once, it stays so: what is there now is all that ever comes.
            let last_look = exit.is_clear().then(|| ring.load(Ordering::Relaxed));
            let sent = sender.join().unwrap();
            assert!(last_look.is_none_or(|taken| taken == sent));
            assert!(exit.is_clear());
        });
    }
}
