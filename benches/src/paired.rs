//! Pairs of measurements, interleaved so that what the machine does meanwhile meets both sides alike.

use anyhow::Result;

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
}

/// Measures `rounds` rounds of ours, peer, peer, ours. Every round counts.
pub(crate) fn rounds(
    name: &str,
    rounds: usize,
    better: Better,
    mut ours: impl FnMut() -> Result<f64>,
    mut peer: impl FnMut() -> Result<f64>,
) -> Result<Paired> {
    let mut samples = Vec::new();
    for round in 1..=rounds {
        let (a, b, c, d) = (ours()?, peer()?, peer()?, ours()?);
        eprintln!("{name}: round {round} of {rounds}: afx {a:.3} {d:.3}, peer {b:.3} {c:.3}");
        samples.push(((a * d).sqrt(), (b * c).sqrt()));
    }
    Ok(evaluate(&samples, better))
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
    use super::*;

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
}
