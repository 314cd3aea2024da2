//! A token bucket, for requests to the API server that any caller can cause.
//!
//! Imports nothing of this crate. Called by `cluster` and `admin`.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Allows `burst` calls at once, and one more each time `every` has passed.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    every: Duration,
    burst: u32,
    /// When the bucket is full again.
    full: Mutex<Instant>,
}

impl RateLimiter {
    pub(crate) fn new(every: Duration, burst: u32) -> Self {
        Self {
            every,
            burst,
            full: Mutex::new(Instant::now()),
        }
    }

    /// Takes a token; whether there was one.
    pub(crate) fn try_acquire(&self) -> bool {
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
        let limiter = RateLimiter::new(Duration::from_millis(20), 5);
        let take = |times: u32| (0..times).filter(|_| limiter.try_acquire()).count();
        assert_eq!(take(100), 5);
        tokio::time::advance(Duration::from_millis(60)).await;
        assert_eq!(take(100), 3);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(take(100), 5);
    }
}
