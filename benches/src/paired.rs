//! Pairs of measurements, interleaved so that what the machine does meanwhile meets both sides alike.

use anyhow::{Result, ensure};

use crate::run::Run;

/// What a number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// A cost.
    Less,
    /// A rate.
    More,
}

/// The result of paired rounds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Paired {
    /// Medians.
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    /// Median of the rounds' ratios, and the 95 % interval of their geometric mean: above 1 we are better.
    pub(crate) ratio: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) rounds: usize,
}

/// Measures rounds of ours, peer, peer, ours. Every round counts.
pub(crate) fn rounds(
    run: &Run<'_>,
    better: Better,
    mut ours: impl FnMut() -> Result<f64>,
    mut peer: impl FnMut() -> Result<f64>,
) -> Result<Paired> {
    let mut samples = Vec::new();
    for round in 1..=run.rounds {
        let (a, b, c, d) = (ours()?, peer()?, peer()?, ours()?);
        run.progress.round(round, &format!("afx {a:.2} {d:.2}, peer {b:.2} {c:.2}"));
        // Their logarithm is taken.
        ensure!([a, b, c, d].iter().all(|figure| *figure > 0.0), "nothing came of round {round}");
        samples.push(((a * d).sqrt(), (b * c).sqrt()));
    }
    Ok(evaluate(&samples, better))
}

/// Measures afx alone, twice a round.
pub(crate) fn alone(run: &Run<'_>, mut ours: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    let mut figures = Vec::new();
    for round in 1..=run.rounds {
        let (a, b) = (ours()?, ours()?);
        run.progress.round(round, &format!("afx {a:.2} {b:.2}"));
        figures.extend([a, b]);
    }
    Ok(figures)
}

fn evaluate(samples: &[(f64, f64)], better: Better) -> Paired {
    let logs: Vec<f64> = samples
        .iter()
        .map(|(ours, peer)| match better {
            Better::Less => (peer / ours).ln(),
            Better::More => (ours / peer).ln(),
        })
        .collect();
    let count = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let half = student(logs.len() - 1) * (variance / count).sqrt();
    Paired {
        ours: median(samples.iter().map(|sample| sample.0)),
        peer: median(samples.iter().map(|sample| sample.1)),
        ratio: median(logs.iter().copied()).exp(),
        low: (mean - half).exp(),
        high: (mean + half).exp(),
        rounds: samples.len(),
    }
}

/// The median; of an even number the mean of the middle two.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// The 97.5 % quantile of Student's t distribution; from 20 degrees of freedom on that of 20, a little wide.
fn student(degrees: usize) -> f64 {
    const QUANTILES: [f64; 20] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    ];
    QUANTILES[degrees.clamp(1, QUANTILES.len()) - 1]
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::run::test_run;

    #[test]
    fn above_one_is_better_for_costs_and_for_rates() {
        let samples = [(2.0, 4.0), (2.0, 4.0), (2.0, 4.0)];
        let cost = evaluate(&samples, Better::Less);
        assert!((cost.ratio - 2.0).abs() < 1e-9 && (cost.low - 2.0).abs() < 1e-9, "{cost:?}");
        let rate = evaluate(&samples, Better::More);
        assert!((rate.ratio - 0.5).abs() < 1e-9 && (rate.high - 0.5).abs() < 1e-9, "{rate:?}");
    }

    #[test]
    fn the_interval_is_that_of_the_mean_log_ratio() {
        let e = std::f64::consts::E;
        // Log ratios 0, 1, 2: mean 1, standard deviation 1, so ± 4.303 / √3.
        let paired = evaluate(&[(1.0, 1.0), (e, 1.0), (e * e, 1.0)], Better::More);
        let half = 4.303 / 3f64.sqrt();
        assert!((paired.ratio.ln() - 1.0).abs() < 1e-9);
        assert!((paired.low.ln() - (1.0 - half)).abs() < 1e-9);
        assert!((paired.high.ln() - (1.0 + half)).abs() < 1e-9);
    }

    #[test]
    fn each_round_is_ours_peer_peer_ours_and_what_drifts_meets_both_alike() {
        // A machine that gets slower by one with each measurement: both sides cost the same.
        let order = RefCell::new(String::new());
        let measure = |side: char| {
            order.borrow_mut().push(side);
            Ok(100.0 + order.borrow().len() as f64)
        };
        let result = rounds(&test_run(3), Better::Less, || measure('o'), || measure('p')).unwrap();
        assert_eq!(*order.borrow(), "oppooppooppo");
        assert_eq!(result.rounds, 3);
        assert!((result.ratio - 1.0).abs() < 1e-3, "{result:?}");
        assert!(result.low <= result.high);
    }

    #[test]
    fn a_figure_of_nothing_is_an_error() {
        assert!(rounds(&test_run(2), Better::More, || Ok(1.0), || Ok(0.0)).is_err());
    }

    #[test]
    fn alone_there_are_two_figures_a_round() {
        let mut figure = 0.0;
        let figures = alone(&test_run(3), || {
            figure += 1.0;
            Ok(figure)
        });
        assert_eq!(figures.unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert!((median([4.0, 1.0, 3.0].into_iter()) - 3.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn few_rounds_have_wide_intervals() {
        assert!((student(1) - 12.706).abs() < 1e-9);
        assert!((2..30).all(|degrees| student(degrees) <= student(degrees - 1)));
    }
}
