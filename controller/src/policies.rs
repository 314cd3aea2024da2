//! The policies of the cluster, compiled, and the labels that they select by.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{ResourceExt as _, api::DynamicObject, core::PartialObjectMeta, runtime::reflector::Store};
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, keys};
use taskgate_policy::{Policy, PolicySet, SpawnerFacts};

/// Everything that decides which policy governs a Task.
pub(crate) struct Policies {
    pub(crate) local: Store<TaskPolicy>,
    pub(crate) cluster: Store<ClusterTaskPolicy>,
    pub(crate) namespaces: Store<PartialObjectMeta<Namespace>>,
    pub(crate) spawners: Store<DynamicObject>,
    compiled: RwLock<Arc<PolicySet>>,
}

impl Policies {
    pub(crate) fn new(
        local: Store<TaskPolicy>,
        cluster: Store<ClusterTaskPolicy>,
        namespaces: Store<PartialObjectMeta<Namespace>>,
        spawners: Store<DynamicObject>,
    ) -> Self {
        Self {
            local,
            cluster,
            namespaces,
            spawners,
            compiled: RwLock::default(),
        }
    }

    /// Compiles the policies anew. One that cannot be applied is left out; its status says so.
    pub(crate) fn compile(&self) {
        let local = self.local.state();
        let cluster = self.cluster.state();
        let local = local.iter().filter_map(|policy| {
            Policy::namespaced(
                &policy.namespace().unwrap_or_default(),
                &policy.name_any(),
                &policy.spec,
            )
            .ok()
        });
        let cluster = cluster
            .iter()
            .filter_map(|policy| Policy::cluster(&policy.name_any(), &policy.spec).ok());
        let set = PolicySet::new(local.chain(cluster));
        *self.compiled.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    }

    /// The policies of the moment.
    pub(crate) fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.compiled.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The labels of a namespace; none when it is not known.
    pub(crate) fn namespace_labels(&self, name: &str) -> BTreeMap<String, String> {
        let key = kube::runtime::reflector::ObjectRef::new(name);
        let namespace = self.namespaces.get(&key);
        namespace
            .map(|namespace| namespace.labels().clone())
            .unwrap_or_default()
    }

    /// Whether the namespace is opted out by its label. The API server then sends nothing of it to admission, and the
    /// controller only removes its finalizers there.
    pub(crate) fn is_opted_out(&self, name: &str) -> bool {
        let labels = self.namespace_labels(name);
        labels
            .get(keys::ADMISSION)
            .is_some_and(|value| value == keys::ADMISSION_DISABLED)
    }

    /// What is known of each spawner, by namespace and name.
    pub(crate) fn spawner(&self, namespace: &str, name: &str) -> Option<SpawnerFacts> {
        let found = self
            .spawners
            .find(|spawner| spawner.name_any() == name && spawner.namespace().as_deref() == Some(namespace))?;
        Some(SpawnerFacts::of(&crate::tasks::json_of(&found)))
    }
}
