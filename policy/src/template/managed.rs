//! The keys that the policies of a cluster set. Templates do not see them, so that what a policy sets never changes what
//! another one renders.

use std::{collections::BTreeSet, sync::Arc};

use crate::kubernetes::KeyKind;

/// Keys of labels and annotations that a group of policies sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    labels: BTreeSet<Arc<str>>,
    annotations: BTreeSet<Arc<str>>,
    overridden: BTreeSet<Arc<str>>,
}

impl Keys {
    /// Adds a key; `overriding`: the policy also replaces the creator's value.
    pub(crate) fn add(&mut self, kind: KeyKind, key: &Arc<str>, overriding: bool) {
        let keys = match kind {
            KeyKind::Label => &mut self.labels,
            KeyKind::Annotation => &mut self.annotations,
        };
        keys.insert(Arc::clone(key));
        if overriding && kind == KeyKind::Label {
            self.overridden.insert(Arc::clone(key));
        }
    }
}

/// The keys that apply to a namespace: those of ClusterTaskPolicies, and of its own TaskPolicies.
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

    /// Whether a policy replaces the creator's value of label `key`.
    pub(crate) fn overrides(&self, key: &str) -> bool {
        self.any(|keys| keys.overridden.contains(key))
    }
}
