//! Delays between retries.
//!
//! Imports nothing. Called by `source` and `inject`, and by the caches of `taskgate-cache`.

use std::time::Duration;

/// Exponential backoff between a first and a longest delay. [`Backoff::reset`] after a success.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays that start at `first` and double until `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The next delay.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.longest);
        delay
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// From 250 ms to 10 s: little load for an API server that recovers, and quick enough after that.
impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(10))
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_longest_and_start_over_after_a_success() {
        let seconds = |backoff: &mut Backoff| backoff.take(5).map(|delay| delay.as_secs()).collect::<Vec<_>>();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        assert_eq!(seconds(&mut backoff), [1, 2, 4, 8, 10]);
        backoff.reset();
        assert_eq!(seconds(&mut backoff), [1, 2, 4, 8, 10]);
    }
}
