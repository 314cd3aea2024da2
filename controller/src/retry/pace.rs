//! How often one item is looked at: what changes without end costs a look a second, and delays nobody else.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::tasks::ItemRef;

/// Between two looks at an item, in the long run. A Workload that names no agent changes its phase some forty times a second
/// (foreman §2.2), and each look reads it and its memory.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many looks may follow one another before that: more than an ordinary retry needs.
const BURST: u32 = 20;

/// The pace of each item that was looked at lately. A leaky bucket: it holds the moment at which it will be empty.
#[derive(Debug, Default)]
pub(super) struct Pace {
    empty: HashMap<ItemRef, Instant>,
    swept: Option<Instant>,
}

impl Pace {
    /// When `item` may be looked at, if that is asked for now.
    pub(super) fn next(&self, item: &ItemRef, now: Instant) -> Instant {
        let full = self
            .empty
            .get(item)
            .and_then(|empty| empty.checked_sub(INTERVAL * BURST));
        full.map_or(now, |full| full.max(now))
    }

    /// Takes note of a look.
    pub(super) fn note(&mut self, item: &ItemRef, now: Instant) {
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= INTERVAL) {
            self.empty.retain(|_, empty| *empty > now);
            self.swept = Some(now);
        }
        let empty = self.empty.entry(item.clone()).or_insert(now);
        *empty = now.max(*empty) + INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_then_there_is_a_look_a_second_and_a_rest_makes_up_for_it() {
        let item = |name: &str| ("ns".to_owned(), name.to_owned());
        let (flaps, other, start) = (item("flaps"), item("other"), Instant::now());
        let mut pace = Pace::default();
        for _ in 0..=BURST {
            assert_eq!(pace.next(&flaps, start), start);
            pace.note(&flaps, start);
        }
        assert_eq!(pace.next(&flaps, start), start + INTERVAL);
        assert_eq!(pace.next(&other, start), start);
        let later = start + INTERVAL;
        pace.note(&flaps, later);
        assert_eq!(pace.next(&flaps, later), later + INTERVAL);
        let rested = start + INTERVAL * (2 * BURST);
        assert_eq!(pace.next(&flaps, rested), rested);
        pace.note(&other, rested);
        assert_eq!(pace.empty.len(), 1, "what rested is forgotten");
    }
}
