//! The store of one kind: the trimmed objects by namespace and name, the state of the watch that fills it, and who follows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use kube::{Resource, api::DynamicObject};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tracing::{debug, info, warn};

use crate::{CacheStatus, discovery::is_unanswered};

/// Namespace and name of an object. The namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl NamespacedName {
    /// The key of an object that was read.
    pub fn of(object: &impl Resource) -> Self {
        let metadata = object.meta();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The key of an object.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// One object that was created, changed or deleted.
#[derive(Debug)]
pub struct ObjectChange<T> {
    /// Its key.
    pub key: NamespacedName,
    /// The object before; `None` if the store did not have it.
    pub old: Option<Arc<T>>,
    /// The object now; `None` if the store does not have it any more.
    pub new: Option<Arc<T>>,
}

impl<T> Clone for ObjectChange<T> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            old: self.old.clone(),
            new: self.new.clone(),
        }
    }
}

/// The changes of a [`Store`], from its content at the subscription onwards.
///
/// - The first batch is everything that the store has, at once, with `old` absent; it is empty if the store is.
/// - Each further batch is one step of the store: one event of the watch, or the differences that a new list makes. A value that
///   is equal to the one before is no change. An object that was deleted while the watch did not work is removed like any other.
/// - Batches arrive in the order of the steps, and none is missed or repeated. Who receives one finds this step, or a later one,
///   in the store. Nothing is said about the order of changes of different kinds.
///
/// The channel is unbounded: a subscriber must receive without waiting for anything that may last. One that is dropped is removed
/// with the next change.
#[derive(Debug)]
pub struct Subscription<T>(mpsc::UnboundedReceiver<Vec<ObjectChange<T>>>);

impl<T> Subscription<T> {
    /// The next batch. `None` once the store is dropped.
    pub async fn next(&mut self) -> Option<Vec<ObjectChange<T>>> {
        self.0.recv().await
    }

    /// The next batch, if there is one already.
    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Vec<ObjectChange<T>>> {
        self.0.try_recv().ok()
    }
}

/// The trimmed objects of one kind.
///
/// While the API server lists again, the old content is served; the new content then replaces it as a whole, so that an object
/// whose deletion was missed is removed too (C16).
#[derive(Debug)]
pub struct Store<T> {
    kind: &'static str,
    fields: Option<String>,
    content: RwLock<StoreContent<T>>,
    staged: Mutex<ObjectMap<T>>,
    state: watch::Sender<WatchState>,
    after_change: AfterChange<T>,
    added: Notify,
}

/// Objects by their key.
pub(crate) type ObjectMap<T> = BTreeMap<NamespacedName, Arc<T>>;

/// A function that is called after the object under a key changed; it adjusts others, and returns how.
pub(crate) type AfterChange<T> = fn(&mut ObjectMap<T>, &NamespacedName) -> Vec<ObjectChange<T>>;

/// Gets all changes of a store while the store is locked.
pub(crate) trait Observer<T>: Debug + Send + Sync {
    /// Called after `changes`, before anyone can read them.
    fn changed(&self, changes: &[ObjectChange<T>]);
}

/// When the last list of a kind was requested, and when it was complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListTimes {
    pub(crate) begun: Instant,
    pub(crate) complete: Instant,
}

/// One lock for all, so that a subscriber gets each change after its first batch, and no change twice.
#[derive(Debug)]
struct StoreContent<T> {
    objects: ObjectMap<T>,
    observer: Option<Arc<dyn Observer<T>>>,
    subscribers: Vec<mpsc::UnboundedSender<Vec<ObjectChange<T>>>>,
    begun: Instant,
    list: Option<ListTimes>,
}

/// The state of the watch that fills a store.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WatchState {
    /// No list is complete yet.
    Starting { since: Instant, error: Option<String> },
    /// The watch works.
    Following,
    /// The kind is not installed, which is as certain as an empty list.
    NotInstalled,
    /// The watch does not work. The store has what was `listed`, or is empty because the kind was not installed.
    Stale { since: Instant, listed: bool },
}

impl WatchState {
    fn is_current(&self) -> bool {
        matches!(self, Self::Following | Self::NotInstalled)
    }
}

/// An object of which a store may have an old version.
pub trait Versioned {
    /// Its `resourceVersion`.
    fn version(&self) -> Option<&str>;
}

impl Versioned for DynamicObject {
    fn version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }
}

impl<T: Versioned + PartialEq> Store<T> {
    /// Replaces the version `before` of the object under `key` by `value`, which this process wrote in its place. If the watch has shown another
    /// version by now, or the deletion, the store stays as it is.
    ///
    /// So a reader finds what this process wrote before the watch shows it, and that event is no change any more.
    pub(crate) fn written(&self, key: NamespacedName, before: &str, value: T) {
        let mut content = self.write();
        let current = content.objects.get(&key);
        if current.is_some_and(|current| current.version() == Some(before)) {
            self.put(&mut content, key, value);
        }
    }
}

impl<T: PartialEq> Store<T> {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self::with_after_change(kind, |_, _| Vec::new())
    }

    pub(crate) fn with_after_change(kind: &'static str, after_change: AfterChange<T>) -> Self {
        Self {
            after_change,
            added: Notify::new(),
            kind,
            fields: None,
            content: RwLock::new(StoreContent {
                objects: BTreeMap::new(),
                observer: None,
                subscribers: Vec::new(),
                begun: Instant::now(),
                list: None,
            }),
            staged: Mutex::default(),
            state: watch::Sender::new(WatchState::Starting {
                since: Instant::now(),
                error: None,
            }),
        }
    }

    /// The store, observed by `observer`.
    pub(crate) fn observed_by(mut self, observer: Arc<dyn Observer<T>>) -> Self {
        let content = self.content.get_mut().unwrap_or_else(PoisonError::into_inner);
        content.observer = Some(observer);
        self
    }

    /// The store of those objects only that a field selector selects.
    pub(crate) fn selecting(self, fields: String) -> Self {
        Self {
            fields: Some(fields),
            ..self
        }
    }

    /// The field selector of the objects that the store has.
    pub(crate) fn fields(&self) -> Option<&str> {
        self.fields.as_deref()
    }

    /// The object of a key.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.read().objects.get(&NamespacedName::new(namespace, name)).cloned()
    }

    /// Waits until the store has an object under a key, which this process created, but no longer than `limit`.
    pub async fn wait_for(&self, namespace: &str, name: &str, limit: Duration) {
        let added = async {
            loop {
                let mut added = pin!(self.added.notified());
                added.as_mut().enable();
                if self.get(namespace, name).is_some() {
                    return;
                }
                added.await;
            }
        };
        // Without it, readers are behind a little longer.
        let _ = timeout(limit, added).await;
    }

    /// All objects, in the order of their keys.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace, in the order of their names.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let content = self.read();
        let objects = content.in_namespace(namespace);
        objects.map(|(_, object)| Arc::clone(object)).collect()
    }

    /// The names of the objects of a namespace.
    pub fn names_in(&self, namespace: &str) -> BTreeSet<String> {
        let content = self.read();
        let objects = content.in_namespace(namespace);
        objects.map(|(key, _)| key.name.clone()).collect()
    }

    /// Follows the store. See [`Subscription`].
    pub fn subscribe(&self) -> Subscription<T> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut content = self.write();
        let objects = content.objects.iter().map(|(key, object)| ObjectChange {
            key: key.clone(),
            old: None,
            new: Some(Arc::clone(object)),
        });
        // The receiver exists.
        let _ = sender.send(objects.collect());
        content.subscribers.push(sender);
        Subscription(receiver)
    }

    /// Waits until the watch works, or the kind is known not to be installed.
    pub async fn wait_until_current(&self) {
        // An error means that the store is dropped, and then this is dropped as well.
        let _ = self.state.subscribe().wait_for(WatchState::is_current).await;
    }

    /// Waits until the kind is installed and its watch works.
    pub async fn wait_until_followed(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| *state == WatchState::Following).await;
    }

    /// Whether the kind is installed and was listed, as far as the store knows.
    pub fn is_listed(&self) -> bool {
        matches!(
            *self.state.borrow(),
            WatchState::Following | WatchState::Stale { listed: true, .. }
        )
    }

    /// Whether the kind is installed; `None` while the watch does not work.
    pub fn is_installed(&self) -> Option<bool> {
        match *self.state.borrow() {
            WatchState::Following => Some(true),
            WatchState::NotInstalled => Some(false),
            WatchState::Starting { .. } | WatchState::Stale { .. } => None,
        }
    }

    /// Whether the first list is neither complete nor refused yet.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(*self.state.borrow(), WatchState::Starting { error: None, .. })
    }

    /// Whether the watch works, or the kind is known not to be installed.
    pub fn is_current(&self) -> bool {
        self.state.borrow().is_current()
    }

    /// The times of the last list; `None` before the first one, and while the kind is not installed.
    pub(crate) fn list_times(&self) -> Option<ListTimes> {
        self.read().list
    }

    /// Begins a list.
    pub(crate) fn begin(&self) {
        self.staged().clear();
        self.write().begun = Instant::now();
    }

    /// Adds an object of the list; `None` if it is not kept.
    pub(crate) fn stage(&self, key: &NamespacedName, value: Option<T>) {
        if let Some(value) = value {
            let mut staged = self.staged();
            staged.insert(key.clone(), Arc::new(value));
            (self.after_change)(&mut staged, key);
        }
    }

    /// Completes the list.
    pub(crate) fn commit(&self) {
        let listed = std::mem::take(&mut *self.staged());
        let objects = listed.len();
        self.replace(listed, true);
        self.enter(WatchState::Following, || {
            info!(cache = self.kind, objects, "following the API server");
        });
    }

    /// Adds or replaces an object; `None` if it is not kept.
    pub(crate) fn apply(&self, key: NamespacedName, value: Option<T>) {
        match value {
            Some(value) => self.put(&mut self.write(), key, value),
            None => self.remove(key),
        }
    }

    fn put(&self, content: &mut StoreContent<T>, key: NamespacedName, value: T) {
        let value = Arc::new(value);
        let old = content.objects.insert(key.clone(), Arc::clone(&value));
        let mut changes = (self.after_change)(&mut content.objects, &key);
        if old.as_ref() != Some(&value) {
            let change = ObjectChange {
                key,
                old,
                new: Some(value),
            };
            changes.insert(0, change);
        }
        content.publish(&changes);
        self.added.notify_waiters();
    }

    /// Removes a deleted object.
    pub(crate) fn remove(&self, key: NamespacedName) {
        let mut content = self.write();
        if let Some(old) = content.objects.remove(&key) {
            let change = ObjectChange {
                key,
                old: Some(old),
                new: None,
            };
            content.publish(&[change]);
        }
    }

    /// Empties the store of a kind that is not installed; whether that is new.
    pub(crate) fn uninstalled(&self) -> bool {
        self.replace(BTreeMap::new(), false);
        self.enter(WatchState::NotInstalled, || {
            info!(
                cache = self.kind,
                "this kind is not installed; retrying from time to time"
            );
        })
    }

    /// Records that the watch failed, and logs it once per change of state; not where the API server did not answer, which the client
    /// logs once for all kinds.
    pub(crate) fn fail(&self, error: &(dyn std::error::Error + 'static)) {
        let current = self.state.borrow().clone();
        let state = match current {
            WatchState::Starting { since, .. } => WatchState::Starting {
                since,
                error: Some(error.to_string()),
            },
            WatchState::Stale { since, listed } => WatchState::Stale { since, listed },
            WatchState::Following | WatchState::NotInstalled => WatchState::Stale {
                since: Instant::now(),
                listed: current == WatchState::Following,
            },
        };
        self.enter(state, || {
            if error.downcast_ref().is_some_and(is_unanswered) {
                debug!(cache = self.kind, error, "cannot follow the API server");
            } else {
                warn!(cache = self.kind, error, "cannot follow the API server");
            }
        });
    }

    pub(crate) fn status(&self) -> CacheStatus {
        let objects = self.read().objects.len();
        let (synced, age) = match *self.state.borrow() {
            WatchState::Starting { since, .. } => (false, since.elapsed()),
            WatchState::Stale { since, .. } => (true, since.elapsed()),
            WatchState::Following | WatchState::NotInstalled => (true, Duration::ZERO),
        };
        CacheStatus {
            kind: self.kind,
            objects,
            synced,
            age,
        }
    }

    /// Replaces the content, by that of a list if `listed`, and publishes the differences.
    fn replace(&self, objects: ObjectMap<T>, listed: bool) {
        let mut content = self.write();
        content.list = listed.then(|| ListTimes {
            begun: content.begun,
            complete: Instant::now(),
        });
        let mut before = std::mem::replace(&mut content.objects, objects);
        if content.subscribers.is_empty() && content.observer.is_none() {
            return;
        }
        let mut changes = Vec::new();
        for (key, new) in &content.objects {
            let old = before.remove(key);
            if old.as_ref() != Some(new) {
                let (key, new) = (key.clone(), Some(Arc::clone(new)));
                changes.push(ObjectChange { key, old, new });
            }
        }
        let removed = before.into_iter().map(|(key, old)| ObjectChange {
            key,
            old: Some(old),
            new: None,
        });
        changes.extend(removed);
        content.publish(&changes);
    }

    /// Enters `state`, and calls `log` if it is another one than before; whether it is.
    fn enter(&self, state: WatchState, log: impl FnOnce()) -> bool {
        let changed = self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
        if changed {
            log();
        }
        changed
    }

    fn read(&self) -> RwLockReadGuard<'_, StoreContent<T>> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, StoreContent<T>> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn staged(&self) -> MutexGuard<'_, ObjectMap<T>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> StoreContent<T> {
    /// The objects of a namespace with their keys, in the order of their names.
    fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a NamespacedName, &'a Arc<T>)> {
        let from = self.objects.range(NamespacedName::new(namespace, "")..);
        from.take_while(move |(key, _)| key.namespace == namespace)
    }

    /// Sends `changes` to the observer and all subscribers, and removes those that were dropped.
    fn publish(&mut self, changes: &[ObjectChange<T>]) {
        if !changes.is_empty() {
            if let Some(observer) = &self.observer {
                observer.changed(changes);
            }
            self.subscribers
                .retain(|subscriber| subscriber.send(changes.to_vec()).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use taskgate_api::{WorkItem, WorkItemStatus, work_item::WorkItemSpec};

    use super::*;
    use crate::CachedWorkItem;

    fn key(name: &str) -> NamespacedName {
        NamespacedName::new("a", name)
    }

    fn list(store: &Store<u8>, objects: &[(&str, u8)]) {
        store.begin();
        for (name, value) in objects {
            store.stage(&key(name), Some(*value));
        }
        store.commit();
    }

    fn filled() -> Store<u8> {
        let store = Store::new("things");
        store.begin();
        store.stage(&key("x"), Some(1));
        store.stage(&key("y"), Some(2));
        assert!(!store.status().synced);
        assert_eq!(store.get("a", "x"), None, "an incomplete list is not served");
        store.commit();
        store
    }

    /// Name, old and new value.
    type ShortChange = (String, Option<u8>, Option<u8>);

    fn batch(subscription: &mut Subscription<u8>) -> Option<Vec<ShortChange>> {
        let changes = subscription.try_next()?;
        let short =
            |change: ObjectChange<u8>| (change.key.name, change.old.map(|old| *old), change.new.map(|new| *new));
        Some(changes.into_iter().map(short).collect())
    }

    fn change(name: &str, old: impl Into<Option<u8>>, new: impl Into<Option<u8>>) -> ShortChange {
        (name.to_owned(), old.into(), new.into())
    }

    #[test]
    fn a_new_list_replaces_the_old_one_as_a_whole_and_only_when_complete() {
        let store = filled();
        store.begin();
        store.stage(&key("y"), Some(3));
        assert_eq!(store.get("a", "x").as_deref(), Some(&1));
        store.commit();
        assert_eq!((store.get("a", "x"), store.get("a", "y").as_deref()), (None, Some(&3)));
    }

    #[test]
    fn the_content_outlives_a_broken_watch_but_not_the_kind() {
        let error = std::io::Error::other("gone");
        let store = filled();
        store.fail(&error);
        assert_eq!(store.get("a", "x").as_deref(), Some(&1));
        assert!(store.status().synced && store.is_listed());
        assert!(store.uninstalled());
        assert_eq!(store.status().objects, 0);
        assert!(store.status().synced && !store.is_listed());
        // One failed request later it is still not listed.
        store.fail(&error);
        assert!(store.status().synced && !store.is_listed());
    }

    #[test]
    fn a_store_that_was_never_filled_is_not_synced_by_an_error() {
        let store = Store::<u8>::new("things");
        store.fail(&std::io::Error::other("forbidden"));
        assert!(!store.status().synced);
        store.uninstalled();
        assert!(store.status().synced);
    }

    #[test]
    fn it_is_current_only_while_the_watch_works() {
        let store = Store::<u8>::new("things");
        let states = || {
            let (current, followed) = (store.wait_until_current(), store.wait_until_followed());
            (current.now_or_never().is_some(), followed.now_or_never().is_some())
        };
        assert_eq!(states(), (false, false));
        store.uninstalled();
        assert_eq!(states(), (true, false));
        list(&store, &[]);
        assert_eq!(states(), (true, true));
        store.fail(&std::io::Error::other("gone"));
        assert_eq!(states(), (false, false));
    }

    #[test]
    fn an_object_is_found_by_its_key_and_in_its_namespace() {
        let store = filled();
        for namespace in ["", "a-b", "b"] {
            store.apply(NamespacedName::new(namespace, "x"), Some(9));
        }
        assert_eq!(store.get("b", "x").as_deref(), Some(&9));
        assert_eq!(store.get("b", "y"), None);
        assert_eq!(store.in_namespace("a"), [Arc::new(1), Arc::new(2)]);
        assert_eq!((store.in_namespace("c").len(), store.all().len()), (0, 5));
    }

    #[test]
    fn a_subscriber_gets_the_content_and_then_each_change_once() {
        let store = filled();
        let mut early = store.subscribe();
        store.apply(key("z"), Some(3));
        store.apply(key("x"), Some(1));
        store.apply(key("x"), Some(7));
        store.apply(key("x"), None);
        store.remove(key("y"));
        store.remove(key("y"));
        let mut late = store.subscribe();
        let content = vec![change("x", None, 1), change("y", None, 2)];
        assert_eq!(batch(&mut early), Some(content));
        for expected in [
            change("z", None, 3),
            change("x", 1, 7),
            change("x", 7, None),
            change("y", 2, None),
        ] {
            assert_eq!(batch(&mut early), Some(vec![expected]));
        }
        assert_eq!(batch(&mut early), None);
        assert_eq!(batch(&mut late), Some(vec![change("z", None, 3)]));
        assert_eq!(batch(&mut Store::new("things").subscribe()), Some(Vec::new()));
    }

    #[test]
    fn a_new_list_yields_only_the_differences() {
        let store = filled();
        let mut changes = store.subscribe();
        batch(&mut changes);
        list(&store, &[("x", 1), ("y", 2)]);
        assert_eq!(batch(&mut changes), None);
        list(&store, &[("y", 4), ("z", 5)]);
        let differences = vec![change("y", 2, 4), change("z", None, 5), change("x", 1, None)];
        assert_eq!(batch(&mut changes), Some(differences));
        store.uninstalled();
        let removed = vec![change("y", 4, None), change("z", 5, None)];
        assert_eq!(batch(&mut changes), Some(removed));
    }

    #[test]
    fn a_subscriber_that_was_dropped_is_removed() {
        let store = filled();
        drop(store.subscribe());
        store.apply(key("x"), Some(7));
        assert!(store.read().subscribers.is_empty());
    }

    fn work_item(version: &str, failures: u32) -> CachedWorkItem {
        let mut item = WorkItem::new(
            "i",
            WorkItemSpec {
                key: "i".into(),
                item: "i".into(),
                spawner: None,
            },
        );
        item.metadata.namespace = Some("a".into());
        item.metadata.resource_version = Some(version.into());
        item.status = Some(WorkItemStatus {
            consecutive_failures: failures,
            ..WorkItemStatus::default()
        });
        CachedWorkItem::compact(&item).unwrap()
    }

    #[test]
    fn what_this_process_wrote_replaces_only_the_version_that_it_was_written_over() {
        let store = Store::<CachedWorkItem>::new("workitems");
        let failures = || Some(store.get("a", "i")?.status()?.consecutive_failures);
        store.written(key("i"), "1", work_item("2", 1));
        assert_eq!(failures(), None, "it may have been deleted");
        store.apply(key("i"), Some(work_item("1", 0)));
        let mut changes = store.subscribe();
        changes.try_next();
        store.written(key("i"), "1", work_item("2", 1));
        assert_eq!(
            (failures(), changes.try_next().map(|batch| batch.len())),
            (Some(1), Some(1))
        );
        store.apply(key("i"), Some(work_item("2", 1)));
        assert!(changes.try_next().is_none(), "the watch shows what is known");
        store.apply(key("i"), Some(work_item("3", 5)));
        store.written(key("i"), "1", work_item("2", 1));
        assert_eq!(failures(), Some(5), "the watch is ahead");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_object_gets_it_or_goes_on_after_the_limit() {
        let store = Store::<CachedWorkItem>::new("workitems");
        let limit = Duration::from_secs(1);
        let start = tokio::time::Instant::now();
        store.wait_for("a", "i", limit).await;
        assert_eq!(start.elapsed(), limit);
        let adding = async {
            tokio::time::sleep(limit / 2).await;
            store.apply(key("i"), Some(work_item("1", 0)));
        };
        tokio::join!(store.wait_for("a", "i", limit), adding);
        assert_eq!(start.elapsed(), limit + limit / 2);
    }
}
