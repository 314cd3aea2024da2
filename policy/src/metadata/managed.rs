//! The keys that the policies of a cluster set.

use std::{collections::BTreeSet, sync::Arc};

use super::{MetadataRule, Place};

/// Keys of labels and annotations that a group of policies sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    labels: BTreeSet<Arc<str>>,
    annotations: BTreeSet<Arc<str>>,
    overridden: BTreeSet<Arc<str>>,
}

impl Keys {
    /// Adds what `rule` sets.
    pub(crate) fn add(&mut self, rule: &MetadataRule) {
        for entry in &rule.entries {
            let keys = match entry.place {
                Place::Label => &mut self.labels,
                Place::Annotation => &mut self.annotations,
            };
            keys.insert(Arc::clone(&entry.key));
            if rule.override_existing && entry.place == Place::Label {
                self.overridden.insert(Arc::clone(&entry.key));
            }
        }
    }
}

/// What the policies set that reach a namespace: those of the cluster, and its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Managed<'a> {
    pub(crate) cluster: &'a Keys,
    pub(crate) namespaced: Option<&'a Keys>,
}

impl Managed<'_> {
    /// No keys at all.
    pub(crate) const NONE: Self = Managed {
        cluster: &Keys {
            labels: BTreeSet::new(),
            annotations: BTreeSet::new(),
            overridden: BTreeSet::new(),
        },
        namespaced: None,
    };

    fn any(&self, has: impl Fn(&Keys) -> bool) -> bool {
        has(self.cluster) || self.namespaced.is_some_and(has)
    }

    pub(crate) fn has_label(&self, key: &str) -> bool {
        self.any(|keys| keys.labels.contains(key))
    }

    pub(crate) fn has_annotation(&self, key: &str) -> bool {
        self.any(|keys| keys.annotations.contains(key))
    }

    /// Whether some policy replaces the creator's value of label `key`.
    pub(crate) fn overrides(&self, key: &str) -> bool {
        self.any(|keys| keys.overridden.contains(key))
    }
}
