//! A work queue with controller-runtime's rules: one key is worked on once at a time, a wake-up never
//! waits behind a backoff, each failure doubles the key's delay, one success resets it (kelos S8).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// First delay after a failure.
const BASE: Duration = Duration::from_millis(5);
/// Longest delay.
const MAX: Duration = Duration::from_secs(1000);

/// What a reconciler wants to happen next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// Nothing until an event.
    #[default]
    Wait,
    /// Again soon; counts like a failure for the delay, as controller-runtime's `Requeue: true`.
    Again,
    /// Again after this time.
    After(Duration),
}

impl Next {
    /// The earlier of two times.
    #[must_use]
    pub fn sooner(self, other: Duration) -> Self {
        match self {
            Self::After(own) => Self::After(own.min(other)),
            Self::Again => Self::Again,
            Self::Wait => Self::After(other),
        }
    }
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    dirty: BTreeSet<K>,
    running: BTreeSet<K>,
    delayed: BTreeMap<K, Instant>,
    failures: BTreeMap<K, u32>,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: BTreeSet::new(),
                running: BTreeSet::new(),
                delayed: BTreeMap::new(),
                failures: BTreeMap::new(),
            }),
            changed: Notify::new(),
        }
    }
}

impl<K: Ord + Clone> Queue<K> {
    /// Adds a key now; twice is once.
    pub fn add(&self, key: K) {
        self.lock().add(key);
        self.changed.notify_one();
    }

    /// Adds a key later; the earliest of several times counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        let at = Instant::now() + delay;
        let mut state = self.lock();
        let due = state.delayed.entry(key).or_insert(at);
        *due = at.min(*due);
        drop(state);
        self.changed.notify_one();
    }

    /// Adds a key after its backoff, and doubles that.
    pub fn add_rate_limited(&self, key: K) {
        let mut state = self.lock();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = delay(*failures);
        *failures = failures.saturating_add(1);
        drop(state);
        self.add_after(key, delay);
    }

    /// Resets a key's backoff.
    pub fn reset_backoff(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// Waits for the next key. It must be given back with [`Self::done`] or [`Self::finish`].
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let wake = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.running.insert(key.clone());
                    return key;
                }
                state.delayed.values().min().copied()
            };
            match wake {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Gives a key back; if it was added meanwhile it is ready again.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        state.running.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Gives a key back and schedules it by the outcome of its run.
    pub fn finish<E>(&self, key: &K, outcome: &Result<Next, E>) {
        match outcome {
            Ok(Next::Wait) => self.reset_backoff(key),
            Ok(Next::After(delay)) => {
                self.reset_backoff(key);
                self.add_after(key.clone(), *delay);
            }
            Ok(Next::Again) | Err(_) => self.add_rate_limited(key.clone()),
        }
        self.done(key);
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone> State<K> {
    fn add(&mut self, key: K) {
        if self.dirty.insert(key.clone()) && !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Instant) {
        let due: Vec<K> = self
            .delayed
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.delayed.remove(&key);
            self.add(key);
        }
    }
}

/// The delay after so many earlier failures.
fn delay(failures: u32) -> Duration {
    BASE.saturating_mul(2_u32.saturating_pow(failures)).min(MAX)
}

#[cfg(test)]
mod tests {
    use super::{Next, Queue, delay};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn delays_double_up_to_a_thousand_seconds() {
        let seconds = |failures| delay(failures).as_secs_f64();
        assert!((seconds(0) - 0.005).abs() < 1e-9);
        assert!((seconds(10) - 5.12).abs() < 1e-9);
        assert_eq!(delay(17), Duration::from_millis(655_360));
        assert_eq!(delay(18), Duration::from_secs(1000));
        assert_eq!(delay(u32::MAX), Duration::from_secs(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_key_backs_off_and_one_success_resets_it() {
        let queue = Queue::default();
        queue.add("a");
        let mut gaps = Vec::new();
        for _ in 0..4 {
            let before = Instant::now();
            let key = queue.next().await;
            gaps.push(before.elapsed().as_millis());
            queue.finish(&key, &Err::<Next, ()>(()));
        }
        assert_eq!(gaps, [0, 5, 10, 20]);
        let key = queue.next().await;
        queue.finish(&key, &Ok::<_, ()>(Next::Wait));
        queue.add("a");
        let key = queue.next().await;
        queue.finish(&key, &Err::<Next, ()>(()));
        let before = Instant::now();
        queue.next().await;
        assert_eq!(before.elapsed().as_millis(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_does_not_wait_behind_the_backoff() {
        let queue = Queue::default();
        queue.add_after("a", Duration::from_mins(15));
        queue.add("a");
        let before = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_runs_runs_once_more() {
        let queue = Queue::default();
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        queue.add("a");
        let early = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(early.is_err(), "a key ran twice at a time");
        queue.finish(&key, &Ok::<_, ()>(Next::Wait));
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        let again = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(again.is_err(), "two adds while running are one");
    }
}
