//! Order statistics of measured times.

use std::time::Duration;

/// Measured values, in ascending order.
#[derive(Debug)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    /// Of any values.
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }

    /// Of times, in milliseconds.
    pub(crate) fn of_times(times: impl IntoIterator<Item = Duration>) -> Self {
        Self::new(times.into_iter().map(|time| time.as_secs_f64() * 1000.0).collect())
    }

    /// The value that `percent` percent are not above. 0 without values.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        self.at(self.0.len().saturating_sub(1) * percent / 100)
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The 95 % confidence interval of the median: the values whose ranks a median has in that part of all samples, by the
    /// binomial distribution. It assumes nothing about how the values are distributed.
    pub(crate) fn interval(&self) -> (f64, f64) {
        let count = self.0.len();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss
        )]
        let half = (0.98 * (count as f64).sqrt()).ceil() as usize;
        let middle = count / 2;
        (
            self.at(middle.saturating_sub(half)),
            self.at((middle + half).min(count.saturating_sub(1))),
        )
    }

    fn at(&self, rank: usize) -> f64 {
        self.0.get(rank).copied().unwrap_or_default()
    }
}
