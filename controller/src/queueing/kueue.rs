//! The cluster's Kueue: whether it is installed, and its objects, without the fields that no decision reads.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use serde_json::{Value, json};
use taskgate_api::{
    job::Job,
    kueue::{GROUP, LOCAL_QUEUES, PRIORITY_CLASSES, VERSIONS, WORKLOADS, Workload},
    metadata::Metadata,
};
use taskgate_cache::only_fields;
use tracing::{debug, info};

use crate::kubernetes::{
    crd::{served, while_installed},
    json_of,
};

/// The cached objects of Kueue.
#[derive(Debug, Default)]
pub(super) struct KueueCache {
    installation: RwLock<KueueState>,
    workloads: ObjectTable,
    queues: ObjectTable,
    classes: ObjectTable,
}

/// Whether Kueue is installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum KueueState {
    /// Its CRD or its objects are not listed yet.
    #[default]
    Unknown,
    Absent,
    /// It is installed, and its objects are listed since then.
    Listed(Timestamp),
}

/// The objects of Kueue that concern one Job.
pub(super) struct KueueObjects {
    pub(super) workload: Option<Arc<Value>>,
    /// `None`: Kueue is not installed.
    pub(super) queue: Option<JobQueue>,
}

/// The queue of one Job.
pub(super) struct JobQueue {
    pub(super) since: Timestamp,
    pub(super) local_queue: Option<Arc<Value>>,
    pub(super) has_class: bool,
}

/// A change that concerns Jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KueueChange {
    /// The Workload of the Job of this namespace and name.
    Job(String, String),
    /// This `LocalQueue` of this namespace.
    Queue(String, String),
    /// This `WorkloadPriorityClass`.
    Class(String),
    /// Everything.
    All,
}

#[derive(Clone, Copy)]
enum KueueKind {
    Workload,
    Queue,
    Class,
}

impl KueueCache {
    /// The objects that concern `job`; `None` until they are listed.
    pub(super) fn objects_of(&self, job: &Value) -> Option<KueueObjects> {
        let since = match *self.installation.read().unwrap_or_else(PoisonError::into_inner) {
            KueueState::Unknown => return None,
            KueueState::Absent => {
                return Some(KueueObjects {
                    workload: None,
                    queue: None,
                });
            }
            KueueState::Listed(since) => since,
        };
        let metadata = Metadata::of(job);
        let job = Job::of(job);
        let name = job.queue().map(|queue| key(metadata.namespace(), queue));
        let queue = JobQueue {
            since,
            local_queue: name.and_then(|name| self.queues.get(&name)),
            has_class: job
                .priority_class()
                .is_none_or(|class| self.classes.get(class).is_some()),
        };
        Some(KueueObjects {
            workload: metadata.uid().and_then(|uid| self.workloads.get(uid)),
            queue: Some(queue),
        })
    }

    /// Watches Kueue and its objects, and calls `changed` after each change that concerns Jobs. Never ends.
    ///
    /// RBAC: `list` and `watch` on customresourcedefinitions (of the one name), and on Kueue's workloads, localqueues and
    /// workloadpriorityclasses, cluster-wide.
    pub(super) async fn follow(&self, client: &Client, changed: impl Fn(KueueChange)) {
        let absent = || {
            self.set(KueueState::Absent);
            info!("Kueue is not installed");
            changed(KueueChange::All);
        };
        let present = || async {
            self.set(KueueState::Unknown);
            let version = served(client, GROUP, &VERSIONS).await;
            self.follow_kinds(client, version, &changed).await;
        };
        while_installed(client, &format!("{WORKLOADS}.{GROUP}"), absent, present).await;
    }

    async fn follow_kinds(&self, client: &Client, version: &'static str, changed: &impl Fn(KueueChange)) {
        let kinds = [
            objects(client, version, "Workload", WORKLOADS, trim_workload)
                .map(|event| (KueueKind::Workload, event))
                .boxed(),
            objects(client, version, "LocalQueue", LOCAL_QUEUES, trim_local_queue)
                .map(|event| (KueueKind::Queue, event))
                .boxed(),
            objects(client, version, "WorkloadPriorityClass", PRIORITY_CLASSES, trim_class)
                .map(|event| (KueueKind::Class, event))
                .boxed(),
        ];
        let mut unfilled = kinds.len();
        let mut events = stream::select_all(kinds);
        while let Some((kind, event)) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    debug!(%error, "a watch of Kueue is interrupted");
                    continue;
                }
            };
            let listed = matches!(event, Event::InitDone);
            let change = self.apply(kind, event);
            if listed && unfilled > 0 {
                unfilled -= 1;
                if unfilled == 0 {
                    self.set(KueueState::Listed(Timestamp::now()));
                    info!(version, "following Kueue");
                }
            }
            if listed && unfilled == 0 {
                changed(KueueChange::All);
            } else if let Some(change) = change {
                changed(change);
            }
        }
    }

    fn apply(&self, kind: KueueKind, event: Event<DynamicObject>) -> Option<KueueChange> {
        match kind {
            KueueKind::Workload => {
                let uid = |workload: &Value| Some(Workload::of(workload).job()?.uid.to_owned());
                let workload = self.workloads.apply(event, uid)?;
                let namespace = Metadata::of(&workload).namespace()?.to_owned();
                Some(KueueChange::Job(
                    namespace,
                    Workload::of(&workload).job()?.name.to_owned(),
                ))
            }
            KueueKind::Queue => {
                let named = |queue: &Value| {
                    let metadata = Metadata::of(queue);
                    Some(key(metadata.namespace(), metadata.name()?))
                };
                let queue = self.queues.apply(event, named)?;
                let metadata = Metadata::of(&queue);
                Some(KueueChange::Queue(
                    metadata.namespace()?.to_owned(),
                    metadata.name()?.to_owned(),
                ))
            }
            KueueKind::Class => {
                let named = |class: &Value| Some(Metadata::of(class).name()?.to_owned());
                let class = self.classes.apply(event, named)?;
                Some(KueueChange::Class(named(&class)?))
            }
        }
    }

    fn set(&self, installation: KueueState) {
        *self.installation.write().unwrap_or_else(PoisonError::into_inner) = installation;
    }
}

fn key(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

fn objects(
    client: &Client,
    version: &str,
    kind: &str,
    plural: &str,
    trim: fn(&mut DynamicObject),
) -> impl Stream<Item = watcher::Result<Event<DynamicObject>>> + Send + use<> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, kind), plural);
    let api = Api::all_with(client.clone(), &resource);
    watcher(api, watcher::Config::default()).default_backoff().modify(trim)
}

/// Objects of one kind, by a key of their own. While they are listed anew, the old ones are read.
#[derive(Debug, Default)]
struct ObjectTable {
    live: RwLock<HashMap<String, Arc<Value>>>,
    staged: RwLock<HashMap<String, Arc<Value>>>,
}

impl ObjectTable {
    /// The object of `key`.
    fn get(&self, key: &str) -> Option<Arc<Value>> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Applies `event`; returns the object that was created, changed or deleted. `key` gives none for objects that are not kept.
    fn apply(&self, event: Event<DynamicObject>, key: impl Fn(&Value) -> Option<String>) -> Option<Arc<Value>> {
        let (object, table, gone) = match event {
            Event::Init => {
                self.staged.write().unwrap_or_else(PoisonError::into_inner).clear();
                return None;
            }
            Event::InitDone => {
                let staged = std::mem::take(&mut *self.staged.write().unwrap_or_else(PoisonError::into_inner));
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = staged;
                return None;
            }
            Event::InitApply(object) => (object, &self.staged, false),
            Event::Apply(object) => (object, &self.live, false),
            Event::Delete(object) => (object, &self.live, true),
        };
        let object = Arc::new(json_of(&object));
        let key = key(&object)?;
        let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
        if gone {
            table.remove(&key);
        } else {
            table.insert(key, Arc::clone(&object));
        }
        Some(object)
    }
}

/// Keeps these fields of an object, and its metadata.
fn trim(object: &mut DynamicObject, spec: &[&str], status: &[&str]) {
    object.metadata.managed_fields = None;
    object.data = json!({
        "spec": only_fields(object.data.get("spec"), spec),
        "status": only_fields(object.data.get("status"), status),
    });
}

/// Removes from a Job what [`taskgate_policy::queue_state`] does not read, such as the pod template.
pub(super) fn trim_job(object: &mut DynamicObject) {
    trim(object, &["suspend"], &["conditions"]);
}

fn trim_workload(object: &mut DynamicObject) {
    trim(object, &["active"], &["conditions", "admissionChecks", "admission"]);
    // The rest is about single pod sets.
    let admission = only_fields(object.data.pointer("/status/admission"), &["clusterQueue"]);
    object.data["status"]["admission"] = admission;
}

fn trim_local_queue(object: &mut DynamicObject) {
    trim(object, &["stopPolicy"], &["conditions"]);
}

fn trim_class(object: &mut DynamicObject) {
    trim(object, &[], &[]);
}
