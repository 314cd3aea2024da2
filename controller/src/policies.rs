//! The policies of the cluster, and the labels that they select by.
//!
//! Imports `kubernetes`. Called by every feature, and by `status::policy`.

use std::{collections::BTreeMap, sync::Arc};

use futures::{Stream, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    ResourceExt as _,
    api::{ApiResource, DynamicObject, NotUsed, Object},
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};
use taskgate_api::{keys, task_policy::PolicyStatus};
use taskgate_policy::{KnownPolicies, PolicySet, SpawnerInfo};
use tokio::sync::watch;

use crate::kubernetes::json_of;

/// The stored policies as admission compiled them: one set for the process. Changes when a policy is created, deleted or gets a
/// new generation.
pub type SharedPolicies = watch::Receiver<Arc<KnownPolicies>>;

/// A policy without its spec, which admission compiles.
pub(crate) type PolicyHead = Object<NotUsed, PolicyStatus>;

/// Everything that decides which policy governs a Task.
pub(crate) struct PolicyStore {
    shared: SharedPolicies,
    pub(crate) local: Store<PolicyHead>,
    pub(crate) cluster: Store<PolicyHead>,
    pub(crate) namespaces: Store<PartialObjectMeta<Namespace>>,
    spawners: Store<DynamicObject>,
    spawner_kind: ApiResource,
}

impl PolicyStore {
    pub(crate) fn new(
        shared: SharedPolicies,
        local: Store<PolicyHead>,
        cluster: Store<PolicyHead>,
        namespaces: Store<PartialObjectMeta<Namespace>>,
        spawners: Store<DynamicObject>,
        spawner_kind: ApiResource,
    ) -> Self {
        Self {
            shared,
            local,
            cluster,
            namespaces,
            spawners,
            spawner_kind,
        }
    }

    /// Waits until all policies, namespaces and spawners are known.
    pub(crate) async fn ready(&self) {
        // An error means that the process ends, or that a watch was dropped, and then this is dropped as well.
        let _ = self.shared.clone().wait_for(|known| known.complete).await;
        let _ = self.local.wait_until_ready().await;
        let _ = self.cluster.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
        let _ = self.spawners.wait_until_ready().await;
    }

    /// The policies in force at the moment.
    pub(crate) fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.shared.borrow().set)
    }

    /// The labels of a namespace; none when the cache does not have it.
    pub(crate) fn namespace_labels(&self, name: &str) -> BTreeMap<String, String> {
        let namespace = self.namespaces.get(&ObjectRef::new(name));
        namespace
            .map(|namespace| namespace.labels().clone())
            .unwrap_or_default()
    }

    /// Whether the namespace is opted out by its label. The API server then sends nothing of it to admission, and the
    /// controller only removes its finalizers there.
    pub(crate) fn is_opted_out(&self, name: &str) -> bool {
        keys::is_opted_out(&self.namespace_labels(name))
    }

    /// The inputs of a decision that a spawner gives.
    pub(crate) fn spawner(&self, namespace: &str, name: &str) -> Option<SpawnerInfo> {
        let found = self.spawner_object(namespace, name)?;
        Some(SpawnerInfo::of(&json_of(&*found)))
    }

    /// The cached spawner, without the fields that no reconcile reads.
    pub(crate) fn spawner_object(&self, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let key = ObjectRef::new_with(name, self.spawner_kind.clone()).within(namespace);
        self.spawners.get(&key)
    }
}

/// Yields once when all policies are known, and at each change after it.
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
