//! Kueue as it is seen: whether it is there, and its objects. It is picked up when it is installed, and let go of when it
//! goes, without asking for it in between.

use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use serde_json::Value;
use taskgate_api::{
    job::Job,
    kueue::{GROUP, LOCAL_QUEUES, PRIORITY_CLASSES, VERSIONS, WORKLOADS, Workload},
    metadata::Metadata,
};
use tracing::{debug, info};

use super::{table::Table, trim};
use crate::crd::{served, while_installed};

/// What is known of Kueue.
#[derive(Debug, Default)]
pub(super) struct Kueue {
    presence: RwLock<Presence>,
    workloads: Table,
    queues: Table,
    classes: Table,
}

/// Whether there is a Kueue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Presence {
    /// It is being found out.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// There is one, and its objects are known since then.
    Here(Timestamp),
}

/// What is known about one Job.
pub(super) struct Seen {
    pub(super) workload: Option<Arc<Value>>,
    /// `None`: there is no Kueue.
    pub(super) kueue: Option<SeenQueue>,
}

/// What is known about one Job's queue.
pub(super) struct SeenQueue {
    pub(super) since: Timestamp,
    pub(super) local_queue: Option<Arc<Value>>,
    pub(super) has_class: bool,
}

/// What changed, as far as it concerns Jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
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
enum Kind {
    Workload,
    Queue,
    Class,
}

impl Kueue {
    /// What is known about `job`; `None` while that is being found out.
    pub(super) fn look(&self, job: &Value) -> Option<Seen> {
        let since = match *self.presence.read().unwrap_or_else(PoisonError::into_inner) {
            Presence::Unknown => return None,
            Presence::Absent => {
                return Some(Seen {
                    workload: None,
                    kueue: None,
                });
            }
            Presence::Here(since) => since,
        };
        let metadata = Metadata::of(job);
        let job = Job::of(job);
        let queue = job.queue().map(|queue| key(metadata.namespace(), queue));
        let kueue = SeenQueue {
            since,
            local_queue: queue.and_then(|queue| self.queues.get(&queue)),
            has_class: job
                .priority_class()
                .is_none_or(|class| self.classes.get(class).is_some()),
        };
        Some(Seen {
            workload: metadata.uid().and_then(|uid| self.workloads.get(uid)),
            kueue: Some(kueue),
        })
    }

    /// Follows Kueue for ever. Calls `changed` after each change that concerns Jobs.
    ///
    /// RBAC: `list` and `watch` on customresourcedefinitions (of the one name), and on Kueue's workloads, localqueues and
    /// workloadpriorityclasses, cluster-wide.
    pub(super) async fn follow(&self, client: &Client, changed: impl Fn(Changed)) {
        let absent = || {
            self.enter(Presence::Absent);
            info!("Kueue is not installed");
            changed(Changed::All);
        };
        let present = || async {
            self.enter(Presence::Unknown);
            let version = served(client, GROUP, &VERSIONS).await;
            self.follow_kinds(client, version, &changed).await;
        };
        while_installed(client, &format!("{WORKLOADS}.{GROUP}"), absent, present).await;
    }

    async fn follow_kinds(&self, client: &Client, version: &'static str, changed: &impl Fn(Changed)) {
        let kinds = [
            objects(client, version, "Workload", WORKLOADS, trim::workload)
                .map(|event| (Kind::Workload, event))
                .boxed(),
            objects(client, version, "LocalQueue", LOCAL_QUEUES, trim::local_queue)
                .map(|event| (Kind::Queue, event))
                .boxed(),
            objects(client, version, "WorkloadPriorityClass", PRIORITY_CLASSES, trim::bare)
                .map(|event| (Kind::Class, event))
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
            let told = self.note(kind, event);
            if listed && unfilled > 0 {
                unfilled -= 1;
                if unfilled == 0 {
                    self.enter(Presence::Here(Timestamp::now()));
                    info!(version, "following Kueue");
                }
            }
            if listed && unfilled == 0 {
                changed(Changed::All);
            } else if let Some(told) = told {
                changed(told);
            }
        }
    }

    fn note(&self, kind: Kind, event: Event<DynamicObject>) -> Option<Changed> {
        match kind {
            Kind::Workload => {
                let uid = |workload: &Value| Some(Workload::of(workload).job()?.uid.to_owned());
                let workload = self.workloads.note(event, uid)?;
                let namespace = Metadata::of(&workload).namespace()?.to_owned();
                Some(Changed::Job(namespace, Workload::of(&workload).job()?.name.to_owned()))
            }
            Kind::Queue => {
                let named = |queue: &Value| {
                    let metadata = Metadata::of(queue);
                    Some(key(metadata.namespace(), metadata.name()?))
                };
                let queue = self.queues.note(event, named)?;
                let metadata = Metadata::of(&queue);
                Some(Changed::Queue(
                    metadata.namespace()?.to_owned(),
                    metadata.name()?.to_owned(),
                ))
            }
            Kind::Class => {
                let named = |class: &Value| Some(Metadata::of(class).name()?.to_owned());
                let class = self.classes.note(event, named)?;
                Some(Changed::Class(named(&class)?))
            }
        }
    }

    fn enter(&self, presence: Presence) {
        *self.presence.write().unwrap_or_else(PoisonError::into_inner) = presence;
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
