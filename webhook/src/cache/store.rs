//! The store of one kind: the trimmed objects by namespace and name, and the state of the watch that fills it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::CacheStatus;

/// The trimmed objects of one kind.
///
/// While the API server lists again, the old content is served; the new content then replaces it as a whole, so that an object
/// whose deletion was missed is removed too (C16).
#[derive(Debug)]
pub(super) struct KindStore<V> {
    kind: &'static str,
    live: RwLock<BTreeMap<String, V>>,
    staged: Mutex<BTreeMap<String, V>>,
    state: Mutex<WatchState>,
    after_change: AfterChange<V>,
}

/// A function that is called after the object under a key changed, to adjust others.
pub(super) type AfterChange<V> = fn(&mut BTreeMap<String, V>, &str);

/// The state of the watch that fills a store.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WatchState {
    /// No list is complete yet.
    Starting { since: Instant, error: Option<String> },
    /// The watch works.
    Following,
    /// The kind is not installed, which is as certain as an empty list.
    NotInstalled,
    /// The store is filled, but the watch does not work.
    Stale { since: Instant },
}

/// Why a watch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchFailure {
    /// The kind is not installed.
    NotInstalled,
    /// Anything else.
    Other,
}

/// `namespace/name`, or `/name` for cluster-scoped objects.
pub(super) fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl<V: Clone> KindStore<V> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self::with_after_change(kind, |_, _| ())
    }

    pub(super) fn with_after_change(kind: &'static str, after_change: AfterChange<V>) -> Self {
        Self {
            after_change,
            kind,
            live: RwLock::default(),
            staged: Mutex::default(),
            state: Mutex::new(WatchState::Starting {
                since: Instant::now(),
                error: None,
            }),
        }
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<V> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(&key(namespace, name)).cloned()
    }

    pub(super) fn values(&self) -> Vec<V> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values().cloned().collect()
    }

    /// Begins a list.
    pub(super) fn begin(&self) {
        self.staged().clear();
    }

    /// Adds an object of the list; `None` if it is not kept.
    pub(super) fn stage(&self, key: &str, value: Option<V>) {
        if let Some(value) = value {
            let mut staged = self.staged();
            staged.insert(key.to_owned(), value);
            (self.after_change)(&mut staged, key);
        }
    }

    /// Completes the list.
    pub(super) fn commit(&self) {
        let listed = std::mem::take(&mut *self.staged());
        let objects = listed.len();
        self.replace(listed);
        self.enter(WatchState::Following, || {
            info!(cache = self.kind, objects, "following the API server");
        });
    }

    /// Adds or replaces an object; `None` if it is not kept.
    pub(super) fn apply(&self, key: &str, value: Option<V>) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => {
                live.insert(key.to_owned(), value);
                (self.after_change)(&mut live, key);
            }
            None => drop(live.remove(key)),
        }
    }

    /// Removes a deleted object.
    pub(super) fn remove(&self, key: &str) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.remove(key);
    }

    /// Records that the watch failed, and logs it once per change of state; whether the content changed.
    pub(super) fn fail(&self, failure: WatchFailure, error: &(dyn std::error::Error + 'static)) -> bool {
        if failure == WatchFailure::NotInstalled {
            self.replace(BTreeMap::new());
            return self.enter(WatchState::NotInstalled, || {
                info!(
                    cache = self.kind,
                    "this kind is not installed; retrying from time to time"
                );
            });
        }
        let current = self.state().clone();
        let state = match current {
            WatchState::Starting { since, .. } => WatchState::Starting {
                since,
                error: Some(error.to_string()),
            },
            WatchState::Stale { since } => WatchState::Stale { since },
            WatchState::Following | WatchState::NotInstalled => WatchState::Stale { since: Instant::now() },
        };
        self.enter(state, || {
            warn!(cache = self.kind, error, "cannot follow the API server");
        });
        false
    }

    pub(super) fn status(&self) -> CacheStatus {
        let objects = self.live.read().unwrap_or_else(PoisonError::into_inner).len();
        let (synced, age) = match *self.state() {
            WatchState::Starting { since, .. } => (false, since.elapsed()),
            WatchState::Stale { since } => (true, since.elapsed()),
            WatchState::Following | WatchState::NotInstalled => (true, Duration::ZERO),
        };
        CacheStatus {
            kind: self.kind,
            objects,
            synced,
            age,
        }
    }

    fn replace(&self, content: BTreeMap<String, V>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = content;
    }

    /// Enters `state`, and calls `log` if it is another one than before; whether it is.
    fn enter(&self, state: WatchState, log: impl FnOnce()) -> bool {
        let mut current = self.state();
        let changed = *current != state;
        *current = state;
        drop(current);
        if changed {
            log();
        }
        changed
    }

    fn staged(&self) -> MutexGuard<'_, BTreeMap<String, V>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> KindStore<u8> {
        let store = KindStore::new("things");
        store.begin();
        store.stage(&key("a", "x"), Some(1));
        store.stage(&key("a", "y"), Some(2));
        assert!(!store.status().synced);
        assert_eq!(store.get("a", "x"), None, "an incomplete list is not served");
        store.commit();
        store
    }

    #[test]
    fn a_new_list_replaces_the_old_one_as_a_whole_and_only_when_complete() {
        let store = filled();
        store.begin();
        store.stage(&key("a", "y"), Some(3));
        assert_eq!(store.get("a", "x"), Some(1));
        store.commit();
        assert_eq!((store.get("a", "x"), store.get("a", "y")), (None, Some(3)));
    }

    #[test]
    fn the_content_outlives_a_broken_watch_but_not_the_kind() {
        let error = std::io::Error::other("gone");
        let store = filled();
        assert!(!store.fail(WatchFailure::Other, &error));
        assert_eq!(store.get("a", "x"), Some(1));
        assert!(store.status().synced);
        assert!(store.fail(WatchFailure::NotInstalled, &error));
        assert_eq!(store.status().objects, 0);
        assert!(store.status().synced);
    }

    #[test]
    fn a_store_that_was_never_filled_is_not_synced_by_an_error() {
        let store = KindStore::<u8>::new("things");
        store.fail(WatchFailure::Other, &std::io::Error::other("forbidden"));
        assert!(!store.status().synced);
        store.fail(WatchFailure::NotInstalled, &std::io::Error::other("404"));
        assert!(store.status().synced);
    }
}
