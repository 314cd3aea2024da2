//! The Workloads as the watch showed them last, for when the policies change.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::Value;
use taskgate_api::metadata::Metadata;

/// Workloads by UID.
#[derive(Debug, Default)]
pub(super) struct Workloads(RwLock<HashMap<String, Arc<Value>>>);

impl Workloads {
    pub(super) fn put(&self, workload: &Value, gone: bool) {
        let Some(uid) = Metadata::of(workload).uid() else {
            return;
        };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if gone {
            known.remove(uid);
        } else {
            known.insert(uid.to_owned(), Arc::new(workload.clone()));
        }
    }

    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn all(&self) -> Vec<Arc<Value>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }
}
