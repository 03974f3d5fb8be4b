//! The balancer against a slow second one, on random configurations, reloads and packets.

mod check;
mod rules;
mod strategies;
mod view;

use std::collections::BTreeMap;

use afx::stage::balancer::Decision;
use proptest::prelude::*;

use self::check::Checker;
use self::rules::{Fate, Model, Outcome};
use self::strategies::{Fortune, Sample, any_fortune, any_packet, any_setup, changed};
use crate::lab::{Lab, Setup};

#[derive(Debug, Clone)]
enum Step {
    Packets(Vec<Sample>),
    /// Everything is another.
    Reload(Setup),
    /// The same VIPs, whose reals fare otherwise: in turn the first, the second and so on.
    Change(Vec<Fortune>),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(any_packet(), 1..150).prop_map(Step::Packets),
        1 => any_setup().prop_map(Step::Reload),
        2 => prop::collection::vec(any_fortune(), 1..7).prop_map(Step::Change),
    ]
}

/// Packets at a time: few enough for the batch to have room for an answer to each.
const AT_A_TIME: usize = 30;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_as_in_the_model(
        first in any_setup(),
        steps in prop::collection::vec(any_step(), 1..12),
    ) {
        let mut lab = Lab::new(&first);
        let (mut model, mut checker) = (Model::new(&first), Checker::default());
        let mut drops: BTreeMap<&str, u64> = BTreeMap::new();
        let mut setup = first;
        for step in steps {
            match step {
                Step::Reload(_) | Step::Change(_) => {
                    setup = match step {
                        Step::Reload(setup) => setup,
                        Step::Change(fortunes) => changed(setup, &fortunes),
                        Step::Packets(_) => setup,
                    };
                    lab.reload(&setup);
                    model.reload(&setup);
                    checker.reload();
                }
                Step::Packets(packets) => {
                    for packets in packets.chunks(AT_A_TIME) {
                        let out = lab.exchange(packets);
                        let outcomes: Vec<_> = packets.iter().map(|packet| model.judge(&packet.0)).collect();
                        let decisions: Vec<_> = outcomes.iter().map(|outcome| decision(&lab, outcome)).collect();
                        prop_assert_eq!(lab.decisions(), decisions);
                        let fates: Vec<_> = outcomes.into_iter().map(|outcome| outcome.fate).collect();
                        checker.check(model.setup.forwarding, &fates, &out);
                        for fate in &fates {
                            if let Fate::Dropped { reason, .. } = fate {
                                *drops.entry(reason).or_default() += 1;
                            }
                        }
                    }
                }
            }
        }
        let stats = lab.finish();
        let counted: BTreeMap<&str, u64> = stats.drops().into_iter().collect();
        prop_assert_eq!(counted, drops);
    }
}

/// What the balancer is to say of it.
fn decision(lab: &Lab, outcome: &Outcome) -> Option<Decision> {
    let (vip, chosen) = outcome.decision?;
    let real = chosen.map(|(of, real, _)| lab.directory.id(&of, &real).unwrap());
    Some(Decision { vip, real, how: chosen.map(|(.., how)| how) })
}
