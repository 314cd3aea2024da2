//! The items of a snapshot.

use serde_json::Value;
use taskgate_api::{WorkItem, work_item::Breaker};

use super::{Kind, Snapshot};

/// Whether the item is stopped.
pub(in crate::commands) fn is_open(item: &WorkItem) -> bool {
    let breaker = item.status.as_ref().and_then(|status| status.breaker);
    matches!(breaker, Some(Breaker::Open | Breaker::HalfOpen))
}

/// The items, and what is wrong with those that cannot be read.
pub(in crate::commands) fn items(snapshot: &Snapshot) -> (Vec<WorkItem>, Option<String>) {
    let objects = snapshot.objects(Kind::WorkItems);
    let read = |object: &Value| serde_json::from_value::<WorkItem>(object.clone()).ok();
    let items: Vec<_> = objects.iter().filter_map(|object| read(object)).collect();
    let unreadable = objects.len() - items.len();
    let problem =
        (unreadable > 0).then(|| format!("{unreadable} WorkItems are of another form than this taskgate knows"));
    (items, problem)
}
