//! Tells each Task how far its Job is in Kueue's queue (seed 002): condition `Queued`, Event, metric.
//!
//! ```text
//! Jobs ─┬─→ reconcile ── queue_state (policy) ── tell: condition, Event, metric
//! Kueue ┘   Workloads, LocalQueues, WorkloadPriorityClasses, if it is installed
//! ```
//!
//! It changes nothing but that condition: what Kueue does with a Job is Kueue's business. But a Job that Kueue deactivated
//! may be failed, if the policy wants that.

mod condition;
mod deactivated;
mod kueue;
mod metrics;
mod table;
mod tell;
mod trim;

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt as _, channel::mpsc, future::join4};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1, core::v1::ConfigMap};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _, applier,
        controller::{self, Action, ReconcileRequest},
        reflector::{self, ObjectRef, Store},
        watcher,
        watcher::Event,
    },
};
use serde_json::Value;
use taskgate_api::{
    condition::{Condition, QUEUED},
    job::Job,
    kelos::{self, Task},
    kueue::{ConfigRef, Settings, Workload},
    metadata::{Metadata, Owner},
};
use taskgate_policy::{InstalledKueue, QueueContext, QueueObservation, QueueReason, QueueState, queue_state};
use tokio::time::sleep;
use tracing::{debug, warn};

pub(crate) use metrics::Metrics;

use self::{
    kueue::{Changed, Kueue, Seen},
    tell::{Told, tell},
};
use crate::{
    context::Context,
    error::{Error, is_absent},
    named,
    tasks::{json_of, namespace_of},
    unwinding::Unwinding,
};

/// How many Jobs are looked at at the same time.
const CONCURRENCY: u16 = 8;
/// Until a failed look is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// When to look again after somebody else wrote the Task.
const SOON: Duration = Duration::from_millis(200);

/// What a look at a Job needs.
struct Queueing {
    context: Arc<Context>,
    tasks: Store<DynamicObject>,
    kueue: Kueue,
}

/// Keeps the condition of every Task that has a Job. `tasks` are the Tasks, as they are known elsewhere.
///
/// RBAC: `list` and `watch` on jobs; `get` on tasks, `patch` on their status; `get` on the ConfigMap with Kueue's
/// configuration; and what [`Kueue::follow`] needs.
pub(crate) async fn run(context: Arc<Context>, tasks: Store<DynamicObject>) {
    let job_kind = ApiResource::erase::<v1::Job>(&());
    let writer = reflector::store::Writer::<DynamicObject>::new(job_kind.clone());
    let jobs = writer.as_reader();
    let client = context.client.clone();
    let queueing = Arc::new(Queueing {
        context,
        tasks,
        kueue: Kueue::default(),
    });
    let (wake, woken) = mpsc::unbounded::<ReconcileRequest<DynamicObject>>();
    let reference = |namespace: &str, name: &str| ObjectRef::new_with(name, job_kind.clone()).within(namespace);

    let api = Api::<DynamicObject>::all_with(client.clone(), &job_kind);
    let watch = watcher(api, watcher::Config::default().labels(kelos::TASK_LABEL));
    let watch = watch.default_backoff().modify(trim::job);
    let (leave, left) = mpsc::unbounded();
    let following_jobs = reflector::reflector(writer, watch).for_each(|event| {
        match event {
            Ok(Event::Apply(job) | Event::InitApply(job)) => {
                let _ = wake.unbounded_send(ObjectRef::from_obj_with(&job, job_kind.clone()).into());
            }
            Ok(Event::Delete(job)) => {
                let _ = leave.unbounded_send(job);
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => debug!(%error, "the watch of Jobs is interrupted"),
        }
        ready(())
    });
    let unwinding = Arc::new(Unwinding::new("queue", &queueing.context.metrics));
    let leaving = left.for_each_concurrent(usize::from(CONCURRENCY), |job| {
        let (queueing, unwinding) = (Arc::clone(&queueing), Arc::clone(&unwinding));
        async move {
            let json = json_of(&job);
            // The Job is gone: there is nothing to try again.
            if let Ok(Err(error)) = unwinding.caught(job.uid(), queueing.gone(&json)).await {
                warn!(%error, source = %error.source, name = job.name_any(), "its Task was not told that the Job is gone");
            }
        }
    });
    let following_kueue = queueing.kueue.follow(&client, |changed| {
        if let Changed::Job(namespace, name) = &changed {
            let _ = wake.unbounded_send(reference(namespace, name).into());
            return;
        }
        for job in jobs.state().iter().filter(|job| concerns(&changed, job)) {
            let _ = wake.unbounded_send(ObjectRef::from_obj_with(&**job, job_kind.clone()).into());
        }
    });
    let failed = |job: Arc<DynamicObject>, error: &Error, _| {
        warn!(%error, source = %error.source, name = job.name_any(), "tried again soon");
        Action::requeue(RETRY)
    };
    let looking = async {
        // An error means that the watch was dropped, and then this is dropped as well.
        let _ = queueing.tasks.wait_until_ready().await;
        applier(
            |job, queueing| {
                let unwinding = Arc::clone(&unwinding);
                Box::pin(async move {
                    let reconcile = Box::pin(reconcile(Arc::clone(&job), queueing));
                    unwinding.action(job.uid(), reconcile).await
                })
            },
            failed,
            Arc::clone(&queueing),
            jobs.clone(),
            woken.map(Ok::<_, Error>),
            controller::Config::default().concurrency(CONCURRENCY),
        )
        .for_each(|_| ready(()))
        .await;
    };
    join4(following_jobs, leaving, following_kueue, looking).await;
}

/// Whether what changed may change what is to be said of `job`.
fn concerns(changed: &Changed, job: &DynamicObject) -> bool {
    let label = |key: &str| job.labels().get(key).map(String::as_str);
    match changed {
        Changed::Job(namespace, name) => job.namespace().as_ref() == Some(namespace) && job.name_any() == *name,
        Changed::Queue(namespace, name) => {
            job.namespace().as_ref() == Some(namespace) && label(taskgate_api::kueue::QUEUE_NAME) == Some(name)
        }
        Changed::Class(name) => label(taskgate_api::kueue::PRIORITY_CLASS) == Some(name),
        Changed::All => true,
    }
}

async fn reconcile(job: Arc<DynamicObject>, queueing: Arc<Queueing>) -> Result<Action, Error> {
    let job = json_of(&job);
    if queueing.context.policies.is_opted_out(namespace_of(&job)) {
        return Ok(Action::await_change());
    }
    let (Some(owner), Some(seen)) = (Job::of(&job).task(), queueing.kueue.look(&job)) else {
        return Ok(Action::await_change());
    };
    let now = Timestamp::now();
    let mut look = queue_state(&scene(&job, &seen, None, now));
    if let QueueObservation::State(state) = &look
        && state.reason == QueueReason::NotNoticed
    {
        let manages = queueing.manages(namespace_of(&job)).await?;
        look = queue_state(&scene(&job, &seen, Some(manages), now));
    }
    let state = match look {
        QueueObservation::Nothing => return Ok(Action::await_change()),
        QueueObservation::Later(at) => {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            return Ok(Action::requeue(wait.max(SOON)));
        }
        QueueObservation::State(state) => state,
    };
    let Some(task) = queueing.task(namespace_of(&job), &owner).await? else {
        return Ok(Action::await_change());
    };
    if tell(&queueing.context, &task, &job, &state).await? == Told::Conflict {
        return Ok(Action::requeue(SOON));
    }
    let workload = seen.workload.as_deref().map(Workload::of);
    if state.reason == QueueReason::Deactivated
        && workload.is_some_and(|workload| deactivated::is_settled(&job, workload))
    {
        return deactivated::end(&queueing.context, &task, &state.message).await;
    }
    Ok(Action::await_change())
}

fn scene<'a>(job: &'a Value, seen: &'a Seen, manages_namespace: Option<bool>, now: Timestamp) -> QueueContext<'a> {
    QueueContext {
        job,
        workload: seen.workload.as_deref(),
        kueue: seen.kueue.as_ref().map(|kueue| InstalledKueue {
            since: kueue.since,
            local_queue: kueue.local_queue.as_deref(),
            has_class: kueue.has_class,
            manages_namespace,
        }),
        now,
    }
}

impl Queueing {
    /// The Task that owns a Job; one that the cache does not have may be younger than it.
    async fn task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Value>, Error> {
        let key = ObjectRef::new_with(owner.name, self.context.task_kind.clone()).within(namespace);
        let task = if let Some(task) = self.tasks.get(&key) {
            Some(json_of(&task))
        } else {
            let found = named::object(&self.context.tasks(namespace), owner.name).await;
            let found = found.map_err(|error| failed("Task", namespace, owner.name, error))?;
            found.as_ref().map(json_of)
        };
        Ok(task.filter(|task| Metadata::of(task).uid() == Some(owner.uid)))
    }

    /// Tells a Task that ended in the queue, and whose Job was deleted before that was seen, that it does not wait any more.
    async fn gone(&self, job: &Value) -> Result<(), Error> {
        let Some(owner) = Job::of(job).task() else {
            return Ok(());
        };
        if self.context.policies.is_opted_out(namespace_of(job)) {
            return Ok(());
        }
        let waits = |task: &Value| Condition::find(task, QUEUED).is_some_and(Condition::is_true);
        let namespace = namespace_of(job);
        if !self.task(namespace, &owner).await?.as_ref().is_some_and(waits) {
            return Ok(());
        }
        let fresh = named::object(&self.context.tasks(namespace), owner.name).await;
        let fresh = fresh.map_err(|error| failed("Task", namespace, owner.name, error))?;
        // Of a Task that goes on Kelos makes the Job again.
        let Some(task) = fresh.as_ref().map(json_of).filter(|task| Task::of(task).is_terminal()) else {
            return Ok(());
        };
        while tell(&self.context, &task, job, &QueueState::ended()).await? == Told::Conflict {
            sleep(SOON).await;
        }
        Ok(())
    }

    /// Whether Kueue manages a namespace. Without its configuration: whether it would by default.
    async fn manages(&self, namespace: &str) -> Result<bool, Error> {
        let at = &self.context.kueue;
        let maps = Api::<ConfigMap>::namespaced(self.context.client.clone(), &at.namespace);
        let map = match maps.get_opt(&at.name).await {
            Ok(map) => map,
            Err(error) if is_absent(&error) || is_forbidden(&error) => None,
            Err(error) => return Err(failed("ConfigMap", &at.namespace, &at.name, error)),
        };
        let text = map.and_then(|map| map.data?.remove(ConfigRef::KEY));
        let settings = text.map(|text| Settings::read(&at.namespace, &text));
        let settings = settings.and_then(Result::ok);
        let settings = settings.unwrap_or_else(|| Settings::of_namespace(&at.namespace));
        Ok(settings.manages(&self.context.policies.namespace_labels(namespace)))
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn failed(kind: &'static str, namespace: &str, name: &str, error: kube::Error) -> Error {
    Error {
        doing: "reading",
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: Box::new(error),
    }
}
