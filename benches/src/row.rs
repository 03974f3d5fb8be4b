//! What a measurement has found.

use serde::{Deserialize, Serialize};

use crate::paired::{Better, Paired, median};

/// One line of the summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: String,
    /// Whether a larger figure is a better one: a rate, and no cost.
    pub(crate) higher_is_better: bool,
    /// Median over the rounds, in `unit`.
    pub(crate) ours: f64,
    pub(crate) our_settings: String,
    /// As `ours`; null where there is no peer, or it is not installed.
    pub(crate) peer: Option<f64>,
    pub(crate) peer_name: Option<String>,
    pub(crate) peer_version: Option<String>,
    pub(crate) peer_settings: Option<String>,
    /// Median of the rounds' ratios; above 1 afx is better, whatever the unit.
    pub(crate) ratio: Option<f64>,
    /// The 95 % interval of the mean log ratio.
    pub(crate) ratio_low: Option<f64>,
    pub(crate) ratio_high: Option<f64>,
    /// The ratio that is aimed at, and the lower end of its interval.
    pub(crate) wanted: Option<f64>,
    pub(crate) wanted_low: Option<f64>,
    /// `ours` again, where there is no peer.
    pub(crate) value: Option<f64>,
    /// What `value` is to be at most, or at least if higher is better.
    pub(crate) limit: Option<f64>,
    pub(crate) rounds: usize,
    /// Random flows among the packets, where their number is what is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flows: Option<u64>,
    /// Processor seconds per million packets that arrived, medians.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) our_cpu: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer_cpu: Option<f64>,
    /// Sum of what one pass over all queries finds, which both sides agree on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<u64>,
}

/// Who is measured beside afx.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// None where it is not installed.
    pub(crate) version: Option<String>,
    pub(crate) settings: Option<String>,
}

/// What a measurement aims at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// None: the figure is for information.
    Open,
    /// A median ratio to the peer.
    Ratio(f64),
    /// A median ratio, and the lower end of its interval.
    RatioWithin { median: f64, low: f64 },
    /// A value to keep to.
    Limit(f64),
}

impl Row {
    /// A row without figures, of afx alone.
    pub(crate) fn new(name: &str, unit: &str, better: Better, our_settings: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            unit: unit.into(),
            higher_is_better: better == Better::More,
            ours: 0.0,
            our_settings: our_settings.into(),
            peer: None,
            peer_name: None,
            peer_version: None,
            peer_settings: None,
            ratio: None,
            ratio_low: None,
            ratio_high: None,
            wanted: None,
            wanted_low: None,
            value: None,
            limit: None,
            rounds: 0,
            flows: None,
            our_cpu: None,
            peer_cpu: None,
            checksum: None,
        }
    }

    /// The same beside a peer, whether it is installed or not.
    pub(crate) fn beside(mut self, peer: Peer) -> Self {
        self.peer_name = Some(peer.name.into());
        self.peer_version = peer.version;
        self.peer_settings = peer.settings;
        self
    }

    /// With what paired rounds have found.
    pub(crate) fn paired(mut self, result: &Paired) -> Self {
        self.ours = result.ours;
        self.peer = Some(result.peer);
        self.ratio = Some(result.ratio);
        self.ratio_low = Some(result.low);
        self.ratio_high = Some(result.high);
        self.rounds = result.rounds;
        self
    }

    /// With what was measured of afx alone: two figures a round.
    pub(crate) fn alone(mut self, figures: &[f64]) -> Self {
        self.ours = median(figures.iter().copied());
        self.value = Some(self.ours);
        self.rounds = figures.len() / 2;
        self
    }

    /// With what is aimed at.
    pub(crate) fn aimed(mut self, target: Target) -> Self {
        (self.wanted, self.wanted_low, self.limit) = match target {
            Target::Open => (None, None, None),
            Target::Ratio(ratio) => (Some(ratio), None, None),
            Target::RatioWithin { median, low } => (Some(median), Some(low), None),
            Target::Limit(limit) => (None, None, Some(limit)),
        };
        self
    }

    /// Whether what is aimed at is reached; None where nothing is aimed at, or there is no peer to compare with.
    pub(crate) fn reached(&self) -> Option<bool> {
        if let (Some(wanted), Some(ratio)) = (self.wanted, self.ratio) {
            let low = self.wanted_low.zip(self.ratio_low).is_none_or(|(wanted, low)| low >= wanted);
            return Some(ratio >= wanted && low);
        }
        let (value, limit) = self.value.zip(self.limit)?;
        Some(if self.higher_is_better { value >= limit } else { value <= limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(better: Better) -> Row {
        Row::new("some", "ns", better, "as built")
    }

    fn paired(ratio: f64, low: f64) -> Paired {
        Paired { ours: 2.0, peer: 4.0, ratio, low, high: ratio * 1.1, rounds: 3 }
    }

    #[test]
    fn a_ratio_is_reached_by_the_median_and_where_wanted_the_lower_end() {
        let of = |ratio, low, target| row(Better::Less).paired(&paired(ratio, low)).aimed(target).reached();
        assert_eq!(of(1.0, 0.5, Target::Ratio(1.0)), Some(true));
        assert_eq!(of(0.99, 0.98, Target::Ratio(1.0)), Some(false));
        let within = Target::RatioWithin { median: 1.0, low: 0.95 };
        assert_eq!(of(1.01, 0.95, within), Some(true));
        assert_eq!(of(1.5, 0.94, within), Some(false));
        assert_eq!(of(0.99, 0.98, within), Some(false));
        assert_eq!(of(1.0, 1.0, Target::Open), None);
    }

    #[test]
    fn a_limit_is_an_upper_one_for_costs_and_a_lower_one_for_the_rest() {
        let of =
            |better, value| row(better).alone(&[value, value]).aimed(Target::Limit(2.0)).reached().unwrap();
        assert!(of(Better::Less, 2.0) && !of(Better::Less, 2.1));
        assert!(of(Better::More, 2.0) && !of(Better::More, 1.9));
    }

    #[test]
    fn without_its_peer_a_ratio_is_neither_reached_nor_missed() {
        let peer = Peer { name: "other", version: None, settings: None };
        let row = row(Better::More).beside(peer).alone(&[1.0, 3.0]).aimed(Target::Ratio(1.0));
        assert_eq!((row.reached(), row.ours, row.value, row.rounds), (None, 2.0, Some(2.0), 1));
    }

    #[test]
    fn fields_have_their_names_and_empty_ones_are_null() {
        let json = serde_json::to_value(row(Better::Less).paired(&paired(1.5, 1.2))).unwrap();
        assert_eq!(json["ratio_low"], 1.2);
        assert_eq!(json["higher_is_better"], false);
        for field in ["value", "limit", "peer_name", "peer_version", "peer_settings", "wanted"] {
            assert!(json.get(field).is_some_and(serde_json::Value::is_null), "{field}: {json}");
        }
        let back: Row = serde_json::from_value(json).unwrap();
        assert_eq!(back, row(Better::Less).paired(&paired(1.5, 1.2)));
    }
}
