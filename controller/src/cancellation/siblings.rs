//! Which Tasks were created for the same item, and for which item of an issue source. Filled by `controller::changes`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{kelos::Task, keys};
use taskgate_policy::{TaskState, identify, source::SourceKey};

use crate::task_index::ItemRef;

/// The Tasks of each item, in the order of their creation.
#[derive(Debug, Default)]
pub(crate) struct Siblings(Mutex<SiblingTables>);

#[derive(Debug, Default)]
struct SiblingTables {
    members: HashMap<String, Member>,
    items: HashMap<ItemRef, BTreeMap<(Timestamp, String), String>>,
    sources: HashMap<SourceKey, BTreeSet<String>>,
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
        let mut tables = self.tables();
        tables.remove(&state.uid);
        let Some(member) = Member::of(namespace, object, state) else {
            return Vec::new();
        };
        let position = (member.created, state.uid.clone());
        let tasks = tables.items.entry(member.item.clone()).or_default();
        let older = tasks.range(..&position).map(|(_, name)| name.clone()).collect();
        tasks.insert(position, member.name.clone());
        if let Some(source) = &member.source {
            tables
                .sources
                .entry(source.clone())
                .or_default()
                .insert(member.name.clone());
        }
        tables.members.insert(state.uid.clone(), member);
        older
    }

    /// Removes the Task of this UID, which was deleted.
    pub(crate) fn remove(&self, uid: &str) {
        self.tables().remove(uid);
    }

    /// The newest Task of the same item, if that is not the one of this UID.
    pub(crate) fn newer(&self, uid: &str) -> Option<String> {
        let tables = self.tables();
        let member = tables.members.get(uid)?;
        let ((_, newest), name) = tables.items.get(&member.item)?.last_key_value()?;
        (newest != uid).then(|| name.clone())
    }

    /// The key of this Task's item at its issue source.
    pub(crate) fn source(&self, uid: &str) -> Option<SourceKey> {
        self.tables().members.get(uid)?.source.clone()
    }

    /// The names of the Tasks that were created for an item of an issue source.
    pub(crate) fn of_source(&self, source: &SourceKey) -> Vec<String> {
        let tables = self.tables();
        tables.sources.get(source).into_iter().flatten().cloned().collect()
    }

    fn tables(&self) -> MutexGuard<'_, SiblingTables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SiblingTables {
    fn remove(&mut self, uid: &str) {
        let Some(member) = self.members.remove(uid) else { return };
        if let Some(tasks) = self.items.get_mut(&member.item) {
            tasks.remove(&(member.created, uid.to_owned()));
            if tasks.is_empty() {
                self.items.remove(&member.item);
            }
        }
        if let Some(source) = member.source
            && let Some(names) = self.sources.get_mut(&source)
        {
            names.remove(&member.name);
            if names.is_empty() {
                self.sources.remove(&source);
            }
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
