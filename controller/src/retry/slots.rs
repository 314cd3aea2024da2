//! How many retries are in flight: counted where they begin, so that two that begin at once do not both take the last place.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use taskgate_api::{WorkItem, task_policy::RetryPolicy};

use crate::tasks::ItemRef;

/// The retries in flight, and the policy of each. What is held up by others is none.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<ItemRef, String>>);

impl Slots {
    /// Takes a place for `item`, if `policy` has one left in all and in the item's namespace.
    pub(super) fn take(&self, item: &ItemRef, policy: &str, rule: &RetryPolicy) -> bool {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.contains_key(item) {
            return true;
        }
        let count = |wanted: &dyn Fn(&ItemRef, &String) -> bool| {
            u32::try_from(taken.iter().filter(|(item, policy)| wanted(item, policy)).count()).unwrap_or(u32::MAX)
        };
        let of_policy = count(&|_, other| other == policy);
        let of_namespace = count(&|other, _| other.0 == item.0);
        if of_policy >= rule.max_in_flight || of_namespace >= rule.max_in_flight_per_namespace {
            return false;
        }
        taken.insert(item.clone(), policy.to_owned());
        true
    }

    /// Takes note of what the ledger of `item` says, read consistently.
    pub(super) fn note(&self, item: &ItemRef, memory: Option<&WorkItem>) {
        if !memory.is_some_and(|memory| self.keep(item, memory)) {
            let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            taken.remove(item);
        }
    }

    /// Whether `item` has a place.
    pub(super) fn holds(&self, item: &ItemRef) -> bool {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.contains_key(item)
    }

    /// Keeps a place for `item` if its ledger, which may be an old one, says that it has one.
    pub(super) fn keep(&self, item: &ItemRef, memory: &WorkItem) -> bool {
        let ledger = memory.status.as_ref().and_then(|status| status.retry.as_ref());
        let open = ledger.and_then(|ledger| ledger.transition.as_ref());
        let Some(transition) = open.filter(|transition| transition.blocked.is_none()) else {
            return false;
        };
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(item.clone(), transition.policy.clone().unwrap_or_default());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_per_policy_and_per_namespace() {
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
        slots.note(&item("a", "1"), None);
        assert!(slots.take(&item("a", "3"), "p", &rule));
    }
}
