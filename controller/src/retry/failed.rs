//! The reconcile of one object: of a failed run that is not being retried yet, and of a run that succeeded.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::{
    Mode, WorkItem, WorkItemStatus,
    kelos::Task,
    retry_status::Transition,
    task_policy::{RetriedKind, RetryPolicy},
    work_item::Attempt,
};
use taskgate_policy::{
    Ending, PolicyScope, TaskState,
    retry::{self, FailedRunAction, FailedRunContext, Retried, RunPhase, attempt_number, failed_run_action},
};

use super::{
    RetryReconciler,
    events::{self, RetryEvent},
    objects::{self, ObjectKey},
    reads::{failure, object, resource},
};
use crate::{
    breaker::requests,
    error::Error,
    task_index::ItemRef,
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
    let namespace = key.0.as_str();
    let Some(resource) = resource(retry, *kind) else {
        return Ok(WorkItemResult::AwaitChange);
    };
    let Some(value) = object(retry, &resource, namespace, name).await? else {
        return Ok(WorkItemResult::AwaitChange);
    };
    let Some(retried) = Retried::of(*kind, &value) else {
        return Ok(WorkItemResult::AwaitChange);
    };
    if let Some(item) = item.filter(|_| *kind == RetriedKind::Task) {
        let used = |status: &WorkItemStatus, _| taskgate_policy::add_late_usage(status, retried.object());
        let written = work_items::write(&retry.context, item, used).await?;
        if !matches!(written, WorkItemResult::Unchanged) {
            return Ok(written);
        }
    }
    match retried.phase() {
        RunPhase::Failed => failed(retry, key, item, retried).await,
        RunPhase::Succeeded => succeeded(retry, item, retried).await,
        RunPhase::Active | RunPhase::Cancelled => Ok(WorkItemResult::AwaitChange),
    }
}

async fn failed(
    retry: &RetryReconciler,
    key: &ItemRef,
    item: Option<&WorkItem>,
    retried: Retried<'_>,
) -> Result<WorkItemResult, Error> {
    let namespace = key.0.as_str();
    if breaker_comes_first(retry, namespace, item, retried) {
        return Ok(WorkItemResult::AwaitChange);
    }
    let policies = retry.context.policies();
    let labels = retry.context.namespace_labels(namespace);
    let found = PolicyScope::new(&policies, namespace, &labels, None).retry(retried.kind(), retried.object());
    let name = found.as_ref().map(|found| scoped(namespace, &found.policy.to_string()));
    let rule = found
        .as_ref()
        .zip(name.as_deref())
        .map(|(found, name)| (name, found.mode, found.rule));
    let retry_state = item.map(retry_status).unwrap_or_default();
    let status = item.and_then(|item| item.status.as_ref());
    let order = item.and_then(requests::requested_retry);
    let mut inputs = FailedRunContext {
        object: retried,
        status: &retry_state,
        asked: order.as_ref().map(|(order, by)| (order, *by)),
        rule,
        infrastructure_failures: status.map_or(0, |status| status.infrastructure_failures),
        settles: settles(retried),
        source: None,
        now: Timestamp::now(),
    };
    let mut step = failed_run_action(&inputs);
    let mut source_error = None;
    if let FailedRunAction::ReadSource(origin) = &step {
        let Some(answer) = retry.queries.answer(key, retried.uid(), origin) else {
            return Ok(WorkItemResult::AwaitChange);
        };
        inputs.source = Some(answer.state);
        source_error = answer.error;
        step = failed_run_action(&inputs);
    }
    let result = take_step(retry, key, item, retried, rule, &step).await?;
    if let WorkItemResult::Changed(now) = &result {
        let event = match step {
            FailedRunAction::Record if item.is_none() => None,
            FailedRunAction::Record => Some(RetryEvent::Failed),
            FailedRunAction::GiveUp(why) => Some(RetryEvent::GivenUp(why.reason())),
            FailedRunAction::Begin(_) => Some(RetryEvent::Planned),
            FailedRunAction::Nothing | FailedRunAction::Wait(_) | FailedRunAction::ReadSource(_) => None,
        };
        if let Some(event) = event {
            events::record(retry, now, &retried.run(), event);
        }
        if let Some(error) = source_error {
            events::record_unknown_source(retry, now, &retried.run(), &error);
        }
    }
    Ok(result)
}

/// The name, mode and retry section of the policy that governs an object.
type Rule<'a> = (&'a str, Mode, &'a RetryPolicy);

async fn take_step(
    retry: &RetryReconciler,
    key: &ItemRef,
    item: Option<&WorkItem>,
    retried: Retried<'_>,
    rule: Option<Rule<'_>>,
    step: &FailedRunAction,
) -> Result<WorkItemResult, Error> {
    let namespace = key.0.as_str();
    match (step, item) {
        (FailedRunAction::Nothing | FailedRunAction::ReadSource(_), _)
        | (FailedRunAction::GiveUp(_) | FailedRunAction::Begin(_), None) => Ok(WorkItemResult::AwaitChange),
        (FailedRunAction::Wait(until), _) => Ok(WorkItemResult::RequeueAt(*until)),
        (FailedRunAction::Record, None) => {
            let identity = objects::identity(retry, retried);
            let item = identity.work_item(&identity.work_item_name());
            retry.breaker.create(namespace, &item).await
        }
        (FailedRunAction::Record, Some(item)) => {
            let Some(failure) = failure(retry, namespace, retried).await? else {
                return Ok(WorkItemResult::AwaitChange);
            };
            let prefix = rule.map_or(taskgate_api::foreman::ANNOTATION_PREFIX, |(_, _, rule)| {
                &rule.annotation_prefix
            });
            let number = attempt_number(&retry_status(item), retried.uid(), retried.stated_attempt(prefix));
            let ending = Ending {
                outcome: failure.outcome(),
                reason: failure.reason.clone(),
            };
            let attempt = ended(retried, ending);
            work_items::write(&retry.context, item, |status, now| {
                retry::failed(status, &retried.run(), number, attempt, &failure, now)
            })
            .await
        }
        (FailedRunAction::GiveUp(why), Some(item)) => {
            work_items::write(&retry.context, item, |status, now| {
                retry::gave_up(status, retried.uid(), *why, now)
            })
            .await
        }
        (FailedRunAction::Begin(transition), Some(item)) => {
            if let Some(result) = not_now(retry, key, item, retried, transition, rule) {
                return Ok(result);
            }
            work_items::write(&retry.context, item, |status, now| {
                retry::begun(status, transition, now)
            })
            .await
        }
    }
}

/// The result where the retry does not begin now: the object belongs to another item, nothing is retried in its namespace, or the
/// policy has as many retries in flight as it may.
fn not_now(
    retry: &RetryReconciler,
    key: &ItemRef,
    item: &WorkItem,
    retried: Retried<'_>,
    transition: &Transition,
    rule: Option<Rule<'_>>,
) -> Option<WorkItemResult> {
    if retry.context.is_excluded(&key.0) || !objects::is_of(retry, item, retried) {
        return Some(WorkItemResult::AwaitChange);
    }
    let (name, _, rule) = rule.filter(|_| transition.requested_by.is_none())?;
    let again = || Timestamp::now().checked_add(NO_SLOT).unwrap_or(Timestamp::MAX);
    (!retry.slots.take(key, name, rule)).then(|| WorkItemResult::RequeueAt(again()))
}

/// A run that succeeded: failures before it are reset. An item that never failed has no `WorkItem`.
async fn succeeded(
    retry: &RetryReconciler,
    item: Option<&WorkItem>,
    retried: Retried<'_>,
) -> Result<WorkItemResult, Error> {
    let Some(item) = item else {
        return Ok(WorkItemResult::AwaitChange);
    };
    let ending = Ending {
        outcome: taskgate_api::work_item::Outcome::Succeeded,
        reason: "Succeeded".to_owned(),
    };
    let attempt = ended(retried, ending);
    let created = created(retried.object()).unwrap_or(Timestamp::UNIX_EPOCH);
    work_items::write(&retry.context, item, |status, now| {
        retry::succeeded(status, &retried.run(), created, attempt, now)
    })
    .await
}

/// Whether the breaker governs the Task and has not recorded its end yet: it does that first.
fn breaker_comes_first(
    retry: &RetryReconciler,
    namespace: &str,
    item: Option<&WorkItem>,
    retried: Retried<'_>,
) -> bool {
    if retried.kind() != RetriedKind::Task {
        return false;
    }
    let policies = retry.context.policies();
    let labels = retry.context.namespace_labels(namespace);
    let found = PolicyScope::new(&policies, namespace, &labels, None).failure(retried.object());
    let governed = found.is_some_and(|found| found.mode == Mode::Enforce && found.item.is_some());
    let attempts = item.and_then(|item| Some(item.status.as_ref()?.attempts.as_slice()));
    let recorded = attempts.is_some_and(|attempts| attempts.iter().any(|known| known.uid == retried.uid()));
    governed && !recorded
}

/// Until when Kelos may still write outputs and cost of a Task that ended: a retry deletes them with the Task.
fn settles(retried: Retried<'_>) -> Option<Timestamp> {
    if retried.kind() != RetriedKind::Task {
        return None;
    }
    let status = retried.object().get("status")?;
    let there = |field: &str| {
        status.get(field).is_some_and(|value| {
            value.as_object().is_some_and(|map| !map.is_empty())
                || value.as_array().is_some_and(|list| !list.is_empty())
        })
    };
    let ran = Task::of(retried.object()).pod_name().is_some();
    if !ran || there("usage") || there("outputs") || there("results") {
        return None;
    }
    let ended = Task::of(retried.object()).status_time("completionTime")?;
    // A wrong clock must not keep it for ever.
    ended.min(Timestamp::now()).checked_add(CAPTURE).ok()
}

/// The run of `retried` in the attempt history.
fn ended(retried: Retried<'_>, ending: Ending) -> Attempt {
    let now = Timestamp::now();
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

/// A policy's name, different for policies of equal name in two namespaces.
fn scoped(namespace: &str, policy: &str) -> String {
    if policy.starts_with("Cluster") {
        policy.to_owned()
    } else {
        format!("{namespace}/{policy}")
    }
}
