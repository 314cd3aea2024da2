//! One cache: what is kept of the objects of one kind, by namespace and name.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::CacheReport;

/// What is kept of each object of a kind.
///
/// While the API server lists anew, the old content answers; then the new content replaces it whole, so that an object
/// that vanished unseen goes too (C16).
#[derive(Debug)]
pub(super) struct Table<V> {
    kind: &'static str,
    live: RwLock<BTreeMap<String, V>>,
    staged: Mutex<BTreeMap<String, V>>,
    state: Mutex<State>,
    settle: Settle<V>,
}

/// Is called after a change of the object under a key: others may have to change with it.
pub(super) type Settle<V> = fn(&mut BTreeMap<String, V>, &str);

/// How the watch behind a table is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Starting { since: Instant, trouble: Option<String> },
    /// It follows the API server.
    Following,
    /// The kind is not installed. That is known as surely as an empty list.
    Absent,
    /// It was filled, and cannot follow at the moment.
    Stale { since: Instant },
}

/// Why a watch does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The kind is not installed.
    NotInstalled,
    /// Anything else.
    Other,
}

/// `namespace/name`, or `/name` for cluster-scoped objects.
pub(super) fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

impl<V: Clone> Table<V> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self::settled(kind, |_, _| ())
    }

    pub(super) fn settled(kind: &'static str, settle: Settle<V>) -> Self {
        Self {
            settle,
            kind,
            live: RwLock::default(),
            staged: Mutex::default(),
            state: Mutex::new(State::Starting {
                since: Instant::now(),
                trouble: None,
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

    /// A list begins.
    pub(super) fn begin(&self) {
        self.staged().clear();
    }

    /// An object of the list; `None` if nothing is kept of it.
    pub(super) fn stage(&self, key: &str, value: Option<V>) {
        if let Some(value) = value {
            let mut staged = self.staged();
            staged.insert(key.to_owned(), value);
            (self.settle)(&mut staged, key);
        }
    }

    /// The list is complete.
    pub(super) fn commit(&self) {
        let fresh = std::mem::take(&mut *self.staged());
        let objects = fresh.len();
        self.replace(fresh);
        self.enter(State::Following, || {
            info!(cache = self.kind, objects, "following the API server");
        });
    }

    /// An object appeared or changed; `None` if nothing is kept of it.
    pub(super) fn apply(&self, key: &str, value: Option<V>) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => {
                live.insert(key.to_owned(), value);
                (self.settle)(&mut live, key);
            }
            None => drop(live.remove(key)),
        }
    }

    /// An object is gone.
    pub(super) fn remove(&self, key: &str) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.remove(key);
    }

    /// The watch does not work. Told once per change of state; whether the content changed.
    pub(super) fn trouble(&self, trouble: Trouble, error: &(dyn std::error::Error + 'static)) -> bool {
        if trouble == Trouble::NotInstalled {
            self.replace(BTreeMap::new());
            return self.enter(State::Absent, || {
                info!(
                    cache = self.kind,
                    "this kind is not installed; looking again from time to time"
                );
            });
        }
        let current = self.state().clone();
        let state = match current {
            State::Starting { since, .. } => State::Starting {
                since,
                trouble: Some(error.to_string()),
            },
            State::Stale { since } => State::Stale { since },
            State::Following | State::Absent => State::Stale { since: Instant::now() },
        };
        self.enter(state, || {
            warn!(cache = self.kind, error, "cannot follow the API server");
        });
        false
    }

    pub(super) fn report(&self) -> CacheReport {
        let objects = self.live.read().unwrap_or_else(PoisonError::into_inner).len();
        let (synced, age) = match *self.state() {
            State::Starting { since, .. } => (false, since.elapsed()),
            State::Stale { since } => (true, since.elapsed()),
            State::Following | State::Absent => (true, Duration::ZERO),
        };
        CacheReport {
            kind: self.kind,
            objects,
            synced,
            age,
        }
    }

    fn replace(&self, fresh: BTreeMap<String, V>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    /// Whether `state` is news; if so, it is told.
    fn enter(&self, state: State, tell: impl FnOnce()) -> bool {
        let mut current = self.state();
        let news = *current != state;
        *current = state;
        drop(current);
        if news {
            tell();
        }
        news
    }

    fn staged(&self) -> MutexGuard<'_, BTreeMap<String, V>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Table<u8> {
        let table = Table::new("things");
        table.begin();
        table.stage(&key("a", "x"), Some(1));
        table.stage(&key("a", "y"), Some(2));
        assert!(!table.report().synced);
        assert_eq!(table.get("a", "x"), None, "half a list answers nothing");
        table.commit();
        table
    }

    #[test]
    fn a_new_list_replaces_the_old_one_whole_and_only_when_complete() {
        let table = filled();
        table.begin();
        table.stage(&key("a", "y"), Some(3));
        assert_eq!(table.get("a", "x"), Some(1));
        table.commit();
        assert_eq!((table.get("a", "x"), table.get("a", "y")), (None, Some(3)));
    }

    #[test]
    fn what_is_known_outlives_a_broken_watch_but_not_the_kind() {
        let error = std::io::Error::other("gone");
        let table = filled();
        assert!(!table.trouble(Trouble::Other, &error));
        assert_eq!(table.get("a", "x"), Some(1));
        assert!(table.report().synced);
        assert!(table.trouble(Trouble::NotInstalled, &error));
        assert_eq!(table.report().objects, 0);
        assert!(table.report().synced);
    }

    #[test]
    fn a_table_that_was_never_filled_is_not_synced_by_an_error() {
        let table = Table::<u8>::new("things");
        table.trouble(Trouble::Other, &std::io::Error::other("forbidden"));
        assert!(!table.report().synced);
        table.trouble(Trouble::NotInstalled, &std::io::Error::other("404"));
        assert!(table.report().synced);
    }
}
