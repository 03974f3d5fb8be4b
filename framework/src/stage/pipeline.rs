//! Composition of stages: a tuple, statically, or a vector of boxes, from a configuration file.

use super::{Snapshot, Stage};
use crate::batch::Batch;
use crate::mem::cycles;

/// Stages in a row. Implemented for a single [`Stage`], for tuples of up to eight (composed
/// statically: the compiler sees one function), and for `Vec<Box<dyn Stage>>` (one indirect call per
/// stage and batch).
pub trait Pipeline {
    /// Runs a batch through all stages.
    #[doc(hidden)]
    fn run(&mut self, batch: &mut Batch, probe: &mut Probe<'_>);
    /// Gives all stages a new configuration.
    #[doc(hidden)]
    fn configure(&mut self, snapshot: &Snapshot);
    /// Asks all stages to release what they hold; true when nothing is left.
    #[doc(hidden)]
    fn drain(&mut self, batch: &mut Batch, probe: &mut Probe<'_>) -> bool;
    /// Shows all stages the batch with its verdicts.
    #[doc(hidden)]
    fn observe(&mut self, batch: &Batch);
    /// The stages' names, in order.
    #[doc(hidden)]
    fn names(&self) -> Vec<&'static str>;
    /// The slots that the stages together want kept free.
    #[doc(hidden)]
    fn creates(&self) -> usize;
    /// The packets that the stages together may hold.
    #[doc(hidden)]
    fn holds(&self) -> usize;
}

/// What a stage has seen and cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageCounters {
    /// Batches with at least one live packet.
    pub batches: u64,
    /// Packets that were live when they came to the stage.
    pub packets: u64,
    /// Time in `process`, in cycles of [`cycles`](crate::mem::cycles).
    pub cycles: u64,
}

/// What a run of the pipeline is measured by.
#[doc(hidden)]
pub struct Probe<'a> {
    pub(crate) counters: &'a mut [StageCounters],
    /// Whether the stages' timers are due.
    pub(crate) tick: bool,
    /// When the stage before ended: reading the counter costs as much as the work on two packets, so it is read once
    /// between stages.
    since: u64,
}

impl<'a> Probe<'a> {
    #[inline(always)]
    pub(crate) fn start(counters: &'a mut [StageCounters], tick: bool) -> Self {
        Self { counters, tick, since: cycles() }
    }
}

impl Probe<'_> {
    #[inline(always)]
    fn step(&mut self, index: usize, stage: &mut (impl Stage + ?Sized), batch: &mut Batch) {
        let live = batch.live_mask();
        if live != 0 {
            stage.process(batch);
            let now = cycles();
            let counters = &mut self.counters[index];
            counters.cycles += now.wrapping_sub(std::mem::replace(&mut self.since, now));
            counters.batches += 1;
            counters.packets += u64::from(live.count_ones());
        }
        if self.tick {
            stage.tick(batch);
            self.since = cycles();
        }
    }

    fn drain_step(&mut self, index: usize, stage: &mut (impl Stage + ?Sized), batch: &mut Batch) -> bool {
        self.step(index, stage, batch);
        stage.drain(batch)
    }
}

impl<S: Stage> Pipeline for S {
    #[inline(always)]
    fn run(&mut self, batch: &mut Batch, probe: &mut Probe<'_>) {
        probe.step(0, self, batch);
    }
    fn configure(&mut self, snapshot: &Snapshot) {
        Stage::configure(self, snapshot);
    }
    fn drain(&mut self, batch: &mut Batch, probe: &mut Probe<'_>) -> bool {
        probe.drain_step(0, self, batch)
    }
    #[inline(always)]
    fn observe(&mut self, batch: &Batch) {
        Stage::observe(self, batch);
    }
    fn names(&self) -> Vec<&'static str> {
        vec![self.name()]
    }
    fn creates(&self) -> usize {
        Stage::creates(self)
    }
    fn holds(&self) -> usize {
        Stage::holds(self)
    }
}

impl Pipeline for Vec<Box<dyn Stage>> {
    fn run(&mut self, batch: &mut Batch, probe: &mut Probe<'_>) {
        for (index, stage) in self.iter_mut().enumerate() {
            probe.step(index, stage.as_mut(), batch);
        }
    }
    fn configure(&mut self, snapshot: &Snapshot) {
        self.iter_mut().for_each(|stage| Stage::configure(stage, snapshot));
    }
    fn drain(&mut self, batch: &mut Batch, probe: &mut Probe<'_>) -> bool {
        // Every stage is asked, also after one that is not done.
        self.iter_mut()
            .enumerate()
            .fold(true, |done, (index, stage)| probe.drain_step(index, stage.as_mut(), batch) & done)
    }
    fn observe(&mut self, batch: &Batch) {
        self.iter_mut().for_each(|stage| Stage::observe(stage, batch));
    }
    fn names(&self) -> Vec<&'static str> {
        self.iter().map(|stage| stage.name()).collect()
    }
    fn creates(&self) -> usize {
        self.iter().map(Stage::creates).sum()
    }
    fn holds(&self) -> usize {
        self.iter().map(Stage::holds).sum()
    }
}

macro_rules! tuple {
    ($($stage:ident $index:tt),+) => {
        impl<$($stage: Stage),+> Pipeline for ($($stage,)+) {
            #[inline(always)]
            fn run(&mut self, batch: &mut Batch, probe: &mut Probe<'_>) {
                $(probe.step($index, &mut self.$index, batch);)+
            }
            fn configure(&mut self, snapshot: &Snapshot) {
                $(Stage::configure(&mut self.$index, snapshot);)+
            }
            fn drain(&mut self, batch: &mut Batch, probe: &mut Probe<'_>) -> bool {
                let mut done = true;
                $(done &= probe.drain_step($index, &mut self.$index, batch);)+
                done
            }
            #[inline(always)]
            fn observe(&mut self, batch: &Batch) {
                $(Stage::observe(&mut self.$index, batch);)+
            }
            fn names(&self) -> Vec<&'static str> {
                vec![$(self.$index.name()),+]
            }
            fn creates(&self) -> usize {
                0 $(+ Stage::creates(&self.$index))+
            }
            fn holds(&self) -> usize {
                0 $(+ Stage::holds(&self.$index))+
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
