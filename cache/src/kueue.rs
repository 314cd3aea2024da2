//! Kueue, as far as the review of a Job and the condition of a queued Task depend on it: the `LocalQueues`, the names of the
//! `WorkloadPriorityClasses`, and which namespaces Kueue manages.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DynamicObject, PartialObjectMeta},
};
use serde_json::{Value, json};
use taskgate_api::kueue::{ConfigRef, GROUP, LOCAL_QUEUES, PRIORITY_CLASSES, Settings, VERSIONS};
use taskgate_policy::KueueInfo;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    CacheStatus,
    store::Store,
    trim::only_fields,
    watch::{fixed, follow, of_group},
};

/// The stores of Kueue's kinds. They are empty while Kueue is not installed.
#[derive(Debug)]
pub struct KueueStores {
    config: ConfigRef,
    local_queues: Store<Value>,
    priority_classes: Store<()>,
    /// At most one.
    settings: Store<Settings>,
}

impl KueueStores {
    /// Empty stores; Kueue's configuration is in `config`.
    pub(crate) fn new(config: ConfigRef) -> Self {
        let fields = format!("metadata.name={}", config.name);
        Self {
            config,
            local_queues: Store::new(LOCAL_QUEUES),
            priority_classes: Store::new(PRIORITY_CLASSES),
            settings: Store::new("configmaps").selecting(fields),
        }
    }

    /// Follows the API server until `end`.
    ///
    /// RBAC: `list` and `watch` on localqueues and workloadpriorityclasses, cluster-wide, and on the ConfigMap with Kueue's
    /// configuration.
    pub(crate) fn follow(self: &Arc<Self>, client: &Client, end: &CancellationToken, watches: &mut JoinSet<()>) {
        let api = of_group(client.clone(), GROUP, &VERSIONS, "LocalQueue", LOCAL_QUEUES);
        let (kueue, shutdown) = (Arc::clone(self), end.clone());
        watches.spawn(async move {
            let trim = |queue| Some(trim_local_queue(&queue));
            follow(api, &kueue.local_queues, trim, || false, shutdown).await;
        });
        let api = of_group(
            client.clone(),
            GROUP,
            &VERSIONS,
            "WorkloadPriorityClass",
            PRIORITY_CLASSES,
        );
        let (kueue, shutdown) = (Arc::clone(self), end.clone());
        watches.spawn(async move {
            let trim = |_: PartialObjectMeta<DynamicObject>| Some(());
            follow(api, &kueue.priority_classes, trim, || false, shutdown).await;
        });
        let api = fixed(Api::<ConfigMap>::namespaced(client.clone(), &self.config.namespace));
        let (kueue, shutdown) = (Arc::clone(self), end.clone());
        watches.spawn(async move {
            follow(api, &kueue.settings, |map| kueue.settings_of(map), || false, shutdown).await;
        });
    }

    /// The state of each store.
    pub(crate) fn status(&self) -> [CacheStatus; 3] {
        [
            self.local_queues.status(),
            self.priority_classes.status(),
            self.settings.status(),
        ]
    }

    /// The `LocalQueues`: `spec.stopPolicy` and the conditions.
    pub fn local_queues(&self) -> &Store<Value> {
        &self.local_queues
    }

    /// Which `WorkloadPriorityClasses` exist.
    pub fn priority_classes(&self) -> &Store<()> {
        &self.priority_classes
    }

    /// Whether Kueue manages Jobs of a namespace with these labels. Without its configuration: whether it would by default.
    pub fn manages(&self, namespace_labels: &BTreeMap<String, String>) -> bool {
        let ConfigRef { namespace, name } = &self.config;
        match self.settings.get(namespace, name) {
            Some(settings) => settings.manages(namespace_labels),
            None => Settings::of_namespace(namespace).manages(namespace_labels),
        }
    }

    /// Kueue for a new Job in a namespace with these labels.
    pub fn info(&self, namespace: &str, namespace_labels: &BTreeMap<String, String>) -> KueueInfo {
        let names = |installed: Option<bool>, names: BTreeSet<String>| installed.filter(|known| *known).map(|_| names);
        let installed = self.local_queues.is_installed();
        KueueInfo {
            manages_namespace: Some(self.manages(namespace_labels)),
            installed,
            local_queues: names(installed, self.local_queues.names_in(namespace)),
            priority_classes: names(self.priority_classes.is_installed(), self.priority_classes.names_in("")),
        }
    }

    fn settings_of(&self, map: ConfigMap) -> Option<Settings> {
        let text = map.data?.remove(ConfigRef::KEY)?;
        let settings = Settings::read(&self.config.namespace, &text);
        settings
            .inspect_err(|error| {
                warn!(%error, config = %self.config, "Kueue's configuration is not understood; its defaults are assumed");
            })
            .ok()
    }
}

fn trim_local_queue(queue: &DynamicObject) -> Value {
    json!({
        "spec": only_fields(queue.data.get("spec"), &["stopPolicy"]),
        "status": only_fields(queue.data.get("status"), &["conditions"]),
    })
}
