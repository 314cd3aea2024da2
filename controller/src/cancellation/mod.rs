//! Cancels Tasks (`cancellationPolicy`, or a user's annotation).
//!
//! - `desired`: which Tasks policies want cancelled.
//! - `task`: the writes to the Task. `run`: what runs for it, which is its Job with its pods or the runner of a worker pool.
//! - `siblings`: the Tasks of each item. `capability`: what the installed Kelos can express.
//!
//! The policy crate decides the next step ([`taskgate_policy::cancel_step`]). Every write carries the version or the UID that was
//! read, and each step can be repeated. Imports `source` (observations of items) and the shared modules. Called by `controller`;
//! `breaker` uses `run`.

mod capability;
mod desired;
pub(crate) mod run;
mod siblings;
mod task;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::events::v1::Event,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams, runtime::events::EventType};
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use serde_json::Value;
use taskgate_api::{kelos, metadata::Metadata};
use taskgate_policy::{
    CancelContext, CancelState, CancelStep, CancelTask, Cancellation, TaskRun, cancel_step, requester,
};
use tracing::debug;

use self::run::Running;
use crate::{
    context::Context,
    error::{Error, is_conflict},
    events::reference,
    metrics::{Labels, registered},
    source::Sources,
    task::{Subject, TaskResult},
};

pub(crate) use capability::follow_capability;
pub use capability::{CancelledFields, cancelled_fields};
pub(crate) use desired::follow_sources;

/// Until a Task that cannot be cancelled is reconciled again.
const BLOCKED: SignedDuration = SignedDuration::from_secs(10);
/// The `action` of all Events.
const ACTION: &str = "Cancel";

/// The state of cancellations beside the Tasks' annotations.
pub(crate) struct CancellationReconciler {
    context: Arc<Context>,
    sources: Arc<Sources>,
    metrics: CancellationMetrics,
    /// What the status of the installed Tasks has for a cancelled one.
    cancelled_fields: Mutex<CancelledFields>,
    pub(crate) siblings: siblings::Siblings,
}

/// What the cancellation of a Task leaves to the rest of its reconcile.
pub(crate) enum Cancelling {
    /// The Task is not being cancelled, or there is nothing to do about it.
    Idle,
    /// There is nothing to do before this moment.
    Waiting(Timestamp),
    /// A step was taken.
    Step(TaskResult),
    /// The Task must be deleted once its end is recorded, so that the spawner creates the next one.
    Replace,
}

impl CancellationReconciler {
    pub(crate) fn new(context: Arc<Context>, sources: Arc<Sources>, metrics: CancellationMetrics) -> Self {
        Self {
            context,
            sources,
            metrics,
            cancelled_fields: Mutex::default(),
            siblings: siblings::Siblings::default(),
        }
    }

    /// Takes the next step of the Task's cancellation, if it is to be cancelled.
    ///
    /// `known` is what runs for the Task, as this reconcile read or wrote it: the steps of one reconcile follow each other at once,
    /// and every change that Kelos makes to a Task leads to another one. With `None` it is read where a step depends on it.
    pub(crate) async fn reconcile(&self, subject: &Subject, known: &mut Option<Running>) -> Result<Cancelling, Error> {
        let cancellation = Cancellation::of(&subject.object);
        let task = TaskCancellation {
            reconciler: self,
            context: &self.context,
            subject,
            cancellation: &cancellation,
        };
        match task.follow_policy().await? {
            Some(TaskResult::RequeueAt(moment)) => return Ok(Cancelling::Waiting(moment)),
            Some(result) => return Ok(Cancelling::Step(result)),
            None if cancellation.is_none() => return Ok(Cancelling::Idle),
            None => {}
        }
        let mut inputs = CancelContext {
            cancellation: &cancellation,
            task: CancelTask::of(&subject.object),
            run: None,
            wanted_again: subject.state.must_be_replaced && !cancellation.must_be_replaced(),
            now: self.context.now(),
        };
        let mut step = cancel_step(&inputs);
        let mut found = Running::from(TaskRun::Nothing);
        if step == CancelStep::ReadRun {
            found = match known.take() {
                Some(known) => known,
                None => task.read_run().await?,
            };
            inputs.run = Some(found.run);
            step = cancel_step(&inputs);
        }
        debug!(
            namespace = subject.namespace,
            name = subject.state.name,
            ?step,
            "cancelling"
        );
        match step {
            // With a run, no step asks for it again.
            CancelStep::Idle | CancelStep::ReadRun => {
                *known = inputs.run.map(|_| found);
                Ok(Cancelling::Idle)
            }
            CancelStep::Wait(until) => Ok(Cancelling::Waiting(until)),
            CancelStep::Replace => Ok(Cancelling::Replace),
            CancelStep::Blocked => {
                task.record_blocked().await;
                let again = inputs.now.checked_add(BLOCKED).unwrap_or(inputs.now);
                Ok(Cancelling::Waiting(again))
            }
            step => task.write(step, found, known).await.map(Cancelling::Step),
        }
    }
}

/// A Task and its cancellation, if there is one. Its methods are the single steps.
#[derive(Clone, Copy)]
struct TaskCancellation<'a> {
    reconciler: &'a CancellationReconciler,
    context: &'a Context,
    subject: &'a Subject,
    cancellation: &'a Cancellation,
}

impl TaskCancellation<'_> {
    /// Takes a step that writes. `known` becomes what then runs for the Task, unless that must be read.
    async fn write(&self, step: CancelStep, found: Running, known: &mut Option<Running>) -> Result<TaskResult, Error> {
        match step {
            CancelStep::Announce => self.announce().await,
            CancelStep::SetDeadline => self.set_deadline(&found).await,
            CancelStep::Withdraw => self.withdraw().await,
            CancelStep::Execute => self.progress(CancelState::Cancelling).await,
            CancelStep::ReleaseRunner => run::release_runner(self.context, self.subject, &found).await,
            CancelStep::GiveUp(progress) => self.give_up(progress).await,
            CancelStep::FailJob => {
                *known = self.fail_job(&found).await?;
                Ok(TaskResult::Unchanged)
            }
            CancelStep::FailTask => {
                *known = Some(found);
                self.fail().await
            }
            CancelStep::Conclude => {
                *known = Some(found);
                self.conclude().await
            }
            CancelStep::DeleteJob => {
                let (result, left) = self.delete_job(&found).await?;
                *known = left;
                Ok(result)
            }
            CancelStep::Idle
            | CancelStep::ReadRun
            | CancelStep::Wait(_)
            | CancelStep::Replace
            | CancelStep::Blocked => Ok(TaskResult::Unchanged),
        }
    }

    /// Records once why the Task cannot be cancelled, and what a user can do.
    async fn record_blocked(&self) {
        let note = format!(
            "asked for by {}, but Kelos has not created the Task's Job, or a Job of another owner has its name. Failing the \
             Task without its Job would keep its branch locked: find out why Kelos creates no Job, or delete the Task",
            requester(self.cancellation)
        );
        self.record_once(EventType::Warning, "CancelBlocked", &note).await;
    }

    /// Records an Event that a Task may get several times.
    fn record(&self, reason: &str, note: &str) {
        let regarding = reference(&self.subject.object);
        let events = &self.context.events;
        events.publish(EventType::Normal, reason, ACTION, note, &regarding);
    }

    /// Records an Event that a Task gets once, however often and by whichever replica this is called: its name is made of the Task
    /// and the reason.
    async fn record_once(&self, type_: EventType, reason: &str, note: &str) {
        let Self { context, subject, .. } = *self;
        // A Task's name may be as long as an Event's.
        let name: String = subject.state.name.chars().take(150).collect();
        let name = name.trim_end_matches(['-', '.']);
        let type_ = match type_ {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{}.{}", subject.state.uid, reason.to_lowercase())),
                namespace: Some(subject.namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some(ACTION.to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(taskgate_policy::note(note)),
            type_: Some(type_.to_owned()),
            event_time: Some(MicroTime(context.now())),
            regarding: Some(reference(&subject.object)),
            reporting_controller: Some("taskgate".to_owned()),
            reporting_instance: Some(context.identity.clone()),
            ..Event::default()
        };
        let events = Api::<Event>::namespaced(context.client.clone(), &subject.namespace);
        match events.create(&PostParams::default(), &event).await {
            Err(error) if !is_conflict(&error) => debug!(%error, reason, "the Event was not recorded"),
            _ => {}
        }
    }
}

/// The metrics of cancellations. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CancellationMetrics {
    /// By `namespace`, `type`, `spawner` and `phase`, the labels that Kelos gives the metric since August 2026.
    completed: Family<Labels<4, String>, Counter>,
    /// By `trigger`.
    cancellations: Family<Labels<1>, Counter>,
}

impl CancellationMetrics {
    /// One metric has the name that Kelos gives it, the other is under `prefix`.
    pub(crate) fn register(registry: &mut Registry, prefix: &str) -> Self {
        Self {
            completed: registered(
                registry,
                "kelos_task_completed",
                "Tasks that were cancelled, with the labels of Kelos' own counter, which has them as Failed",
            ),
            cancellations: registered(
                registry.sub_registry_with_prefix(prefix),
                "cancellations",
                "Tasks that were cancelled, by trigger",
            ),
        }
    }

    /// The Task `object` was cancelled. A Kelos that knows cancelled Tasks counts them as such itself.
    fn cancelled(&self, object: &Value, trigger: &'static str, known_to_kelos: bool) {
        self.cancellations.get_or_create(&[("trigger", trigger)]).inc();
        if !known_to_kelos {
            let (task, metadata) = (kelos::Task::of(object), Metadata::of(object));
            let labels = [
                ("namespace", metadata.namespace().unwrap_or_default()),
                ("type", task.agent_type().unwrap_or_default()),
                // As Kelos does: the label, also of a Task with another owner.
                ("spawner", metadata.label(kelos::SPAWNER_LABEL).unwrap_or_default()),
                ("phase", kelos::CANCELLED),
            ];
            let labels = labels.map(|(label, value)| (label, value.to_owned()));
            self.completed.get_or_create(&labels).inc();
        }
    }
}
