//! Follows the collections of `taskgate status --watch` by watches, without requests in between.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use anyhow::Result;
use futures::{StreamExt as _, stream::select_all};
use kube::{
    ResourceExt as _,
    api::DynamicObject,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::Value;
use tokio::{
    signal::ctrl_c,
    time::{Instant, sleep_until},
};

use crate::commands::snapshot::{Collection, Snapshot, SnapshotReader, json};

/// How long changes are collected before they are printed together.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Calls `draw` with everything once it is known, and after each change, until it returns false or Ctrl-C.
///
/// A watch that is refused is retried with a backoff: rights may be granted, and CRDs installed, later.
pub(super) async fn follow(reader: &SnapshotReader, mut draw: impl FnMut(&Snapshot) -> Result<bool>) -> Result<()> {
    let mut cache = WatchCache::default();
    let mut watched = Collection::STATUS.to_vec();
    if reader.namespace().is_some() {
        // A user of one namespace may usually get it, but not watch it: its labels are read once.
        watched.retain(|collection| *collection != Collection::Namespaces);
        let namespace = reader.read([reader.query(Collection::Namespaces)]).await;
        cache.snapshot = namespace.if_reachable()?;
    }
    let mut changes = select_all(watched.into_iter().map(|collection| {
        let events = watcher(reader.api(collection), watcher::Config::default()).default_backoff();
        events.map(move |event| (collection, event)).boxed()
    }));
    let mut interrupted = pin!(ctrl_c());
    let mut due: Option<Instant> = None;
    loop {
        let drawing = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((collection, event)) = changes.next() => {
                if cache.apply(collection, event) && cache.snapshot.len() == Collection::STATUS.len() {
                    due.get_or_insert_with(|| Instant::now() + DEBOUNCE);
                }
            }
            () = drawing => {
                due = None;
                if !draw(&cache.snapshot)? {
                    return Ok(());
                }
            }
            _ = &mut interrupted => return Ok(()),
        }
    }
}

type ObjectMap = BTreeMap<(Option<String>, String), Arc<Value>>;

/// The objects by now. During a list the previous ones stay in the snapshot.
#[derive(Default)]
struct WatchCache {
    objects: BTreeMap<Collection, ObjectMap>,
    listed: BTreeMap<Collection, ObjectMap>,
    snapshot: Snapshot,
}

impl WatchCache {
    /// Applies `event`. Returns whether it changed the snapshot.
    fn apply(&mut self, collection: Collection, event: watcher::Result<Event<DynamicObject>>) -> bool {
        let key = |object: &DynamicObject| (object.namespace(), object.name_any());
        let objects = self.objects.entry(collection).or_default();
        let listed = self.listed.entry(collection).or_default();
        match event {
            Ok(Event::Init) => {
                listed.clear();
                return false;
            }
            Ok(Event::InitApply(object)) => {
                listed.insert(key(&object), json(&object));
                return false;
            }
            Ok(Event::InitDone) => *objects = std::mem::take(listed),
            Ok(Event::Apply(object)) => {
                objects.insert(key(&object), json(&object));
            }
            Ok(Event::Delete(object)) => {
                objects.remove(&key(&object));
            }
            // After another error the watch continues where it was, and the objects stay.
            Err(watcher::Error::InitialListFailed(error)) => {
                self.snapshot.put(collection, Err(error.into()));
                return true;
            }
            Err(_) => return false,
        }
        self.snapshot.put(collection, Ok(objects.values().cloned().collect()));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::commands::snapshot::ReadError;

    fn object(name: &str) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "team"}})).expect("an object")
    }

    fn names(cache: &WatchCache) -> BTreeSet<String> {
        let objects = cache.snapshot.objects(Collection::Tasks).iter();
        objects
            .filter_map(|object| Some(object["metadata"]["name"].as_str()?.to_owned()))
            .collect()
    }

    #[test]
    fn a_new_list_replaces_the_objects_all_at_once() {
        let mut cache = WatchCache::default();
        let mut apply = |event| cache.apply(Collection::Tasks, event);
        assert!(!apply(Ok(Event::Init)) && !apply(Ok(Event::InitApply(object("a")))));
        assert!(apply(Ok(Event::InitDone)) && apply(Ok(Event::Apply(object("b")))));
        assert_eq!(names(&cache), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let mut apply = |event| cache.apply(Collection::Tasks, event);
        assert!(!apply(Ok(Event::Init)) && !apply(Ok(Event::InitApply(object("c")))));
        assert_eq!(names(&cache).len(), 2);
        assert!(cache.apply(Collection::Tasks, Ok(Event::InitDone)));
        assert!(cache.apply(Collection::Tasks, Ok(Event::Delete(object("x")))));
        assert_eq!(names(&cache), BTreeSet::from(["c".to_owned()]));
    }

    #[test]
    fn a_refused_list_is_an_error_and_a_broken_watch_is_not() {
        let refused = |code| {
            let status = Status::failure("forbidden", "Forbidden").with_code(code);
            kube::Error::Api(Box::new(status))
        };
        let mut cache = WatchCache::default();
        assert!(!cache.apply(Collection::Tasks, Err(watcher::Error::WatchFailed(refused(500)))));
        assert_eq!(cache.snapshot.len(), 0);
        assert!(cache.apply(Collection::Tasks, Err(watcher::Error::InitialListFailed(refused(403)))));
        let error = ReadError::Refused("forbidden".to_owned());
        assert_eq!(cache.snapshot.error(Collection::Tasks), Some(&error));
        assert!(cache.apply(Collection::Tasks, Err(watcher::Error::InitialListFailed(refused(404)))));
        assert_eq!(cache.snapshot.error(Collection::Tasks), Some(&ReadError::Absent));
        assert!(cache.apply(Collection::Tasks, Ok(Event::InitDone)));
        assert_eq!(cache.snapshot.error(Collection::Tasks), None);
    }
}
