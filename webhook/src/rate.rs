//! How often something may be done.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A token bucket: `burst` at once, and one more each time `every` has passed.
#[derive(Debug)]
pub(crate) struct Rate {
    every: Duration,
    burst: u32,
    /// When the bucket is full again.
    full: Mutex<Instant>,
}

impl Rate {
    pub(crate) fn new(every: Duration, burst: u32) -> Self {
        Self {
            every,
            burst,
            full: Mutex::new(Instant::now()),
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self) -> bool {
        let now = Instant::now();
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*full).max(now) + self.every;
        let fits = next.duration_since(now) <= self.every * self.burst;
        if fits {
            *full = next;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_each_time() {
        let rate = Rate::new(Duration::from_millis(20), 5);
        let take = |times: u32| (0..times).filter(|_| rate.take()).count();
        assert_eq!(take(100), 5);
        tokio::time::advance(Duration::from_millis(60)).await;
        assert_eq!(take(100), 3);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(take(100), 5);
    }
}
