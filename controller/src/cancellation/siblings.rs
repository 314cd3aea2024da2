//! Which Tasks were created for the same item, and for which item of an issue source. Filled by `controller::changes`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use taskgate_api::{kelos::Task, keys};
use taskgate_policy::{TaskState, identify, source::SourceKey};

use crate::context::ItemRef;

/// The Tasks of each item, in the order of their creation.
#[derive(Debug, Default)]
pub(crate) struct Siblings(Mutex<SiblingTables>);

#[derive(Debug, Default)]
struct SiblingTables {
    /// By UID.
    members: HashMap<String, Member>,
    /// The names, by item, time of creation and UID.
    items: BTreeMap<(ItemRef, Timestamp, String), String>,
    /// The names after the item at the issue source.
    sources: BTreeSet<(SourceKey, String)>,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    created: Timestamp,
    item: ItemRef,
    source: Option<SourceKey>,
}

impl Siblings {
    /// Adds or replaces the Task `object`; returns the names of the older Tasks of its item.
    pub(crate) fn put(&self, namespace: &str, object: &Value, state: &TaskState) -> Vec<String> {
        let mut tables = self.0.lock();
        tables.remove(&state.uid);
        let Some(member) = Member::of(namespace, object, state) else {
            return Vec::new();
        };
        let position = (member.item.clone(), member.created, state.uid.clone());
        let older = tables.items.range(first(&member.item)..position.clone());
        let older = older.map(|(_, name)| name.clone()).collect();
        tables.items.insert(position, member.name.clone());
        if let Some(source) = &member.source {
            tables.sources.insert((source.clone(), member.name.clone()));
        }
        tables.members.insert(state.uid.clone(), member);
        older
    }

    /// Removes the Task of this UID, which was deleted.
    pub(crate) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// The newest Task of the same item, if that is not the one of this UID.
    pub(crate) fn newer(&self, uid: &str) -> Option<String> {
        let tables = self.0.lock();
        let item = &tables.members.get(uid)?.item;
        let tasks = tables.items.range(first(item)..);
        let ((_, _, newest), name) = tasks.take_while(|((of, ..), _)| of == item).last()?;
        (newest != uid).then(|| name.clone())
    }

    /// The key of this Task's item at its issue source.
    pub(crate) fn source(&self, uid: &str) -> Option<SourceKey> {
        self.0.lock().members.get(uid)?.source.clone()
    }

    /// The names of the Tasks that were created for an item of an issue source.
    pub(crate) fn of_source(&self, source: &SourceKey) -> Vec<String> {
        let tables = self.0.lock();
        let tasks = tables.sources.range((source.clone(), String::new())..);
        let tasks = tasks.take_while(|(of, _)| of == source);
        tasks.map(|(_, name)| name.clone()).collect()
    }
}

/// Where the Tasks of `item` begin.
fn first(item: &ItemRef) -> (ItemRef, Timestamp, String) {
    (item.clone(), Timestamp::MIN, String::new())
}

impl SiblingTables {
    fn remove(&mut self, uid: &str) {
        let Some(member) = self.members.remove(uid) else { return };
        self.items.remove(&(member.item, member.created, uid.to_owned()));
        if let Some(source) = member.source {
            self.sources.remove(&(source, member.name));
        }
    }
}

impl Member {
    fn of(namespace: &str, object: &Value, state: &TaskState) -> Option<Self> {
        let task = Task::of(object);
        let identity = identify(task)?;
        // Where a policy's template names the item, the label has that name.
        let item = state.work_item.clone().unwrap_or_else(|| identity.work_item_name());
        let named_by_template = task.metadata().annotation(keys::ITEM_KEY).is_some();
        let source = identity
            .spawner
            .filter(|_| !named_by_template)
            .map(|spawner| SourceKey {
                namespace: namespace.to_owned(),
                spawner,
                item: identity.item,
            });
        Some(Self {
            name: state.name.clone(),
            created: state.created,
            item: (namespace.to_owned(), item),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_task_of_an_item_is_known_until_it_is_deleted() {
        let siblings = Siblings::default();
        let put = |name: &str, created: &str, number: &str| {
            let object = json!({"metadata": {
                "name": name, "uid": name, "creationTimestamp": created,
                "labels": {"kelos.dev/taskspawner": "hook"}, "annotations": {"kelos.dev/source-number": number},
            }});
            siblings.put("team", &object, &TaskState::of(&object).unwrap())
        };
        assert!(put("a", "2026-11-21T12:00:00Z", "7").is_empty());
        assert!(put("other", "2026-11-21T12:00:01Z", "8").is_empty());
        assert_eq!(siblings.newer("a"), None);
        assert_eq!(put("b", "2026-11-21T12:00:05Z", "7"), ["a"]);
        assert_eq!(put("b", "2026-11-21T12:00:05Z", "7"), ["a"]);
        assert_eq!((siblings.newer("a").as_deref(), siblings.newer("b")), (Some("b"), None));
        let source = siblings.source("a").unwrap();
        assert_eq!((source.spawner.as_str(), source.item.as_str()), ("hook", "7"));
        assert_eq!(siblings.of_source(&source), ["a", "b"]);
        siblings.remove("b");
        assert_eq!(
            (siblings.newer("a"), siblings.of_source(&source)),
            (None, vec!["a".to_owned()])
        );
        siblings.remove("a");
        assert!(siblings.of_source(&source).is_empty());
    }
}
