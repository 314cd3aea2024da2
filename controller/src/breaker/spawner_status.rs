//! The status of a TaskSpawner: the condition `ItemsCircuitBroken`, which of its items are skipped, and `failedItems`, the failures
//! of its items, where Kelos' schema has that field. An item that Tasks of several spawners state is listed by each of them.
//!
//! Kelos reads that status and writes it back within milliseconds, without a second try: a write of taskgate between the two
//! fails its cycle. So both are written together, only when they change, some time after the last event of the spawner's items,
//! when the cycle that the event started is over, and seldom; but they never wait longer than [`INTERVAL`] for events to end. Of
//! events that do not end, they take the first gap of [`SHORT_QUIET`] once two thirds of that are over. A user who removes an entry
//! of `failedItems`, which resets the item, does so at any moment: that is carried out at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use taskgate_api::{
    WorkItem,
    kelos_fields::{FailedItemReset, KelosField},
    keys,
};
use taskgate_policy::{TaskState, failures_to_reset};
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, warn};

use super::failed_items::FailedItems;
use crate::{
    context::{Context, ItemRef},
    error::{is_absent, is_conflict},
    kubernetes::{self, json_of},
    status::condition,
    work_items::is_tripped,
    workqueue::PanicGuard,
};

/// The condition's type, as the proposal of the circuit breaker names it.
const CONDITION: &str = "ItemsCircuitBroken";
/// How long after the last event of a spawner's items its status is computed.
const QUIET: Duration = Duration::from_secs(10);
/// The same in the [`HURRY`] before the latest time.
const SHORT_QUIET: Duration = Duration::from_secs(1);
/// How long before the latest time an event waits for [`QUIET`] no more.
const HURRY: Duration = Duration::from_secs(10);
/// The shortest time between two writes to one spawner, and the longest that an event waits for others to end.
const INTERVAL: Duration = Duration::from_secs(30);
/// How soon a reset that a user asked for is tried again.
const RESET_AGAIN: Duration = Duration::from_secs(1);
/// How many items a message names.
const NAMED: usize = 20;

/// Namespace and name of a spawner.
pub(crate) type SpawnerRef = (String, String);

/// When the status of a spawner is computed.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    /// However many events come: a changed policy is an event of every spawner, and a user may write policies all the time.
    latest: Instant,
}

impl Due {
    /// An event comes at `now`; the condition may not be written before `earliest`.
    fn after_event(known: Option<Self>, now: Instant, earliest: Instant) -> Self {
        let latest = known.map_or_else(|| earliest.max(now + INTERVAL), |due| due.latest);
        let is_patient = now + QUIET + HURRY <= latest;
        let quiet = if is_patient { QUIET } else { SHORT_QUIET };
        let at = earliest.max(now + quiet).min(latest);
        Self { at, latest }
    }

    fn after(wait: Duration) -> Self {
        let at = Instant::now() + wait;
        Self { at, latest: at }
    }

    fn now() -> Self {
        Self::after(Duration::ZERO)
    }
}

/// Updates the status of every spawner that `changed` yields, until the channel closes.
pub(crate) async fn run(context: Arc<Context>, mut changed: mpsc::UnboundedReceiver<SpawnerRef>) {
    let mut due: HashMap<SpawnerRef, Due> = HashMap::new();
    let mut written: HashMap<SpawnerRef, Instant> = HashMap::new();
    let panics = PanicGuard::new("spawner_status", &context.panics);
    let mut spawners = SpawnerStatuses {
        context,
        stated: HashMap::new(),
        warned: false,
    };
    loop {
        let next = due
            .iter()
            .min_by_key(|(_, due)| due.at)
            .map(|(spawner, due)| (spawner.clone(), due.at));
        let wait = async {
            match &next {
                Some((_, at)) => tokio::time::sleep_until(*at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            spawner = changed.recv() => {
                let Some(spawner) = spawner else { return };
                let now = Instant::now();
                let earliest = written.get(&spawner).map_or(now, |at| *at + INTERVAL);
                let next = if spawners.has_resets(&spawner) {
                    Due::now()
                } else {
                    Due::after_event(due.get(&spawner).copied(), now, earliest)
                };
                due.insert(spawner, next);
            }
            () = wait => {
                let Some((spawner, _)) = next else { continue };
                due.remove(&spawner);
                let retry = match panics.catch(spawner.clone(), Box::pin(spawners.update(&spawner))).await {
                    Ok(Ok(is_written)) => {
                        if is_written {
                            written.insert(spawner.clone(), Instant::now());
                        }
                        None
                    }
                    Ok(Err(error)) => {
                        debug!(%error, namespace = spawner.0, name = spawner.1, "the spawner's status was not written");
                        Some(match () {
                            () if spawners.has_resets(&spawner) => RESET_AGAIN,
                            () if is_conflict(&error) => QUIET,
                            () => INTERVAL,
                        })
                    }
                    Err(after_panic) => Some(after_panic),
                };
                if let Some(wait) = retry {
                    due.insert(spawner, Due::after(wait));
                }
                written.retain(|_, at| at.elapsed() < INTERVAL);
            }
        }
    }
}

/// Enqueues every spawner with a failed item: the policies, which decide whether it is skipped, changed.
pub(crate) fn enqueue_all(context: &Context, changed: &mpsc::UnboundedSender<SpawnerRef>) {
    for item in context
        .cache
        .work_items()
        .all()
        .iter()
        .filter(|item| item.has_failures())
    {
        let key = (item.namespace().to_owned(), item.name().to_owned());
        enqueue(context, changed, &key, item.spawner());
    }
}

/// Enqueues the spawners of the work item `key`, of which `spawner` is the owner.
pub(crate) fn enqueue(
    context: &Context,
    changed: &mpsc::UnboundedSender<SpawnerRef>,
    key: &ItemRef,
    spawner: Option<&str>,
) {
    for spawner in context.spawners_of(key, spawner) {
        // Fails only when the controller is dropped, or without Kelos.
        let _ = changed.send((key.0.clone(), spawner));
    }
}

/// Enqueues the spawner of a Task that came or went, if the item that it shares with other spawners failed.
pub(crate) fn enqueue_of_task(
    context: &Context,
    changed: &mpsc::UnboundedSender<SpawnerRef>,
    namespace: &str,
    task: &TaskState,
) {
    let (Some(name), Some(spawner)) = (&task.work_item, &task.spawner) else {
        return;
    };
    let item = context.cache.work_items().get(namespace, name);
    if item.is_some_and(|item| item.spawner().is_none() && item.has_failures()) {
        let _ = changed.send((namespace.to_owned(), spawner.clone()));
    }
}

/// What was written for spawners.
struct SpawnerStatuses {
    context: Arc<Context>,
    /// The state of each spawner whose status states it: it is not read again for that.
    stated: HashMap<SpawnerRef, StatedItems>,
    /// Whether it was logged that this Kelos keeps no conditions.
    warned: bool,
}

/// What the status of a spawner states about its items.
#[derive(Clone, Debug, PartialEq)]
struct StatedItems {
    uid: String,
    /// The items that are skipped.
    tripped: Vec<String>,
    /// `None` where Kelos' schema does not have the field.
    failed: Option<FailedItems>,
}

impl SpawnerStatuses {
    /// Whether a user removed an entry of the spawner's `failedItems`, and the item is not reset yet.
    fn has_resets(&self, (namespace, name): &SpawnerRef) -> bool {
        let cached = self.context.cache.spawners().get(namespace, name);
        cached.is_some_and(|cached| !cached.resets.is_empty())
    }

    /// Writes the status if it is not as it should be; whether it was written.
    async fn update(&mut self, key: &SpawnerRef) -> kube::Result<bool> {
        let (context, (namespace, name)) = (&*self.context, key);
        let before = self.stated.remove(key);
        let cached = context.cache.spawners().get(namespace, name);
        let Some(cached) = cached.filter(|_| !context.is_opted_out(namespace)) else {
            return Ok(false);
        };
        let has_field = context
            .cache
            .kelos_schemas()
            .borrow()
            .added
            .contains(&KelosField::FailedItems);
        // A request that could not be removed afterwards would be carried out again and again.
        let none = BTreeMap::new();
        let resets = if has_field { &cached.resets } else { &none };
        for (id, reset) in resets {
            reset_items(context, key, id, reset).await?;
        }
        let items = items_of(context, namespace, name);
        let state = StatedItems {
            uid: cached.info.uid.clone(),
            tripped: tripped_items(context, &items, name),
            failed: has_field.then(|| FailedItems::of(&items)),
        };
        let is_lost = state
            .failed
            .as_ref()
            .is_some_and(|failed| failed.entries != cached.failed_items);
        if before.as_ref() == Some(&state) && !is_lost && resets.is_empty() {
            self.stated.insert(key.clone(), state);
            return Ok(false);
        }
        let written = self.write(key, &state, resets).await?;
        self.stated.insert(key.clone(), state);
        Ok(written)
    }

    async fn write(
        &mut self,
        (namespace, name): &SpawnerRef,
        state: &StatedItems,
        resets: &BTreeMap<String, FailedItemReset>,
    ) -> kube::Result<bool> {
        let (spawners, now) = (self.context.spawners(namespace), self.context.now());
        let Some(spawner) = kubernetes::find(&spawners, name).await? else {
            return Ok(false);
        };
        let status = wanted_status(&spawner, state, resets, now);
        if status.is_empty() {
            return Ok(false);
        }
        let patch = json!({
            "metadata": {"resourceVersion": spawner.resource_version(), "uid": spawner.uid()},
            "status": status,
        });
        let written = spawners
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        let is_dropped = conditions(&written, state, now).is_some();
        if is_dropped && !std::mem::replace(&mut self.warned, true) {
            // Logged once: nothing else depends on the condition.
            warn!("this Kelos keeps no conditions on a TaskSpawner: none lists the skipped items");
        }
        Ok(true)
    }
}

/// The fields of the status of `spawner` that have to change.
fn wanted_status(
    spawner: &DynamicObject,
    state: &StatedItems,
    resets: &BTreeMap<String, FailedItemReset>,
    now: Timestamp,
) -> Map<String, Value> {
    let stored = &spawner.data["status"];
    let failed = state.failed.as_ref().and_then(|failed| failed.patch(stored, resets));
    let mut status = failed.unwrap_or_default();
    if let Some(conditions) = conditions(spawner, state, now) {
        status.insert("conditions".to_owned(), conditions.into());
    }
    status
}

/// Requests the reset of the item `id` of a spawner, as `taskgate reset` does: the user of `reset` removed its entry.
async fn reset_items(
    context: &Context,
    (namespace, name): &SpawnerRef,
    id: &str,
    reset: &FailedItemReset,
) -> kube::Result<()> {
    let why = format!("removed from status.failedItems of TaskSpawner {name}");
    for item in items_of(context, namespace, name) {
        let has_failures = item.status.as_ref().and_then(failures_to_reset).is_some();
        if item.spec.item != id || !has_failures || item.annotations().contains_key(keys::RESET) {
            continue;
        }
        let annotations = json!({keys::RESET: why, keys::RESET_BY: reset.by});
        let request = Patch::Merge(json!({"metadata": {"uid": item.uid(), "annotations": annotations}}));
        let items = context.work_items(namespace);
        match items.patch(&item.name_any(), &PatchParams::default(), &request).await {
            Ok(now) => {
                let before = item.resource_version().unwrap_or_default();
                context.cache.work_item_written(&before, &now);
            }
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The items that concern a spawner: its own, and those that its Tasks state.
fn items_of(context: &Context, namespace: &str, name: &str) -> Vec<WorkItem> {
    let items = context.cache.work_items().in_namespace(namespace);
    let of_spawner = items.iter().filter(|item| {
        let key = (namespace.to_owned(), item.name().to_owned());
        item.has_failures() && context.spawners_of(&key, item.spawner()).contains(name)
    });
    of_spawner.map(|item| item.expand()).collect()
}

/// Those of `items` that are skipped, in a stable order: numbers as numbers.
fn tripped_items(context: &Context, items: &[WorkItem], spawner: &str) -> Vec<String> {
    let sorted: BTreeSet<(Option<u64>, String)> = items
        .iter()
        .filter(|item| is_tripped(item) && context.is_enforced(item, spawner))
        .map(|item| (item.spec.item.parse().ok(), item.spec.item.clone()))
        .collect();
    sorted.into_iter().map(|(_, item)| item).collect()
}

/// All conditions of `spawner` with taskgate's as it should be, or `None` when it is so already. A spawner without tripped items
/// that never had the condition does not get it, unless `failedItems` is not complete.
fn conditions(spawner: &DynamicObject, state: &StatedItems, now: Timestamp) -> Option<Vec<Value>> {
    let tripped = &state.tripped[..];
    let note = state.failed.as_ref().and_then(FailedItems::note);
    let stored = spawner.data.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = stored.cloned().unwrap_or_default();
    let position = conditions.iter().position(|condition| condition["type"] == CONDITION);
    if position.is_none() && tripped.is_empty() && note.is_none() {
        return None;
    }
    let before = position.and_then(|position| Condition::deserialize(&conditions[position]).ok());
    let (reason, mut message) = if tripped.is_empty() {
        ("NoneBroken", "no item is skipped".to_owned())
    } else {
        ("MaxRetriesExceeded", message(tripped))
    };
    if let Some(note) = note {
        message = format!("{message}; {note}");
    }
    let generation = spawner.metadata.generation;
    let wanted = condition(
        CONDITION,
        !tripped.is_empty(),
        reason,
        message,
        generation,
        before.as_ref(),
        now,
    );
    // A new generation alone is no reason to write.
    let states = |condition: &Condition| [&condition.status, &condition.reason, &condition.message].map(Clone::clone);
    if before.as_ref().is_some_and(|before| states(before) == states(&wanted)) {
        return None;
    }
    let wanted = json_of(&wanted);
    match position {
        Some(position) => conditions[position] = wanted,
        None => conditions.push(wanted),
    }
    Some(conditions)
}

/// `3 items skipped due to max retries: 42, 87, 103`, bounded.
fn message(tripped: &[String]) -> String {
    let items = if tripped.len() == 1 { "item" } else { "items" };
    let named = tripped
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let more = if tripped.len() > NAMED { ", …" } else { "" };
    format!("{} {items} skipped due to max retries: {named}{more}", tripped.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawner(conditions: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": "fixer"},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn state(tripped: &[&str]) -> StatedItems {
        StatedItems {
            uid: "u".into(),
            tripped: tripped.iter().map(ToString::to_string).collect(),
            failed: None,
        }
    }

    #[test]
    fn a_map_that_is_not_complete_is_noted() {
        let mut incomplete = state(&[]);
        incomplete.failed = Some(FailedItems {
            total: 612,
            ..FailedItems::default()
        });
        let written = wanted_status(
            &spawner(&json!([])),
            &incomplete,
            &BTreeMap::new(),
            Timestamp::UNIX_EPOCH,
        );
        let condition = &written["conditions"][0];
        assert_eq!(
            condition["message"],
            "no item is skipped; status.failedItems has 0 of 612 failed items"
        );
        assert_eq!(condition["status"], "False");
    }

    #[test]
    fn events_without_end_postpone_the_condition_by_the_interval_at_most() {
        let start = Instant::now();
        let mut due = Due::after_event(None, start, start);
        assert_eq!(due.at, start + QUIET);
        for second in 1..120 {
            let now = start + Duration::from_secs(second);
            due = Due::after_event(Some(due), now, start);
            let quiet = if second <= 10 { QUIET } else { SHORT_QUIET };
            assert_eq!(due.at, (now + quiet).min(start + INTERVAL), "{second}");
        }
        let earliest = start + INTERVAL * 2;
        assert_eq!(Due::after_event(None, start, earliest).at, earliest);
    }

    #[test]
    fn the_message_is_the_proposals_and_bounded() {
        let items = |range: std::ops::Range<u32>| range.map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(message(&items(1..4)), "3 items skipped due to max retries: 1, 2, 3");
        assert_eq!(message(&items(7..8)), "1 item skipped due to max retries: 7");
        assert!(message(&items(0..500)).ends_with("18, 19, …"));
    }

    #[test]
    fn it_is_written_only_when_it_changes_and_other_conditions_stay() {
        let now = Timestamp::UNIX_EPOCH;
        let other = json!({"type": "DiscoveryError", "status": "False"});
        let before = spawner(&json!([other]));
        assert_eq!(conditions(&before, &state(&[]), now), None);
        let written = conditions(&before, &state(&["42"]), now).unwrap();
        assert_eq!((written.len(), &written[0]), (2, &other));
        let after = spawner(&json!(written));
        assert_eq!(conditions(&after, &state(&["42"]), now), None);
        let closed = conditions(&after, &state(&[]), now).unwrap();
        assert_eq!(
            (&closed[1]["status"], &closed[1]["reason"]),
            (&json!("False"), &json!("NoneBroken"))
        );
    }
}
