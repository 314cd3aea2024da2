//! The reconcile of one object: of a failed run that is not being retried yet, and of a run that succeeded.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::{
    Mode, WorkItem, WorkItemStatus,
    foreman::ANNOTATION_PREFIX,
    kelos::Task,
    retry_status::{RetryStatus, Transition},
    task_policy::RetriedKind,
    work_item::{Attempt, Outcome},
};
use taskgate_policy::{
    Ending, TaskState,
    retry::{
        self, FailedRunAction, FailedRunContext, FailureCause, Retried, RunPhase, SourceState, Stopped, attempt_number,
        failed_run_action,
    },
};

use super::{
    RetryReconciler, RetryRule,
    events::{self, RetryEvent},
    objects::{self, ObjectKey},
    reads::{failure, object, resource},
    transition::after,
};
use crate::{
    breaker::requests,
    context::ItemRef,
    error::Error,
    work_items::{self, WorkItemResult, retry_status},
};

/// For how long after its end Kelos looks for the outputs of a Task that left none (kelos §6.6).
const CAPTURE: SignedDuration = SignedDuration::from_secs(35);
/// Until a retry is tried again for which no slot is free.
const NO_SLOT: SignedDuration = SignedDuration::from_secs(2);

/// Reads one object of `item`, and takes its next step.
pub(super) async fn reconcile(
    retry: &RetryReconciler,
    key: &ItemRef,
    item: Option<&WorkItem>,
    (kind, name): &ObjectKey,
) -> Result<WorkItemResult, Error> {
    let Some(resource) = resource(retry, *kind) else {
        return Ok(WorkItemResult::AwaitChange);
    };
    let value = object(retry, (*kind, &resource), &key.0, name).await?;
    let Some(retried) = value.as_ref().and_then(|value| Retried::of(*kind, value)) else {
        return Ok(WorkItemResult::AwaitChange);
    };
    if let Some(item) = item.filter(|_| *kind == RetriedKind::Task) {
        let used = |status: &WorkItemStatus, _| taskgate_policy::add_late_usage(status, retried.object());
        let written = work_items::write(&retry.context, item, used).await?;
        if !matches!(written, WorkItemResult::Unchanged) {
            return Ok(written);
        }
    }
    let ended = EndedRun {
        retry,
        key,
        item,
        retried,
    };
    if ended.has_moved() {
        return ended.revived().await;
    }
    match retried.phase() {
        RunPhase::Failed => ended.failed().await,
        RunPhase::Succeeded => ended.succeeded().await,
        RunPhase::Active if retried.is_revived() => ended.revived().await,
        RunPhase::Active | RunPhase::Cancelled => Ok(WorkItemResult::AwaitChange),
    }
}

/// A run that ended, or that runs again, and its item.
struct EndedRun<'a> {
    retry: &'a RetryReconciler,
    key: &'a ItemRef,
    item: Option<&'a WorkItem>,
    retried: Retried<'a>,
}

impl EndedRun<'_> {
    async fn failed(&self) -> Result<WorkItemResult, Error> {
        let Self { retry, retried, .. } = *self;
        if self.breaker_comes_first() {
            return Ok(WorkItemResult::AwaitChange);
        }
        let rule = retry.rule_of(&self.key.0, retried);
        let retry_state = self.item.map(retry_status).unwrap_or_default();
        let status = self.item.and_then(|item| item.status.as_ref());
        let order = self.item.and_then(requests::requested_retry);
        let cause = self.recorded_cause(&retry_state).await?;
        let mut inputs = FailedRunContext {
            object: retried,
            status: &retry_state,
            asked: order.as_ref().map(|(order, by)| (order, *by)),
            rule: rule
                .as_ref()
                .map(|found| (found.policy.as_str(), found.mode, &found.rule)),
            cause: cause.as_ref(),
            infrastructure_failures: status.map_or(0, |status| status.infrastructure_failures),
            settles: settles(retried, self.retry.context.now()),
            source: None,
            now: self.retry.context.now(),
        };
        let mut step = failed_run_action(&inputs);
        let mut source_error = None;
        if let FailedRunAction::ReadSource(origin) = &step {
            let Some(is_open) = retry.queries.answer(self.key, retried.uid(), origin) else {
                return Ok(WorkItemResult::AwaitChange);
            };
            inputs.source = Some(match is_open {
                Ok(true) => SourceState::Open,
                Ok(false) => SourceState::Closed,
                Err(_) => SourceState::Unknown,
            });
            source_error = is_open.err();
            step = failed_run_action(&inputs);
        }
        let result = self.take_step(rule.as_ref(), step).await?;
        if let (WorkItemResult::Changed(now), Some(error)) = (&result, source_error) {
            events::record_unknown_source(retry, now, &retried.run(), &error);
        }
        Ok(result)
    }

    /// Reads the cause of a failure that is recorded: the Workload may have run again meanwhile. A Task stays as it ended.
    async fn recorded_cause(&self, status: &RetryStatus) -> Result<Option<FailureCause>, Error> {
        let Self { retry, retried, .. } = *self;
        let is_recorded = status.failure.is_some() && status.run.as_ref().is_some_and(|run| run.uid == retried.uid());
        if retried.kind() != RetriedKind::Workload || !is_recorded {
            return Ok(None);
        }
        failure(retry, &self.key.0, retried).await
    }

    async fn take_step(&self, rule: Option<&RetryRule>, step: FailedRunAction) -> Result<WorkItemResult, Error> {
        let uid = self.retried.uid();
        match (step, self.item) {
            (FailedRunAction::Nothing | FailedRunAction::ReadSource(_), _)
            | (FailedRunAction::Schedule(_) | FailedRunAction::GiveUp(_) | FailedRunAction::Begin(_), None) => {
                Ok(WorkItemResult::AwaitChange)
            }
            (FailedRunAction::Wait(until), _) => Ok(WorkItemResult::RequeueAt(until)),
            (FailedRunAction::Record, None) => {
                let identity = objects::identity(self.retry, self.retried);
                let item = identity.work_item(&identity.work_item_name());
                self.retry.breaker.create(&self.key.0, &item).await
            }
            (FailedRunAction::Record, Some(item)) => self.record(rule, item).await,
            (FailedRunAction::Schedule(next), Some(item)) => {
                let change = |status: &WorkItemStatus, now| retry::scheduled(status, uid, next, now);
                work_items::write(&self.retry.context, item, change).await
            }
            (FailedRunAction::GiveUp(why), Some(item)) => {
                let change = |status: &WorkItemStatus, now| retry::gave_up(status, uid, why, now);
                self.write(item, RetryEvent::GivenUp(why), change).await
            }
            (FailedRunAction::Begin(transition), Some(item)) => {
                if let Some(result) = self.not_now(rule, item, &transition) {
                    return Ok(result);
                }
                let change = |status: &WorkItemStatus, now| retry::begun(status, &transition, now);
                self.write(item, RetryEvent::Planned, change).await
            }
        }
    }

    async fn record(&self, rule: Option<&RetryRule>, item: &WorkItem) -> Result<WorkItemResult, Error> {
        let Self { retry, retried, .. } = *self;
        let Some(failure) = failure(retry, &self.key.0, retried).await? else {
            return Ok(WorkItemResult::AwaitChange);
        };
        let prefix = rule.map_or(ANNOTATION_PREFIX, |found| &found.rule.annotation_prefix);
        let number = attempt_number(&retry_status(item), retried.uid(), retried.stated_attempt(prefix));
        let (outcome, reason) = (failure.outcome(), failure.reason.clone());
        let attempt = attempt(retried, Ending { outcome, reason }, self.retry.context.now());
        let change =
            |status: &WorkItemStatus, now| retry::failed(status, &retried.run(), number, attempt, &failure, now);
        self.write(item, RetryEvent::Failed, change).await
    }

    /// Whether the Workload belongs to another item by now: repository and issues may be edited.
    fn has_moved(&self) -> bool {
        let Self { retry, retried, .. } = *self;
        let is_workload = retried.kind() == RetriedKind::Workload;
        self.item
            .is_some_and(|item| is_workload && !objects::is_of(retry, item, retried))
    }

    /// A failed object that runs again, or for another item: its failure is not the last word any more.
    async fn revived(&self) -> Result<WorkItemResult, Error> {
        let Some(item) = self.item else {
            return Ok(WorkItemResult::AwaitChange);
        };
        let change = |status: &WorkItemStatus, now| retry::revived(status, self.retried.uid(), now);
        self.write(item, RetryEvent::Stopped(Stopped::Revived), change).await
    }

    /// A run that succeeded: failures before it are reset. An item that never failed has no `WorkItem`.
    async fn succeeded(&self) -> Result<WorkItemResult, Error> {
        let Some(item) = self.item else {
            return Ok(WorkItemResult::AwaitChange);
        };
        let (outcome, reason) = (Outcome::Succeeded, "Succeeded".to_owned());
        let attempt = attempt(self.retried, Ending { outcome, reason }, self.retry.context.now());
        let created = created(self.retried.object()).unwrap_or(Timestamp::UNIX_EPOCH);
        let change =
            |status: &WorkItemStatus, now| retry::succeeded(status, &self.retried.run(), created, attempt, now);
        work_items::write(&self.retry.context, item, change).await
    }

    async fn write(
        &self,
        item: &WorkItem,
        event: RetryEvent,
        change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
    ) -> Result<WorkItemResult, Error> {
        events::write(self.retry, item, &self.retried.run(), Some(event), change).await
    }

    /// The result where the retry does not begin now: the object belongs to another item, nothing is retried in its namespace, or the
    /// policy has as many retries in flight as it may.
    fn not_now(&self, rule: Option<&RetryRule>, item: &WorkItem, transition: &Transition) -> Option<WorkItemResult> {
        let Self { retry, key, .. } = *self;
        if retry.context.is_excluded(&key.0) || !objects::is_of(retry, item, self.retried) {
            return Some(WorkItemResult::AwaitChange);
        }
        let found = rule.filter(|_| transition.requested_by.is_none())?;
        let is_free = retry.slots.take(key, &found.policy, &found.rule);
        (!is_free).then(|| WorkItemResult::RequeueAt(after(self.retry.context.now(), NO_SLOT)))
    }

    /// Whether the breaker governs the Task and has not recorded its end yet: it does that first.
    fn breaker_comes_first(&self) -> bool {
        let Self { retry, retried, .. } = *self;
        if retried.kind() != RetriedKind::Task {
            return false;
        }
        let governed = retry.context.in_scope(&self.key.0, None, |policies| {
            let found = policies.failure(retried.object());
            found.is_some_and(|found| found.mode == Mode::Enforce && found.item.is_some())
        });
        let status = self.item.and_then(|item| item.status.as_ref());
        let mut attempts = status.into_iter().flat_map(|status| &status.attempts);
        governed && !attempts.any(|known| known.uid == retried.uid())
    }
}

/// Until when Kelos may still write outputs and cost of a Task that ended: a retry deletes them with the Task.
fn settles(retried: Retried<'_>, now: Timestamp) -> Option<Timestamp> {
    if retried.kind() != RetriedKind::Task {
        return None;
    }
    let status = retried.object().get("status")?;
    let there = |field: &str| match status.get(field) {
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        _ => false,
    };
    let ran = Task::of(retried.object()).pod_name().is_some();
    if !ran || there("usage") || there("outputs") || there("results") {
        return None;
    }
    let ended = Task::of(retried.object()).status_time("completionTime")?;
    // A wrong clock must not keep it for ever.
    ended.min(now).checked_add(CAPTURE).ok()
}

/// The run of `retried` in the attempt history.
fn attempt(retried: Retried<'_>, ending: Ending, now: Timestamp) -> Attempt {
    if let Some(state) = TaskState::of(retried.object()).filter(|_| retried.kind() == RetriedKind::Task) {
        return taskgate_policy::attempt(retried.object(), &state, ending, now);
    }
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    let run = retried.run();
    Attempt {
        uid: run.uid,
        name: run.name,
        outcome: ending.outcome,
        opened: false,
        reason: Some(ending.reason),
        cancelled_by: None,
        start_time: created(retried.object()).map(time),
        // Foreman has no completion time, and rewrites the times of conditions (foreman §2.2).
        completion_time: Some(time(now)),
        cost_usd: None,
        input_tokens: None,
        output_tokens: None,
    }
}

fn created(object: &Value) -> Option<Timestamp> {
    object.pointer("/metadata/creationTimestamp")?.as_str()?.parse().ok()
}
