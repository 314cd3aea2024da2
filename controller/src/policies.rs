//! The policies of the cluster, and the labels that they select by.

use std::{collections::BTreeMap, sync::Arc};

use futures::{Stream, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    ResourceExt as _,
    api::{DynamicObject, NotUsed, Object},
    core::PartialObjectMeta,
    runtime::reflector::Store,
};
use taskgate_api::{keys, task_policy::PolicyStatus};
use taskgate_policy::{KnownPolicies, PolicySet, SpawnerInfo};
use tokio::sync::watch;

/// The stored policies as admission compiled them: there is one set for the process. Wakes when a policy is created, deleted
/// or gets a new generation.
pub type SharedPolicies = watch::Receiver<Arc<KnownPolicies>>;

/// A policy without its spec, which is compiled elsewhere.
pub(crate) type PolicyHead = Object<NotUsed, PolicyStatus>;

/// Everything that decides which policy governs a Task.
pub(crate) struct Policies {
    shared: SharedPolicies,
    pub(crate) local: Store<PolicyHead>,
    pub(crate) cluster: Store<PolicyHead>,
    pub(crate) namespaces: Store<PartialObjectMeta<Namespace>>,
    pub(crate) spawners: Store<DynamicObject>,
}

impl Policies {
    pub(crate) fn new(
        shared: SharedPolicies,
        local: Store<PolicyHead>,
        cluster: Store<PolicyHead>,
        namespaces: Store<PartialObjectMeta<Namespace>>,
        spawners: Store<DynamicObject>,
    ) -> Self {
        Self {
            shared,
            local,
            cluster,
            namespaces,
            spawners,
        }
    }

    /// Waits until all policies are known.
    pub(crate) async fn ready(&self) {
        // An error means that the process ends.
        let _ = self.shared.clone().wait_for(|known| known.complete).await;
    }

    /// The policies in force at the moment.
    pub(crate) fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.shared.borrow().set)
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
        keys::is_opted_out(&self.namespace_labels(name))
    }

    /// What is known of each spawner, by namespace and name.
    pub(crate) fn spawner(&self, namespace: &str, name: &str) -> Option<SpawnerInfo> {
        let found = self
            .spawners
            .find(|spawner| spawner.name_any() == name && spawner.namespace().as_deref() == Some(namespace))?;
        Some(SpawnerInfo::of(&crate::tasks::json_of(&found)))
    }
}

/// What is known now, once all of it is, and each change after it.
pub(crate) fn changes(shared: SharedPolicies) -> impl Stream<Item = ()> + Send {
    stream::unfold((shared, false), |(mut shared, started)| async move {
        let next = if started {
            shared.changed().await
        } else {
            shared.wait_for(|known| known.complete).await.map(drop)
        };
        if !started {
            shared.mark_unchanged();
        }
        next.ok().map(|()| ((), (shared, true)))
    })
}
