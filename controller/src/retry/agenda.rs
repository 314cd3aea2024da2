//! When each item is looked at: soon after something changed, at the moment that the last look named, by one look at a time,
//! and at its own pace.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::pace::Pace;
use crate::tasks::ItemRef;

/// How many items are looked at at the same time.
const CONCURRENCY: usize = 16;

/// Calls `look` for each item that `woken` names, and again after the time that it gives, until the channel closes.
pub(super) async fn run<F>(mut woken: mpsc::UnboundedReceiver<ItemRef>, look: impl Fn(ItemRef) -> F)
where
    F: Future<Output = Option<Duration>>,
{
    let mut due: HashMap<ItemRef, Instant> = HashMap::new();
    let mut busy: HashSet<ItemRef> = HashSet::new();
    let mut pace = Pace::default();
    let mut looks = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        let ready = due.iter().filter(|(item, at)| **at <= now && !busy.contains(*item));
        let ready: Vec<_> = ready
            .map(|(item, _)| item.clone())
            .take(CONCURRENCY - looks.len())
            .collect();
        for item in ready {
            due.remove(&item);
            busy.insert(item.clone());
            pace.note(&item, now);
            let look = look(item.clone());
            looks.push(async move { (item, look.await) });
        }
        // What is busy, or finds no place, waits for a look to end.
        let next = due
            .iter()
            .filter(|(item, _)| !busy.contains(*item))
            .map(|(_, at)| *at)
            .min();
        let next = next.filter(|_| looks.len() < CONCURRENCY);
        let wait = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            item = woken.recv() => {
                let Some(item) = item else { return };
                let at = pace.next(&item, Instant::now());
                due.entry(item).and_modify(|known| *known = at.min(*known)).or_insert(at);
            }
            Some((item, again)) = looks.next() => {
                busy.remove(&item);
                if let Some(again) = again {
                    let at = Instant::now() + again;
                    due.entry(item).and_modify(|known| *known = at.min(*known)).or_insert(at);
                }
            }
            () = wait => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_item_is_looked_at_by_one_look_at_a_time_and_again_when_it_says() {
        let (wake, woken) = mpsc::unbounded_channel();
        let item = |n: usize| ("ns".to_owned(), format!("item-{n}"));
        let (at_once, most, all) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        let one_at_a_time = Arc::new(std::sync::Mutex::new(HashSet::new()));
        let look = |item: ItemRef| {
            let (at_once, most, all) = (Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&all));
            let busy = Arc::clone(&one_at_a_time);
            async move {
                assert!(busy.lock().unwrap().insert(item.clone()), "two looks at {item:?}");
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                busy.lock().unwrap().remove(&item);
                // The first look of each asks for a second one.
                (all.fetch_add(1, Ordering::SeqCst) < 40).then_some(Duration::from_secs(5))
            }
        };
        for n in 0..40 {
            wake.send(item(n)).unwrap();
            wake.send(item(n)).unwrap();
        }
        let ending = async {
            tokio::time::sleep(Duration::from_mins(1)).await;
            drop(wake);
        };
        tokio::join!(run(woken, look), ending);
        assert_eq!(all.load(Ordering::SeqCst), 80);
        assert_eq!(most.load(Ordering::SeqCst), CONCURRENCY);
    }

    /// A Workload whose phase flaps, as F5 does it: 440 changes in ten seconds.
    #[tokio::test(start_paused = true)]
    async fn what_flaps_costs_a_look_a_second_and_delays_nobody() {
        let (wake, woken) = mpsc::unbounded_channel();
        let item = |name: &str| ("ns".to_owned(), name.to_owned());
        let (flaps, others) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let look = |item: ItemRef| {
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
                wake.send(item("flaps")).unwrap();
                tokio::time::sleep(Duration::from_micros(22_700)).await;
                if change % 44 == 0 {
                    let before = others.load(Ordering::SeqCst);
                    wake.send(item(&format!("other-{change}"))).unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    assert_eq!(others.load(Ordering::SeqCst), before + 1, "it waits");
                }
            }
            // The last change is seen as well.
            let before = flaps.load(Ordering::SeqCst);
            wake.send(item("flaps")).unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(flaps.load(Ordering::SeqCst) > before);
            drop(wake);
        };
        tokio::join!(run(woken, look), changing);
        let looks = flaps.load(Ordering::SeqCst);
        assert!((60..=85).contains(&looks), "{looks} looks in a minute");
    }
}
