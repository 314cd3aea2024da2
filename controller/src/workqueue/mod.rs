//! The reconcile loop: a queue of keys, one reconcile of a key at a time, and the results of a reconcile and of its steps.
//!
//! - here: the loop, with a rate limit for each key and as many reconciles in parallel as the API server takes.
//! - `failures`: when a reconcile that failed or panicked is tried again.
//!
//! Imports `error` and `metrics`. Called by every loop: `controller`, `breaker`, `queueing`, `retry`, `status`.

mod failures;

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    future::pending,
    hash::Hash,
    pin::pin,
    time::Duration,
};

use futures::{StreamExt as _, channel::mpsc::unbounded, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::runtime::{scheduler, scheduler::ScheduleRequest};
use taskgate_cache::is_unanswered;
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, warn};

use self::failures::ExponentialWaits;
use crate::error::{Error, is_absent, is_conflict, is_overload};

pub(crate) use failures::{PanicGuard, PanicMetrics, restart_on_panic};

/// How many reconciles run in parallel at first, and at most.
const CONCURRENCY: usize = 16;
const MAX_CONCURRENCY: usize = 64;
/// Between two reconciles of one key, in the long run. A Workload that names no agent changes its phase some forty times a second
/// (foreman §2.2), and each reconcile reads it and its WorkItem.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many reconciles may follow one another before that: more than an ordinary retry needs.
const BURST: u32 = 20;
/// Until an object is reconciled again after another client wrote it first.
pub(crate) const AFTER_CONFLICT: Duration = Duration::from_millis(500);
/// Until an object is reconciled again while another one of its name is being deleted: finalizers may keep that one for long.
pub(crate) const WHILE_TERMINATING: Duration = Duration::from_secs(5);

/// What a step of a reconcile came to, and so what the loop does next. `T` is the object that is reconciled.
#[derive(Debug)]
pub(crate) enum StepResult<T> {
    /// The object was written, and is this now: the next step starts from it.
    Changed(Box<T>),
    /// The object is as it was: another object was written, or there was nothing to write. The next step follows.
    Unchanged,
    /// Another client wrote first: the object is read again.
    Conflict,
    /// Another object of its name is being deleted: requeue after [`WHILE_TERMINATING`].
    Terminating,
    /// The namespace is being deleted, and nothing can be created in it.
    NamespaceTerminating,
    /// There is nothing to do before this moment.
    RequeueAt(Timestamp),
    /// There is nothing to do until a watched object changes, or the object is gone.
    AwaitChange,
}

impl<T> StepResult<T> {
    /// The result of a write with preconditions. `AwaitChange`: the object is gone.
    pub(crate) fn of_write(written: kube::Result<T>) -> kube::Result<Self> {
        match written {
            Ok(object) => Ok(Self::Changed(Box::new(object))),
            Err(error) if is_conflict(&error) => Ok(Self::Conflict),
            Err(error) if is_absent(&error) => Ok(Self::AwaitChange),
            Err(error) => Err(error),
        }
    }

    /// The result for the reconcile of another object, which is as it was where this one was written.
    pub(crate) fn for_other<U>(self) -> StepResult<U> {
        match self {
            Self::Changed(_) | Self::Unchanged => StepResult::Unchanged,
            Self::Conflict => StepResult::Conflict,
            Self::Terminating => StepResult::Terminating,
            Self::NamespaceTerminating => StepResult::NamespaceTerminating,
            Self::RequeueAt(moment) => StepResult::RequeueAt(moment),
            Self::AwaitChange => StepResult::AwaitChange,
        }
    }
}

/// How long it is from `now` until `moment`; never less than a tenth of a second, so that a clock that stands still does not spin.
pub(crate) fn until(moment: Timestamp, now: Timestamp) -> Duration {
    let wait = moment.duration_since(now);
    Duration::try_from(wait)
        .unwrap_or_default()
        .max(Duration::from_millis(100))
}

/// The result of a reconcile: after how long to reconcile the same key again, unless it is enqueued before.
pub(crate) type Reconciled = Result<Option<Duration>, Error>;

/// Reconciles each key that `enqueued` yields, and again after the time that its reconcile returns or when it failed, until the
/// channel closes. `name` is the loop's in the log and in metrics.
pub(crate) async fn run<K, F>(
    name: &'static str,
    panics: &PanicMetrics,
    mut enqueued: mpsc::UnboundedReceiver<K>,
    reconcile: impl Fn(K) -> F,
) where
    K: Clone + Debug + Eq + Hash,
    F: Future<Output = Reconciled>,
{
    let (backoff, panics) = (ExponentialWaits::after_refusals(), PanicGuard::new(name, panics));
    let (schedule, requests) = unbounded();
    let schedule = |message, run_at| {
        // Both ends are in this function.
        let _ = schedule.unbounded_send(ScheduleRequest { message, run_at });
    };
    let mut scheduled = pin!(scheduler(requests));
    let mut busy = HashSet::new();
    let mut running = FuturesUnordered::new();
    let (mut limits, mut concurrency) = (RateLimits::default(), Concurrency::default());
    loop {
        let is_full = running.len() >= concurrency.limit;
        let next = async {
            if is_full {
                return pending().await;
            }
            scheduled.as_mut().hold_unless(|key| !busy.contains(key)).next().await
        };
        tokio::select! {
            key = enqueued.recv() => {
                let Some(key) = key else { return };
                let at = limits.next(&key, Instant::now());
                schedule(key, at);
            }
            Some(key) = next => {
                limits.count(&key, Instant::now());
                busy.insert(key.clone());
                let reconciled = panics.catch(key.clone(), Box::pin(reconcile(key.clone())));
                running.push(async move { (key, reconciled.await) });
            }
            Some((key, reconciled)) = running.next() => {
                busy.remove(&key);
                let now = Instant::now();
                let requeue = match reconciled {
                    Ok(Ok(requeue)) => {
                        concurrency.succeeded(is_full);
                        requeue
                    }
                    Ok(Err(error)) => {
                        log_failure(name, &key, &error);
                        if is_overload(&error.source) {
                            concurrency.overloaded(now);
                        }
                        Some(backoff.after(key.clone(), &error))
                    }
                    Err(after_panic) => Some(after_panic),
                };
                if let Some(wait) = requeue {
                    schedule(key, now + wait);
                }
            }
        }
    }
}

/// Logs a failed reconcile; at debug level where the API server did not answer, which the client logs once for all requests.
fn log_failure(reconcile: &str, key: &impl Debug, error: &Error) {
    if is_unanswered(&error.source) {
        debug!(%error, source = %error.source, reconcile, ?key, "tried again soon");
    } else {
        warn!(%error, source = %error.source, reconcile, ?key, "tried again soon");
    }
}

/// How many reconciles run in parallel: half as many when the API server is overloaded, and one more whenever as many succeeded as
/// run in parallel.
#[derive(Debug)]
struct Concurrency {
    limit: usize,
    succeeded: usize,
    reduced: Option<Instant>,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            limit: CONCURRENCY,
            succeeded: 0,
            reduced: None,
        }
    }
}

impl Concurrency {
    /// `was_full`: the limit was reached, so that a higher one is of use.
    fn succeeded(&mut self, was_full: bool) {
        self.succeeded += usize::from(was_full);
        if self.succeeded >= self.limit {
            self.succeeded = 0;
            self.limit = MAX_CONCURRENCY.min(self.limit + 1);
        }
    }

    /// One overload fails many requests: they count once.
    fn overloaded(&mut self, now: Instant) {
        if self
            .reduced
            .is_none_or(|reduced| now.duration_since(reduced) >= INTERVAL)
        {
            self.reduced = Some(now);
            self.succeeded = 0;
            self.limit = (self.limit / 2).max(1);
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

    use prometheus_client::registry::Registry;

    use super::*;

    type Key = (String, String);

    fn panics() -> PanicMetrics {
        PanicMetrics::register(&mut Registry::default())
    }

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
                Ok((all.fetch_add(1, Ordering::SeqCst) < 40).then_some(Duration::from_secs(5)))
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
        let panics = panics();
        tokio::join!(run("test", &panics, enqueued, reconcile), ending);
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
                Ok(None)
            }
        };
        let changing = async {
            for change in 0..440 * 6 {
                enqueue.send(item("flaps")).unwrap();
                tokio::time::sleep(Duration::from_micros(22_700)).await;
                if change % 44 == 0 {
                    let before = others.load(Ordering::SeqCst);
                    enqueue.send(item(&format!("other-{change}"))).unwrap();
                    tokio::time::sleep(Duration::from_millis(3)).await;
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
        let panics = panics();
        tokio::join!(run("test", &panics, enqueued, reconcile), changing);
        let reconciles = flaps.load(Ordering::SeqCst);
        assert!((60..=85).contains(&reconciles), "{reconciles} reconciles in a minute");
    }

    #[test]
    fn an_overload_halves_the_concurrency_once_and_successes_restore_it() {
        let (mut concurrency, start) = (Concurrency::default(), Instant::now());
        for _ in 0..10 {
            concurrency.overloaded(start);
        }
        assert_eq!(concurrency.limit, CONCURRENCY / 2);
        for seconds in 1..10 {
            concurrency.overloaded(start + INTERVAL * seconds);
        }
        assert_eq!(concurrency.limit, 1);
        for _ in 0..1000 {
            concurrency.succeeded(false);
        }
        assert_eq!(concurrency.limit, 1, "no more were waiting");
        for _ in 0..10_000 {
            concurrency.succeeded(true);
        }
        assert_eq!(concurrency.limit, MAX_CONCURRENCY);
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
