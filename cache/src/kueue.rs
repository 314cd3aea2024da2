//! Kueue, as far as the review of a Job and the condition of a queued Task depend on it: the `LocalQueues`, the names of the
//! `WorkloadPriorityClasses`, and which namespaces Kueue manages.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    future::pending,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::ConfigMap, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
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

/// The CRD whose existence shows that Kueue is installed.
const CRD: &str = "workloads.kueue.x-k8s.io";

/// The stores of Kueue's kinds. They are empty while Kueue is not installed.
#[derive(Debug)]
pub struct KueueStores {
    config: ConfigRef,
    /// The generation of [`CRD`], while it exists.
    crd: Store<i64>,
    local_queues: Store<Value>,
    priority_classes: Store<()>,
    /// At most one.
    settings: Store<KueueConfig>,
}

/// Kueue's configuration.
#[derive(Debug, PartialEq, Eq)]
enum KueueConfig {
    Read(Settings),
    /// It exists, and is not understood.
    Unreadable,
}

impl KueueStores {
    /// Empty stores; Kueue's configuration is in `config`.
    pub(crate) fn new(config: ConfigRef) -> Self {
        let fields = format!("metadata.name={}", config.name);
        Self {
            config,
            crd: Store::new("customresourcedefinitions").selecting(format!("metadata.name={CRD}")),
            local_queues: Store::new(LOCAL_QUEUES),
            priority_classes: Store::new(PRIORITY_CLASSES),
            settings: Store::new("configmaps").selecting(fields),
        }
    }

    /// Follows the API server until `end`. While Kueue is not installed, this sends no request.
    ///
    /// RBAC: `list` and `watch` on customresourcedefinitions (of the one name), on localqueues and workloadpriorityclasses,
    /// cluster-wide, and on the ConfigMap with Kueue's configuration.
    pub(crate) fn follow(self: &Arc<Self>, client: &Client, end: &CancellationToken, watches: &mut JoinSet<()>) {
        let api = fixed(Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone()));
        let (kueue, shutdown) = (Arc::clone(self), end.clone());
        watches.spawn(async move {
            let trim = |crd: PartialObjectMeta<_>| Some(crd.metadata.generation.unwrap_or_default());
            follow(api, &kueue.crd, trim, || false, shutdown).await;
        });
        let api = fixed(Api::<ConfigMap>::namespaced(client.clone(), &self.config.namespace));
        let (kueue, shutdown) = (Arc::clone(self), end.clone());
        watches.spawn(async move {
            follow(api, &kueue.settings, |map| kueue.settings_of(map), || false, shutdown).await;
        });
        let api = of_group(client.clone(), GROUP, &VERSIONS, "LocalQueue", LOCAL_QUEUES);
        let (kueue, shutdown) = (Arc::clone(self), end.clone());
        watches.spawn(async move {
            let trim = |queue| Some(trim_local_queue(&queue));
            kueue
                .follow_while_installed(api, &kueue.local_queues, trim, shutdown)
                .await;
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
            kueue
                .follow_while_installed(api, &kueue.priority_classes, trim, shutdown)
                .await;
        });
    }

    /// Follows a kind of Kueue while the CRD exists, anew for each generation of it: another one may serve other versions.
    async fn follow_while_installed<K, T, F>(
        &self,
        find: impl Fn() -> F,
        store: &Store<T>,
        trim: impl Fn(K) -> Option<T>,
        end: CancellationToken,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        T: PartialEq,
        F: Future<Output = kube::Result<Api<K>>>,
    {
        let following = async {
            self.crd.wait_until_current().await;
            let mut crds = self.crd.subscribe();
            let mut installed = crds.next().await.is_some_and(|crds| !crds.is_empty());
            loop {
                let working = async {
                    if installed {
                        return follow(&find, store, &trim, || false, end.clone()).await;
                    }
                    store.uninstalled();
                    pending::<()>().await;
                };
                tokio::select! {
                    () = working => return,
                    changes = crds.next() => installed = changes.iter().flatten().any(|change| change.new.is_some()),
                }
            }
        };
        end.run_until_cancelled(following).await;
    }

    /// The state of each store.
    pub(crate) fn status(&self) -> [CacheStatus; 3] {
        [
            self.local_queues.status(),
            self.priority_classes.status(),
            self.settings.status(),
        ]
    }

    /// The kind that admission still waits for. Its configuration decides whether a Job is changed; where it may not be read, its
    /// defaults are assumed.
    pub(crate) fn pending(&self) -> Option<&'static str> {
        self.settings.is_pending().then(|| self.settings.status().kind)
    }

    /// The `LocalQueues`: `spec.stopPolicy` and the conditions.
    pub fn local_queues(&self) -> &Store<Value> {
        &self.local_queues
    }

    /// Which `WorkloadPriorityClasses` exist.
    pub fn priority_classes(&self) -> &Store<()> {
        &self.priority_classes
    }

    /// Whether Kueue manages Jobs of a namespace with these labels. Without a readable configuration: whether it would by default.
    pub fn manages(&self, namespace_labels: &BTreeMap<String, String>) -> bool {
        let ConfigRef { namespace, name } = &self.config;
        match self.settings.get(namespace, name).as_deref() {
            Some(KueueConfig::Read(settings)) => settings.manages(namespace_labels),
            Some(KueueConfig::Unreadable) | None => Settings::of_namespace(namespace).manages(namespace_labels),
        }
    }

    /// Whether Kueue's configuration exists and is not understood.
    fn is_config_unreadable(&self) -> bool {
        let ConfigRef { namespace, name } = &self.config;
        let config = self.settings.get(namespace, name);
        config.is_some_and(|config| *config == KueueConfig::Unreadable)
    }

    /// Kueue for a new Job in a namespace with these labels.
    pub fn info(&self, namespace: &str, namespace_labels: &BTreeMap<String, String>) -> KueueInfo {
        let names = |installed: Option<bool>, names: BTreeSet<String>| installed.filter(|known| *known).map(|_| names);
        let installed = self.local_queues.is_installed();
        KueueInfo {
            manages_namespace: Some(self.manages(namespace_labels)),
            config_unreadable: self.is_config_unreadable(),
            installed,
            local_queues: names(installed, self.local_queues.names_in(namespace)),
            priority_classes: names(self.priority_classes.is_installed(), self.priority_classes.names_in("")),
        }
    }

    fn settings_of(&self, map: ConfigMap) -> Option<KueueConfig> {
        let text = map.data?.remove(ConfigRef::KEY)?;
        Some(match Settings::read(&self.config.namespace, &text) {
            Ok(settings) => KueueConfig::Read(settings),
            Err(error) => {
                warn!(%error, config = %self.config, "Kueue's configuration is not understood: no Job is queued");
                KueueConfig::Unreadable
            }
        })
    }
}

fn trim_local_queue(queue: &DynamicObject) -> Value {
    json!({
        "spec": only_fields(queue.data.get("spec"), &["stopPolicy"]),
        "status": only_fields(queue.data.get("status"), &["conditions"]),
    })
}
