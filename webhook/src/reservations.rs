//! Tasks that were let through a moment ago and that no list may show yet: two creates that race at the limit, in one
//! replica, must not both count on the same free place. Across replicas the Job's admission is the second gate.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a Task that was let through may take to be stored.
const LIFE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Place {
    task: String,
    taken: Instant,
}

/// The places that are taken, per namespace and work item, in order.
#[derive(Debug, Default)]
pub(crate) struct Reservations(Mutex<HashMap<(String, String), Vec<Place>>>);

impl Reservations {
    /// Takes a place for `task`, unless it is only a dry run, and returns the names of the Tasks that came before.
    pub(crate) fn take(
        &self,
        namespace: &str,
        work_item: &str,
        task: &str,
        dry_run: bool,
        now: Instant,
    ) -> Vec<String> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, places| {
            places.retain(|place| now.duration_since(place.taken) < LIFE);
            !places.is_empty()
        });
        let key = (namespace.to_owned(), work_item.to_owned());
        let before: Vec<String> = places
            .get(&key)
            .into_iter()
            .flatten()
            .map(|place| place.task.clone())
            .take_while(|name| name != task)
            .collect();
        if !dry_run {
            let places = places.entry(key).or_default();
            if !places.iter().any(|place| place.task == task) {
                places.push(Place {
                    task: task.to_owned(),
                    taken: now,
                });
            }
        }
        before
    }

    /// Gives the place of `task` back: it was denied.
    pub(crate) fn give_back(&self, namespace: &str, work_item: &str, task: &str) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = places.get_mut(&(namespace.to_owned(), work_item.to_owned())) {
            places.retain(|place| place.task != task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_later_sees_who_came_before() {
        let reservations = Reservations::default();
        let now = Instant::now();
        assert!(reservations.take("a", "w", "one", false, now).is_empty());
        assert_eq!(reservations.take("a", "w", "two", false, now), ["one"]);
        assert_eq!(reservations.take("a", "w", "dry", true, now), ["one", "two"]);
        assert!(reservations.take("a", "w", "one", false, now).is_empty());
        assert!(reservations.take("b", "w", "two", false, now).is_empty());
        reservations.give_back("a", "w", "one");
        assert!(reservations.take("a", "w", "two", false, now).is_empty());
        assert!(reservations.take("a", "w", "late", false, now + LIFE).is_empty());
    }
}
