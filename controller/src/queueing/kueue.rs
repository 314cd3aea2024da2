//! The cluster's Kueue: whether it is installed, its Workloads, and the `LocalQueues` and priority classes of the cluster cache.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
};

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use serde_json::{Value, json};
use taskgate_api::{
    job::Job,
    kueue::{GROUP, VERSIONS, WORKLOADS, Workload},
    metadata::Metadata,
};
use taskgate_cache::{Clock, KueueStores, only_fields};
use tracing::{debug, info};

use crate::kubernetes::{
    crd::{served, while_installed},
    json_of,
};

/// The cached objects of Kueue.
#[derive(Debug)]
pub(super) struct KueueCache {
    installation: RwLock<KueueState>,
    /// By the UID of their Job.
    workloads: RwLock<HashMap<String, Arc<Value>>>,
    stores: Arc<KueueStores>,
    clock: Clock,
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

impl KueueCache {
    /// Without Workloads yet.
    pub(super) fn new(stores: Arc<KueueStores>, clock: Clock) -> Self {
        Self {
            installation: RwLock::default(),
            workloads: RwLock::default(),
            stores,
            clock,
        }
    }

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
        let (queues, classes) = (self.stores.local_queues(), self.stores.priority_classes());
        let queue = JobQueue {
            since,
            local_queue: job
                .queue()
                .and_then(|queue| queues.get(metadata.namespace().unwrap_or_default(), queue)),
            has_class: job
                .priority_class()
                .is_none_or(|class| classes.get("", class).is_some()),
        };
        let workloads = self.workloads.read().unwrap_or_else(PoisonError::into_inner);
        Some(KueueObjects {
            workload: metadata.uid().and_then(|uid| workloads.get(uid).cloned()),
            queue: Some(queue),
        })
    }

    /// Watches Kueue and its Workloads, and calls `changed` after each change that concerns Jobs. Never ends.
    ///
    /// RBAC: `list` and `watch` on customresourcedefinitions (of the one name), and on Kueue's workloads, cluster-wide.
    pub(super) async fn follow(&self, client: &Client, changed: impl Fn(KueueChange)) {
        let absent = || {
            self.set(KueueState::Absent);
            info!("Kueue is not installed");
            changed(KueueChange::All);
        };
        let present = || async {
            self.set(KueueState::Unknown);
            let version = served(client, GROUP, &VERSIONS).await;
            self.stores.local_queues().wait_until_followed().await;
            self.stores.priority_classes().wait_until_followed().await;
            self.follow_kinds(client, version, &changed).await;
        };
        while_installed(client, &format!("{WORKLOADS}.{GROUP}"), absent, present).await;
    }

    async fn follow_kinds(&self, client: &Client, version: &'static str, changed: &impl Fn(KueueChange)) {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, "Workload"), WORKLOADS);
        let api = Api::all_with(client.clone(), &resource);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = pin!(events.modify(trim_workload));
        let mut queues = self.stores.local_queues().subscribe();
        let mut classes = self.stores.priority_classes().subscribe();
        // What they have already concerns Jobs once the Workloads are listed.
        let _ = (queues.next().await, classes.next().await);
        let mut listed = HashMap::new();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.apply(event, &mut listed, version, changed),
                    Some(Err(error)) => debug!(%error, "the watch of Kueue's Workloads is interrupted"),
                    None => return,
                },
                Some(batch) = queues.next() => for queue in batch {
                    changed(KueueChange::Queue(queue.key.namespace, queue.key.name));
                },
                Some(batch) = classes.next() => for class in batch {
                    changed(KueueChange::Class(class.key.name));
                },
            }
        }
    }

    /// Applies an event of the Workloads. While they are listed anew, into `listed`, the old ones are read.
    fn apply(
        &self,
        event: Event<DynamicObject>,
        listed: &mut HashMap<String, Arc<Value>>,
        version: &'static str,
        changed: &impl Fn(KueueChange),
    ) {
        let mut live = self.workloads.write().unwrap_or_else(PoisonError::into_inner);
        let change = match event {
            Event::Init => {
                listed.clear();
                None
            }
            Event::InitApply(object) => {
                put(listed, &object);
                None
            }
            Event::InitDone => {
                *live = std::mem::take(listed);
                Some(KueueChange::All)
            }
            Event::Apply(object) => put(&mut live, &object),
            Event::Delete(object) => remove(&mut live, &object),
        };
        drop(live);
        if change == Some(KueueChange::All) {
            self.set_listed(version);
        }
        change.into_iter().for_each(changed);
    }

    fn set_listed(&self, version: &'static str) {
        let mut state = self.installation.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, KueueState::Listed(_)) {
            *state = KueueState::Listed(self.clock.now());
            info!(version, "following Kueue");
        }
    }

    fn set(&self, installation: KueueState) {
        *self.installation.write().unwrap_or_else(PoisonError::into_inner) = installation;
    }
}

/// Adds or replaces a Workload, if it is that of a Job; the change of that Job.
fn put(workloads: &mut HashMap<String, Arc<Value>>, object: &DynamicObject) -> Option<KueueChange> {
    let workload = json_of(object);
    let (uid, change) = job_of(&workload)?;
    workloads.insert(uid, Arc::new(workload));
    Some(change)
}

/// Removes a deleted Workload.
fn remove(workloads: &mut HashMap<String, Arc<Value>>, object: &DynamicObject) -> Option<KueueChange> {
    let (uid, change) = job_of(&json_of(object))?;
    workloads.remove(&uid);
    Some(change)
}

/// The UID of the Workload's Job, and the change that concerns it.
fn job_of(workload: &Value) -> Option<(String, KueueChange)> {
    let job = Workload::of(workload).job()?;
    let namespace = Metadata::of(workload).namespace()?;
    let change = KueueChange::Job(namespace.to_owned(), job.name.to_owned());
    Some((job.uid.to_owned(), change))
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
