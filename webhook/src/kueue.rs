//! What is known of Kueue for a Job that is being made, read at that moment: there are few such Jobs, and a cache would
//! have to be kept, and Kueue looked for, in clusters without any.
//!
//! RBAC: `get` on `kueue.x-k8s.io` localqueues and workloadpriorityclasses, and on the ConfigMap with Kueue's configuration.
//! What cannot be read is not known, and then Kueue's defaults are assumed and nothing is warned of.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
};
use taskgate_api::{
    is_object_name,
    kueue::{self, ConfigRef, Settings},
};
use taskgate_policy::KueueInfo;
use tracing::{debug, warn};

/// What is asked about a Job.
#[derive(Clone, Copy, Debug)]
pub struct QueueQuestion<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// That one's labels.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The `LocalQueue` and the `WorkloadPriorityClass` that it names by now; `None` while it names no queue.
    pub names: Option<(&'a str, Option<&'a str>)>,
}

/// Asks the API server.
#[derive(Clone)]
pub(crate) struct Kueue {
    client: Client,
    /// `None`: it is not asked for anything, and manages nothing.
    config: Option<ConfigRef>,
}

/// What an object's absence means.
enum Presence {
    Here,
    Gone,
    /// Its kind is not served.
    NotServed,
}

impl Kueue {
    pub(crate) fn new(client: Client, config: Option<ConfigRef>) -> Self {
        Self { client, config }
    }

    pub(crate) async fn facts(&self, question: QueueQuestion<'_>) -> KueueInfo {
        let manages = match &self.config {
            Some(config) => self.settings(config).await.manages(question.namespace_labels),
            None => false,
        };
        let mut facts = KueueInfo {
            manages_namespace: Some(manages),
            ..KueueInfo::default()
        };
        let Some((queue, class)) = question.names.filter(|_| manages) else {
            return facts;
        };
        for version in kueue::VERSIONS {
            let resource = resource(version, "LocalQueue", kueue::LOCAL_QUEUES);
            let queues = Api::namespaced_with(self.client.clone(), question.namespace, &resource);
            match presence(&queues, queue).await {
                None => return facts,
                Some(Presence::NotServed) => facts.installed = Some(false),
                Some(found) => {
                    facts.installed = Some(true);
                    facts.local_queue = Some(matches!(found, Presence::Here));
                    facts.priority_class = match class {
                        Some(class) => self.has_class(version, class).await,
                        None => None,
                    };
                    return facts;
                }
            }
        }
        facts
    }

    async fn has_class(&self, version: &str, name: &str) -> Option<bool> {
        let resource = resource(version, "WorkloadPriorityClass", kueue::PRIORITY_CLASSES);
        let classes = Api::all_with(self.client.clone(), &resource);
        let found = presence(&classes, name).await?;
        Some(matches!(found, Presence::Here))
    }

    async fn settings(&self, config: &ConfigRef) -> Settings {
        let ConfigRef { namespace, name } = config;
        let default = || Settings::of_namespace(namespace);
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let map = match maps.get_opt(name).await {
            Ok(map) => map,
            Err(error) => {
                debug!(%error, namespace, name, "Kueue's configuration cannot be read; its defaults are assumed");
                return default();
            }
        };
        let text = map.and_then(|map| map.data?.remove(ConfigRef::KEY));
        let Some(text) = text else { return default() };
        Settings::read(namespace, &text).unwrap_or_else(|error| {
            warn!(%error, namespace, name, "Kueue's configuration is not understood; its defaults are assumed");
            default()
        })
    }
}

fn resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kueue::GROUP, version, kind), plural)
}

/// Whether there is an object of that name; `None` when that cannot be told.
async fn presence(api: &Api<PartialObjectMeta<DynamicObject>>, name: &str) -> Option<Presence> {
    // A label may hold any text that is a label value.
    if !is_object_name(name) {
        return Some(Presence::Gone);
    }
    match api.get(name).await {
        Ok(_) => Some(Presence::Here),
        Err(kube::Error::Api(status)) if status.code == 404 => Some(match status.reason.as_str() {
            "NotFound" => Presence::Gone,
            // A path that nobody serves is answered in plain text.
            _ => Presence::NotServed,
        }),
        Err(error) => {
            debug!(%error, name, "an object of Kueue cannot be read");
            None
        }
    }
}
