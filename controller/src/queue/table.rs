//! What is kept of the objects of one of Kueue's kinds.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use kube::{api::DynamicObject, runtime::watcher::Event};
use serde_json::Value;

use crate::tasks::json_of;

/// Objects by a key of their own. While they are listed anew, the old ones answer.
#[derive(Debug, Default)]
pub(super) struct Table {
    live: RwLock<HashMap<String, Arc<Value>>>,
    staged: RwLock<HashMap<String, Arc<Value>>>,
}

impl Table {
    /// The object of `key`.
    pub(super) fn get(&self, key: &str) -> Option<Arc<Value>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Takes note of `event`; returns the object that appeared, changed or went. `key` gives none for objects that nobody
    /// asks for.
    pub(super) fn note(
        &self,
        event: Event<DynamicObject>,
        key: impl Fn(&Value) -> Option<String>,
    ) -> Option<Arc<Value>> {
        let (object, table, gone) = match event {
            Event::Init => {
                self.staged.write().unwrap_or_else(PoisonError::into_inner).clear();
                return None;
            }
            Event::InitDone => {
                let staged = std::mem::take(&mut *self.staged.write().unwrap_or_else(PoisonError::into_inner));
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = staged;
                return None;
            }
            Event::InitApply(object) => (object, &self.staged, false),
            Event::Apply(object) => (object, &self.live, false),
            Event::Delete(object) => (object, &self.live, true),
        };
        let object = Arc::new(json_of(&object));
        let key = key(&object)?;
        let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
        if gone {
            table.remove(&key);
        } else {
            table.insert(key, Arc::clone(&object));
        }
        Some(object)
    }
}
