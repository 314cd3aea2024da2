//! Failed runs that are not being retried yet, and runs that ended well.

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
    item::Look,
    look::{failure, object, resource},
    memory::{self, Written},
    objects::{self, ObjectKey},
    tell::{Happened, tell, tell_unknown},
};
use crate::{context::Context, error::Error, requests, tasks::ItemRef};

/// For how long after its end Kelos looks for the outputs of a Task that left none (kelos §6.6).
const CAPTURE: SignedDuration = SignedDuration::from_secs(35);
/// Until a retry that finds no place is tried again.
const NO_PLACE: SignedDuration = SignedDuration::from_secs(2);

/// Looks at one object of `item`, and takes the next step about it.
pub(super) async fn look_at(
    context: &Context,
    item: &ItemRef,
    memory: Option<&WorkItem>,
    (kind, name): &ObjectKey,
) -> Result<Look, Error> {
    let namespace = item.0.as_str();
    let Some(resource) = resource(context, *kind) else {
        return Ok(Look::Nothing);
    };
    let Some(value) = object(context, &resource, namespace, name).await? else {
        return Ok(Look::Nothing);
    };
    let Some(retried) = Retried::of(*kind, &value) else {
        return Ok(Look::Nothing);
    };
    if let Some(memory) = memory.filter(|_| *kind == RetriedKind::Task) {
        let used = |status: &WorkItemStatus, _| taskgate_policy::add_late_usage(status, retried.object());
        let written = memory::write(context, memory, used).await?;
        if !matches!(written, Written::Before) {
            return Ok(Look::Wrote(written));
        }
    }
    match retried.phase() {
        RunPhase::Failed => failed(context, item, memory, retried).await,
        RunPhase::Succeeded => succeeded(context, memory, retried).await,
        RunPhase::Active | RunPhase::Cancelled => Ok(Look::Nothing),
    }
}

async fn failed(
    context: &Context,
    item: &ItemRef,
    memory: Option<&WorkItem>,
    retried: Retried<'_>,
) -> Result<Look, Error> {
    let namespace = item.0.as_str();
    if waits_for_bookkeeping(context, namespace, memory, retried) {
        return Ok(Look::Nothing);
    }
    let policies = context.policies.current();
    let labels = context.policies.namespace_labels(namespace);
    let found = PolicyScope::new(&policies, namespace, &labels, None).retry(retried.kind(), retried.object());
    let name = found.as_ref().map(|found| scoped(namespace, &found.policy.to_string()));
    let rule = found
        .as_ref()
        .zip(name.as_deref())
        .map(|(found, name)| (name, found.mode, found.rule));
    let ledger = memory.map(memory::ledger_of).unwrap_or_default();
    let status = memory.and_then(|memory| memory.status.as_ref());
    let order = memory.and_then(requests::retry);
    let mut scene = FailedRunContext {
        object: retried,
        status: &ledger,
        asked: order.as_ref().map(|(order, by)| (order, *by)),
        rule,
        infrastructure_failures: status.map_or(0, |status| status.infrastructure_failures),
        settles: settles(retried),
        source: None,
        now: Timestamp::now(),
    };
    let mut step = failed_run_action(&scene);
    let mut trouble = None;
    if let FailedRunAction::ReadSource(origin) = &step {
        let Some(answer) = context.retry.questions.answer(item, retried.uid(), origin) else {
            return Ok(Look::Nothing);
        };
        scene.source = Some(answer.state);
        trouble = answer.trouble;
        step = failed_run_action(&scene);
    }
    let written = match (&step, memory) {
        (FailedRunAction::Nothing | FailedRunAction::ReadSource(_), _)
        | (FailedRunAction::GiveUp(_) | FailedRunAction::Begin(_), None) => {
            return Ok(Look::Nothing);
        }
        (FailedRunAction::Wait(until), _) => return Ok(Look::At(*until)),
        (FailedRunAction::Record, None) => {
            let identity = objects::identity(context, retried);
            memory::create(context, namespace, &identity).await?
        }
        (FailedRunAction::Record, Some(memory)) => {
            let Some(failure) = failure(context, namespace, retried).await? else {
                return Ok(Look::Nothing);
            };
            let prefix = rule.map_or(taskgate_api::foreman::ANNOTATION_PREFIX, |(_, _, rule)| {
                &rule.annotation_prefix
            });
            let number = attempt_number(&ledger, retried.uid(), retried.stated_attempt(prefix));
            let ending = Ending {
                outcome: failure.outcome(),
                reason: failure.reason.clone(),
            };
            let attempt = ended(retried, ending);
            memory::write(context, memory, |status, now| {
                retry::failed(status, &retried.run(), number, attempt, &failure, now)
            })
            .await?
        }
        (FailedRunAction::GiveUp(why), Some(memory)) => {
            memory::write(context, memory, |status, now| {
                retry::gave_up(status, retried.uid(), *why, now)
            })
            .await?
        }
        (FailedRunAction::Begin(transition), Some(memory)) => {
            if let Some(held) = held_back(context, item, memory, retried, transition, rule) {
                return Ok(held);
            }
            memory::write(context, memory, |status, now| retry::begun(status, transition, now)).await?
        }
    };
    if let Written::Now(now) = &written {
        let happened = match step {
            FailedRunAction::Record if memory.is_none() => None,
            FailedRunAction::Record => Some(Happened::Failed),
            FailedRunAction::GiveUp(why) => Some(Happened::GivenUp(why.reason())),
            FailedRunAction::Begin(_) => Some(Happened::Planned),
            FailedRunAction::Nothing | FailedRunAction::Wait(_) | FailedRunAction::ReadSource(_) => None,
        };
        if let Some(happened) = happened {
            tell(context, now, &retried.run(), happened).await;
        }
        if let Some(trouble) = trouble {
            tell_unknown(context, now, &retried.run(), &trouble).await;
        }
    }
    Ok(Look::Wrote(written))
}

/// Why the retry does not begin now: the object belongs to another item, whatever that is called, or nothing is retried in its
/// namespace; or the policy has as many in flight as it may.
fn held_back(
    context: &Context,
    item: &ItemRef,
    memory: &WorkItem,
    retried: Retried<'_>,
    transition: &Transition,
    rule: Option<(&str, Mode, &RetryPolicy)>,
) -> Option<Look> {
    if context.is_excluded(&item.0) || !objects::is_of(context, memory, retried) {
        return Some(Look::Nothing);
    }
    let (name, _, rule) = rule.filter(|_| transition.requested_by.is_none())?;
    let again = || Timestamp::now().checked_add(NO_PLACE).unwrap_or(Timestamp::MAX);
    (!context.retry.slots.take(item, name, rule)).then(|| Look::At(again()))
}

/// A run that ended well: what failed before it is forgotten. What never failed leaves no memory.
async fn succeeded(context: &Context, memory: Option<&WorkItem>, retried: Retried<'_>) -> Result<Look, Error> {
    let Some(memory) = memory else {
        return Ok(Look::Nothing);
    };
    let ending = Ending {
        outcome: taskgate_api::work_item::Outcome::Succeeded,
        reason: "Succeeded".to_owned(),
    };
    let attempt = ended(retried, ending);
    let created = created(retried.object()).unwrap_or(Timestamp::UNIX_EPOCH);
    let written = memory::write(context, memory, |status, now| {
        retry::succeeded(status, &retried.run(), created, attempt, now)
    })
    .await?;
    Ok(Look::Wrote(written))
}

/// Whether the breaker keeps the Task's books and has not written down its end yet: it does that first.
fn waits_for_bookkeeping(context: &Context, namespace: &str, memory: Option<&WorkItem>, retried: Retried<'_>) -> bool {
    if retried.kind() != RetriedKind::Task {
        return false;
    }
    let policies = context.policies.current();
    let labels = context.policies.namespace_labels(namespace);
    let kept = PolicyScope::new(&policies, namespace, &labels, None).failure(retried.object());
    let kept = kept.is_some_and(|found| found.mode == Mode::Enforce && found.item.is_some());
    let attempts = memory.and_then(|memory| Some(memory.status.as_ref()?.attempts.as_slice()));
    let recorded = attempts.is_some_and(|attempts| attempts.iter().any(|known| known.uid == retried.uid()));
    kept && !recorded
}

/// Until when a Task that ended may still be told about: its outputs and what it cost go with it.
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

/// What the history says of the run of `retried`.
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
        // Foreman keeps none, and rewrites the times of conditions (foreman §2.2).
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
