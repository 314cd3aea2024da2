//! `status.failedItems` of a TaskSpawner, where Kelos' schema has the field: the failures of its items, as their WorkItems have
//! them. The map is for people: decisions depend on the WorkItems alone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};
use taskgate_api::{
    WorkItem,
    kelos_fields::{FailedItem, FailedItemReset},
    keys,
};

use crate::work_items::is_tripped;

/// The most entries of one spawner.
const MAX_ENTRIES: usize = 500;
/// The most bytes that the entries of one spawner have as JSON.
const MAX_BYTES: usize = 64 << 10;

/// The entries that a spawner should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FailedItems {
    pub(super) entries: BTreeMap<String, FailedItem>,
    /// How many failed items there are, those without an entry included.
    pub(super) total: usize,
}

impl FailedItems {
    /// The entries for `items`, all of one spawner. Of more than there may be, those of tripped items and then the newest are kept.
    /// An item that a user resets has none.
    pub(super) fn of<'a>(items: impl IntoIterator<Item = &'a WorkItem>) -> Self {
        let mut failed: Vec<_> = items.into_iter().filter_map(failure).collect();
        failed.sort_by(|a, b| b.rank.cmp(&a.rank).then_with(|| a.id.cmp(&b.id)));
        let mut found = Self {
            total: failed.len(),
            ..Self::default()
        };
        let mut bytes = 0;
        for Failure { id, entry, .. } in failed {
            bytes += json!({&id: entry}).to_string().len();
            if found.entries.len() == MAX_ENTRIES || bytes > MAX_BYTES {
                break;
            }
            found.entries.entry(id).or_insert(entry);
        }
        found
    }

    /// How many entries there are of how many items, where some have none.
    pub(super) fn note(&self) -> Option<String> {
        let (kept, total) = (self.entries.len(), self.total);
        (kept < total).then(|| format!("status.failedItems has {kept} of {total} failed items"))
    }

    /// The merge patch that makes the entries of `stored`, the status of a spawner, these, and removes the `resets` that were
    /// carried out; `None`: there is nothing to change.
    pub(super) fn patch(
        &self,
        stored: &Value,
        resets: &BTreeMap<String, FailedItemReset>,
    ) -> Option<Map<String, Value>> {
        let mut patch = Map::new();
        let entries = differences(stored.get("failedItems"), &self.entries);
        if !entries.is_empty() {
            patch.insert("failedItems".to_owned(), entries.into());
        }
        let stored_resets = stored.get("failedItemResets").and_then(Value::as_object);
        let done = |(id, reset): &(&String, &Value)| resets.get(*id).is_some_and(|done| json!(done) == **reset);
        let done = stored_resets.into_iter().flatten().filter(done);
        let removed: Map<_, _> = done.map(|(id, _)| (id.clone(), Value::Null)).collect();
        if !removed.is_empty() {
            patch.insert("failedItemResets".to_owned(), removed.into());
        }
        (!patch.is_empty()).then_some(patch)
    }
}

/// An item's entry, and its rank among those of its spawner: the greater one is kept.
struct Failure {
    id: String,
    entry: FailedItem,
    rank: (bool, Timestamp),
}

/// The entry of `item`; `None` while it has no failure.
fn failure(item: &WorkItem) -> Option<Failure> {
    let status = item.status.as_ref()?;
    let annotations = item.metadata.annotations.as_ref();
    let is_reset = annotations.is_some_and(|annotations| annotations.contains_key(keys::RESET));
    let tripped = is_tripped(item);
    if is_reset || status.consecutive_failures == 0 && !tripped {
        return None;
    }
    let Time(at) = status.last_failure_time.as_ref().or(status.opened_at.as_ref())?;
    // What the API server stores has whole seconds.
    let at = Timestamp::from_second(at.as_second()).unwrap_or(*at);
    Some(Failure {
        id: item.spec.item.clone(),
        entry: FailedItem {
            consecutive_failures: status.consecutive_failures,
            last_failure_time: Time(at),
            content_hash: status.content_hash.clone(),
        },
        rank: (tripped, at),
    })
}

/// The merge patch from the `stored` entries to the `wanted` ones.
fn differences(stored: Option<&Value>, wanted: &BTreeMap<String, FailedItem>) -> Map<String, Value> {
    let none = Map::new();
    let stored = stored.and_then(Value::as_object).unwrap_or(&none);
    let known: BTreeSet<&String> = stored.keys().chain(wanted.keys()).collect();
    let change = |id: &String| {
        let (before, now) = (stored.get(id), wanted.get(id).map(|entry| json!(entry)));
        match (before, now) {
            (Some(_), None) => Some(Value::Null),
            (Some(before), Some(now)) if *before == now => None,
            (before, Some(mut now)) => {
                // A merge patch keeps what it does not name.
                if before.is_some_and(|before| before.get("contentHash").is_some()) && now.get("contentHash").is_none()
                {
                    now["contentHash"] = Value::Null;
                }
                Some(now)
            }
            (None, None) => None,
        }
    };
    known
        .into_iter()
        .filter_map(|id| Some((id.clone(), change(id)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, failures: u32, breaker: &str, at: &str) -> WorkItem {
        let status = json!({"breaker": breaker, "consecutiveFailures": failures, "lastFailureTime": at});
        let spec = json!({"key": format!("fixer/{id}"), "item": id, "spawner": "fixer"});
        serde_json::from_value(json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": id}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    const NOON: &str = "2026-01-31T12:00:00Z";

    fn merged(mut stored: Value, patch: &Map<String, Value>) -> Value {
        json_patch::merge(&mut stored, &Value::from(patch.clone()));
        stored
    }

    #[test]
    fn the_entries_are_those_of_the_proposal() {
        let mut changed = item("7", 2, "Closed", "2026-01-31T12:00:00.123456Z");
        changed.status.as_mut().unwrap().content_hash = Some("sha".into());
        let mut reset = item("9", 3, "Open", NOON);
        reset.metadata.annotations = Some([(keys::RESET.to_owned(), String::new())].into());
        let items = [
            item("42", 3, "Open", NOON),
            changed,
            item("8", 0, "Closed", NOON),
            reset,
        ];
        let found = FailedItems::of(&items);
        let expected = json!({
            "42": {"consecutiveFailures": 3, "lastFailureTime": NOON},
            "7": {"consecutiveFailures": 2, "lastFailureTime": NOON, "contentHash": "sha"},
        });
        assert_eq!((json!(found.entries), found.note()), (expected.clone(), None));
        let patch = found.patch(&Value::Null, &BTreeMap::new()).unwrap();
        assert_eq!(Value::from(patch), json!({"failedItems": expected}));
        assert_eq!(found.patch(&json!({"failedItems": expected}), &BTreeMap::new()), None);
    }

    #[test]
    fn a_patch_makes_any_stored_map_the_wanted_one() {
        let found = FailedItems::of(&[item("42", 3, "Open", NOON)]);
        let wanted = json!({"42": {"consecutiveFailures": 3, "lastFailureTime": NOON}});
        for stored in [
            json!({}),
            json!({"failedItems": null}),
            json!({"failedItems": {"7": {"consecutiveFailures": 1, "lastFailureTime": NOON}}}),
            json!({"failedItems": {"42": {"consecutiveFailures": 2, "lastFailureTime": NOON, "contentHash": "old"}}}),
            json!({"failedItems": {"42": "garbage"}}),
        ] {
            let patch = found.patch(&stored, &BTreeMap::new()).unwrap();
            assert_eq!(merged(stored, &patch)["failedItems"], wanted);
        }
        let empty = FailedItems::default().patch(&json!({"failedItems": wanted}), &BTreeMap::new());
        assert_eq!(Value::from(empty.unwrap()), json!({"failedItems": {"42": null}}));
    }

    #[test]
    fn only_resets_that_were_carried_out_are_removed() {
        let reset = |by: &str| FailedItemReset { by: by.to_owned() };
        let done = BTreeMap::from([("42".to_owned(), reset("ann")), ("7".to_owned(), reset("ann"))]);
        // A new one, and one by another user.
        let stored = json!({"failedItemResets": {"42": {"by": "ann"}, "7": {"by": "bob"}, "8": {"by": "ann"}}});
        let patch = FailedItems::default().patch(&stored, &done).unwrap();
        assert_eq!(Value::from(patch), json!({"failedItemResets": {"42": null}}));
    }

    #[test]
    fn of_many_items_the_tripped_and_the_newest_have_entries() {
        let second = |n: usize| format!("2026-01-31T12:{:02}:{:02}Z", n / 60, n % 60);
        let mut items: Vec<_> = (0..700)
            .map(|n| item(&n.to_string(), 1, "Closed", &second(n)))
            .collect();
        items.push(item("old", 3, "Open", "2020-01-01T00:00:00Z"));
        let found = FailedItems::of(&items);
        assert_eq!((found.entries.len(), found.total), (MAX_ENTRIES, 701));
        assert!(found.entries.contains_key("old") && found.entries.contains_key("699"));
        assert!(!found.entries.contains_key("0"));
        assert_eq!(
            found.note().as_deref(),
            Some("status.failedItems has 500 of 701 failed items")
        );
        let long: Vec<_> = (0..500)
            .map(|n| item(&format!("{n:03}{}", "é".repeat(61)), 1, "Closed", NOON))
            .collect();
        let found = FailedItems::of(&long);
        assert!(json!(found.entries).to_string().len() <= MAX_BYTES);
        assert!((250..500).contains(&found.entries.len()), "{}", found.entries.len());
    }
}
