//! How many retries are in flight: counted where they begin, so that two that begin at once do not both take the last slot.

use std::collections::HashMap;

use parking_lot::Mutex;
use taskgate_api::{WorkItem, task_policy::RetryPolicy};

use crate::{context::ItemRef, work_items::transition_of};

/// The retries in flight, and the policy of each. A blocked retry is not in flight.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<ItemRef, String>>);

impl Slots {
    /// Takes a slot for `item`, if `policy` has one left in all and in the item's namespace.
    pub(super) fn take(&self, item: &ItemRef, policy: &str, rule: &RetryPolicy) -> bool {
        let mut taken = self.0.lock();
        if taken.contains_key(item) {
            return true;
        }
        let is_below = |count: usize, limit: u32| u32::try_from(count).is_ok_and(|count| count < limit);
        let of_policy = taken.values().filter(|other| *other == policy).count();
        let of_namespace = taken.keys().filter(|other| other.0 == item.0).count();
        if !is_below(of_policy, rule.max_in_flight) || !is_below(of_namespace, rule.max_in_flight_per_namespace) {
            return false;
        }
        taken.insert(item.clone(), policy.to_owned());
        true
    }

    /// Takes or frees the slot of an item as its `WorkItem` says, which was read from the API server.
    pub(super) fn set(&self, item: &ItemRef, work_item: Option<&WorkItem>) {
        if !work_item.is_some_and(|work_item| self.keep(item, work_item)) {
            self.0.lock().remove(item);
        }
    }

    /// Whether `item` has a slot.
    pub(super) fn has(&self, item: &ItemRef) -> bool {
        self.0.lock().contains_key(item)
    }

    /// Takes the slot of an item if its `WorkItem`, which may be a cached one, has a retry in flight.
    pub(super) fn keep(&self, item: &ItemRef, work_item: &WorkItem) -> bool {
        let transition = transition_of(work_item);
        let Some(transition) = transition.filter(|transition| transition.blocked.is_none()) else {
            return false;
        };
        let policy = transition.policy.clone().unwrap_or_default();
        self.0.lock().insert(item.clone(), policy);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_per_policy_and_per_namespace() {
        let rule = RetryPolicy {
            max_in_flight: 3,
            max_in_flight_per_namespace: 2,
            ..RetryPolicy::default()
        };
        let slots = Slots::default();
        let item = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        for (namespace, name, policy, free) in [
            ("a", "1", "p", true),
            ("a", "2", "p", true),
            ("a", "2", "p", true),
            ("a", "3", "p", false),
            ("b", "1", "p", true),
            ("b", "2", "p", false),
            ("b", "2", "q", true),
        ] {
            assert_eq!(
                slots.take(&item(namespace, name), policy, &rule),
                free,
                "{namespace}/{name} {policy}"
            );
        }
        slots.set(&item("a", "1"), None);
        assert!(slots.take(&item("a", "3"), "p", &rule));
    }
}
