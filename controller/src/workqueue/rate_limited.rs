//! A work queue of keys: one reconcile of a key at a time, a bounded number of them in parallel, and a rate limit for each key, so
//! that an object that changes without end costs one reconcile a second and delays no other.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    hash::Hash,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// How many keys are reconciled in parallel.
const CONCURRENCY: usize = 16;
/// Between two reconciles of one key, in the long run. A Workload that names no agent changes its phase some forty times a second
/// (foreman §2.2), and each reconcile reads it and its WorkItem.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many reconciles may follow one another before that: more than an ordinary retry needs.
const BURST: u32 = 20;

/// Calls `reconcile` for each key that `enqueued` yields, and again after the time that it returns, until the channel closes.
pub(crate) async fn run<K, F>(mut enqueued: mpsc::UnboundedReceiver<K>, reconcile: impl Fn(K) -> F)
where
    K: Clone + Eq + Hash,
    F: Future<Output = Option<Duration>>,
{
    let mut due: HashMap<K, Instant> = HashMap::new();
    let mut busy: HashSet<K> = HashSet::new();
    let mut limits = RateLimits::default();
    let mut running = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        let ready = due.iter().filter(|(key, at)| **at <= now && !busy.contains(*key));
        let ready: Vec<_> = ready
            .map(|(key, _)| key.clone())
            .take(CONCURRENCY - running.len())
            .collect();
        for key in ready {
            due.remove(&key);
            busy.insert(key.clone());
            limits.count(&key, now);
            let reconciled = reconcile(key.clone());
            running.push(async move { (key, reconciled.await) });
        }
        // A key that is busy, or above the concurrency, waits for a reconcile to end.
        let next = due
            .iter()
            .filter(|(key, _)| !busy.contains(*key))
            .map(|(_, at)| *at)
            .min();
        let next = next.filter(|_| running.len() < CONCURRENCY);
        let wait = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            key = enqueued.recv() => {
                let Some(key) = key else { return };
                let at = limits.next(&key, Instant::now());
                due.entry(key).and_modify(|known| *known = at.min(*known)).or_insert(at);
            }
            Some((key, requeue)) = running.next() => {
                busy.remove(&key);
                if let Some(requeue) = requeue {
                    let at = Instant::now() + requeue;
                    due.entry(key).and_modify(|known| *known = at.min(*known)).or_insert(at);
                }
            }
            () = wait => {}
        }
    }
}

/// A leaky bucket for each key that was reconciled recently: the moment at which it will be empty.
#[derive(Debug)]
struct RateLimits<K> {
    empty: HashMap<K, Instant>,
    swept: Option<Instant>,
}

impl<K> Default for RateLimits<K> {
    fn default() -> Self {
        Self {
            empty: HashMap::new(),
            swept: None,
        }
    }
}

impl<K: Clone + Eq + Hash> RateLimits<K> {
    /// When `key` may be reconciled, if it is enqueued now.
    fn next(&self, key: &K, now: Instant) -> Instant {
        let full = self
            .empty
            .get(key)
            .and_then(|empty| empty.checked_sub(INTERVAL * BURST));
        full.map_or(now, |full| full.max(now))
    }

    /// Counts a reconcile of `key`.
    fn count(&mut self, key: &K, now: Instant) {
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= INTERVAL) {
            self.empty.retain(|_, empty| *empty > now);
            self.swept = Some(now);
        }
        let empty = self.empty.entry(key.clone()).or_insert(now);
        *empty = now.max(*empty) + INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    type Key = (String, String);

    #[tokio::test(start_paused = true)]
    async fn one_reconcile_of_a_key_runs_at_a_time_and_is_requeued_when_it_asks() {
        let (enqueue, enqueued) = mpsc::unbounded_channel();
        let item = |n: usize| ("ns".to_owned(), format!("item-{n}"));
        let (at_once, most, all) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        let one_at_a_time = Arc::new(std::sync::Mutex::new(HashSet::new()));
        let reconcile = |item: Key| {
            let (at_once, most, all) = (Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&all));
            let busy = Arc::clone(&one_at_a_time);
            async move {
                assert!(busy.lock().unwrap().insert(item.clone()), "two reconciles of {item:?}");
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                busy.lock().unwrap().remove(&item);
                // The first reconcile of each asks for a second one.
                (all.fetch_add(1, Ordering::SeqCst) < 40).then_some(Duration::from_secs(5))
            }
        };
        for n in 0..40 {
            enqueue.send(item(n)).unwrap();
            enqueue.send(item(n)).unwrap();
        }
        let ending = async {
            tokio::time::sleep(Duration::from_mins(1)).await;
            drop(enqueue);
        };
        tokio::join!(run(enqueued, reconcile), ending);
        assert_eq!(all.load(Ordering::SeqCst), 80);
        assert_eq!(most.load(Ordering::SeqCst), CONCURRENCY);
    }

    /// A Workload whose phase flaps: 440 changes in ten seconds.
    #[tokio::test(start_paused = true)]
    async fn an_object_that_flaps_costs_one_reconcile_a_second_and_delays_no_other() {
        let (enqueue, enqueued) = mpsc::unbounded_channel();
        let item = |name: &str| ("ns".to_owned(), name.to_owned());
        let (flaps, others) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let reconcile = |item: Key| {
            let count = if item.1 == "flaps" { &flaps } else { &others };
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                // As long as its reads take.
                tokio::time::sleep(Duration::from_millis(20)).await;
                None
            }
        };
        let changing = async {
            for change in 0..440 * 6 {
                enqueue.send(item("flaps")).unwrap();
                tokio::time::sleep(Duration::from_micros(22_700)).await;
                if change % 44 == 0 {
                    let before = others.load(Ordering::SeqCst);
                    enqueue.send(item(&format!("other-{change}"))).unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    assert_eq!(others.load(Ordering::SeqCst), before + 1, "it waits");
                }
            }
            // The last change is seen as well.
            let before = flaps.load(Ordering::SeqCst);
            enqueue.send(item("flaps")).unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(flaps.load(Ordering::SeqCst) > before);
            drop(enqueue);
        };
        tokio::join!(run(enqueued, reconcile), changing);
        let reconciles = flaps.load(Ordering::SeqCst);
        assert!((60..=85).contains(&reconciles), "{reconciles} reconciles in a minute");
    }

    #[test]
    fn after_a_burst_there_is_one_reconcile_a_second_until_the_key_was_idle() {
        let item = |name: &str| ("ns".to_owned(), name.to_owned());
        let (flaps, other, start) = (item("flaps"), item("other"), Instant::now());
        let mut limits = RateLimits::default();
        for _ in 0..=BURST {
            assert_eq!(limits.next(&flaps, start), start);
            limits.count(&flaps, start);
        }
        assert_eq!(limits.next(&flaps, start), start + INTERVAL);
        assert_eq!(limits.next(&other, start), start);
        let later = start + INTERVAL;
        limits.count(&flaps, later);
        assert_eq!(limits.next(&flaps, later), later + INTERVAL);
        let idle = start + INTERVAL * (2 * BURST);
        assert_eq!(limits.next(&flaps, idle), idle);
        limits.count(&other, idle);
        assert_eq!(limits.empty.len(), 1, "idle keys are removed");
    }
}
