//! Following everything: watches, and no asking in between.

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

use crate::commands::snapshot::{Kind, Reach, Read, STATUS, Snapshot, Trouble, json, namespaces};

/// How long changes are gathered before they are shown together.
const GATHER: Duration = Duration::from_millis(200);

/// Calls `draw` with everything once it is known, and after each change, until it returns false or somebody presses Ctrl-C.
///
/// A watch that is refused is tried again, ever more seldom: rights may be given, and CRDs installed, later.
pub(super) async fn follow(reach: &Reach, mut draw: impl FnMut(&Snapshot) -> Result<bool>) -> Result<()> {
    let mut tables = Tables::default();
    let watched = STATUS.into_iter().filter(|kind| {
        // Whoever works in one namespace may get it, and seldom watch it: its labels are read once.
        *kind != Kind::Namespaces || reach.namespace().is_none()
    });
    if reach.namespace().is_some() {
        tables.known.put(Kind::Namespaces, namespaces(reach).await?);
    }
    let mut changes = select_all(watched.map(|kind| {
        let events = watcher(reach.api(kind), watcher::Config::default()).default_backoff();
        events.map(move |event| (kind, event)).boxed()
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
            Some((kind, event)) = changes.next() => {
                if tables.note(kind, event) && tables.known.len() == STATUS.len() {
                    due.get_or_insert_with(|| Instant::now() + GATHER);
                }
            }
            () = drawing => {
                due = None;
                if !draw(&tables.known)? {
                    return Ok(());
                }
            }
            _ = &mut interrupted => return Ok(()),
        }
    }
}

type Objects = BTreeMap<(Option<String>, String), Arc<Value>>;

/// What is known by now. While objects are listed anew, the old ones stand.
#[derive(Default)]
struct Tables {
    live: BTreeMap<Kind, Objects>,
    staged: BTreeMap<Kind, Objects>,
    known: Snapshot,
}

impl Tables {
    /// Takes note of `event`. Returns whether it changed what is known.
    fn note(&mut self, kind: Kind, event: watcher::Result<Event<DynamicObject>>) -> bool {
        let key = |object: &DynamicObject| (object.namespace(), object.name_any());
        match event {
            Ok(Event::Init) => {
                self.staged.remove(&kind);
                return false;
            }
            Ok(Event::InitApply(object)) => {
                self.staged.entry(kind).or_default().insert(key(&object), json(&object));
                return false;
            }
            Ok(Event::InitDone) => {
                let listed = self.staged.remove(&kind).unwrap_or_default();
                self.live.insert(kind, listed);
            }
            Ok(Event::Apply(object)) => {
                self.live.entry(kind).or_default().insert(key(&object), json(&object));
            }
            Ok(Event::Delete(object)) => {
                self.live.entry(kind).or_default().remove(&key(&object));
            }
            Err(error) => return self.fail(kind, error),
        }
        let objects = self.live.get(&kind).into_iter().flat_map(BTreeMap::values);
        self.known.put(kind, Ok(objects.cloned().collect()));
        true
    }

    /// Only a list that fails leaves nothing to show: a watch that breaks is begun again where it was.
    fn fail(&mut self, kind: Kind, error: watcher::Error) -> bool {
        let watcher::Error::InitialListFailed(error) = error else {
            return false;
        };
        let trouble = Trouble::of(error).unwrap_or_else(|error| Trouble::Said(format!("{error:#}")));
        self.known.put(kind, Read::Err(trouble));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::core::Status;
    use serde_json::json;

    use super::*;

    fn object(name: &str) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "team"}})).expect("an object")
    }

    fn names(tables: &Tables) -> BTreeSet<String> {
        let objects = tables.known.objects(Kind::Tasks).iter();
        objects
            .filter_map(|object| Some(object["metadata"]["name"].as_str()?.to_owned()))
            .collect()
    }

    #[test]
    fn what_is_listed_anew_replaces_what_was_known_all_at_once() {
        let mut tables = Tables::default();
        let mut note = |event| tables.note(Kind::Tasks, event);
        assert!(!note(Ok(Event::Init)) && !note(Ok(Event::InitApply(object("a")))));
        assert!(note(Ok(Event::InitDone)) && note(Ok(Event::Apply(object("b")))));
        assert_eq!(names(&tables), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let mut note = |event| tables.note(Kind::Tasks, event);
        assert!(!note(Ok(Event::Init)) && !note(Ok(Event::InitApply(object("c")))));
        assert_eq!(names(&tables).len(), 2);
        assert!(tables.note(Kind::Tasks, Ok(Event::InitDone)));
        assert!(tables.note(Kind::Tasks, Ok(Event::Delete(object("x")))));
        assert_eq!(names(&tables), BTreeSet::from(["c".to_owned()]));
    }

    #[test]
    fn a_refused_list_is_told_and_a_broken_watch_is_not() {
        let refused = |code| {
            let status = Status::failure("forbidden", "Forbidden").with_code(code);
            kube::Error::Api(Box::new(status))
        };
        let mut tables = Tables::default();
        assert!(!tables.note(Kind::Tasks, Err(watcher::Error::WatchFailed(refused(500)))));
        assert_eq!(tables.known.len(), 0);
        assert!(tables.note(Kind::Tasks, Err(watcher::Error::InitialListFailed(refused(403)))));
        let said = Trouble::Said("forbidden".to_owned());
        assert_eq!(tables.known.trouble(Kind::Tasks), Some(&said));
        assert!(tables.note(Kind::Tasks, Err(watcher::Error::InitialListFailed(refused(404)))));
        assert_eq!(tables.known.trouble(Kind::Tasks), Some(&Trouble::Absent));
        assert!(tables.note(Kind::Tasks, Ok(Event::InitDone)));
        assert_eq!(tables.known.trouble(Kind::Tasks), None);
    }
}
