//! Live reads of Kueue's objects for a Job that is being created. There are few such Jobs, and a cache would need a watch also in
//! clusters without Kueue.
//!
//! RBAC: `get` on `kueue.x-k8s.io` localqueues and workloadpriorityclasses, and on the ConfigMap with Kueue's configuration.
//! Where a read fails, the field stays unknown: Kueue's defaults are assumed and no warning is given.

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

use crate::admission::QueueLookup;

/// Reads Kueue's objects and configuration.
#[derive(Clone)]
pub(super) struct KueueReader {
    client: Client,
    /// `None`: Kueue manages no namespace, and nothing is read.
    config: Option<ConfigRef>,
}

/// The result of a lookup by name.
enum LookupResult {
    Found,
    NotFound,
    /// The API server does not serve the kind.
    NotServed,
}

impl KueueReader {
    pub(super) fn new(client: Client, config: Option<ConfigRef>) -> Self {
        Self { client, config }
    }

    pub(super) async fn info(&self, lookup: QueueLookup<'_>) -> KueueInfo {
        let manages = match &self.config {
            Some(config) => self.settings(config).await.manages(lookup.namespace_labels),
            None => false,
        };
        let mut info = KueueInfo {
            manages_namespace: Some(manages),
            ..KueueInfo::default()
        };
        let Some((queue, class)) = lookup.names.filter(|_| manages) else {
            return info;
        };
        for version in kueue::VERSIONS {
            let resource = resource(version, "LocalQueue", kueue::LOCAL_QUEUES);
            let queues = Api::namespaced_with(self.client.clone(), lookup.namespace, &resource);
            match find(&queues, queue).await {
                None => return info,
                Some(LookupResult::NotServed) => info.installed = Some(false),
                Some(found) => {
                    info.installed = Some(true);
                    info.local_queue = Some(matches!(found, LookupResult::Found));
                    info.priority_class = match class {
                        Some(class) => self.has_class(version, class).await,
                        None => None,
                    };
                    return info;
                }
            }
        }
        info
    }

    async fn has_class(&self, version: &str, name: &str) -> Option<bool> {
        let resource = resource(version, "WorkloadPriorityClass", kueue::PRIORITY_CLASSES);
        let classes = Api::all_with(self.client.clone(), &resource);
        let found = find(&classes, name).await?;
        Some(matches!(found, LookupResult::Found))
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

/// Looks up the object `name`; `None` when the read fails.
async fn find(api: &Api<PartialObjectMeta<DynamicObject>>, name: &str) -> Option<LookupResult> {
    // The name comes from a label, which may contain any label value.
    if !is_object_name(name) {
        return Some(LookupResult::NotFound);
    }
    match api.get(name).await {
        Ok(_) => Some(LookupResult::Found),
        Err(kube::Error::Api(status)) if status.code == 404 => Some(match status.reason.as_str() {
            "NotFound" => LookupResult::NotFound,
            // For a path that is not served, the API server answers in plain text.
            _ => LookupResult::NotServed,
        }),
        Err(error) => {
            debug!(%error, name, "an object of Kueue cannot be read");
            None
        }
    }
}
