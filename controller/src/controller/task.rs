//! The reconcile of one Task: steps are taken until there is nothing left to do for now.
//!
//! First its cancellation, then the breaker, last its labels and annotations, so that no error of theirs delays the count of a
//! failure.

use std::sync::Arc;

use jiff::Timestamp;
use kube::{ResourceExt as _, api::DynamicObject, runtime::controller::Action};
use taskgate_api::{Mode, WorkItem};
use taskgate_policy::{TaskAction, TaskContext, next_action};
use tracing::{debug, info};

use super::Reconcilers;
use crate::{
    breaker::{attempt_history, stop, ttl},
    cancellation::Cancelling,
    error::Error,
    finalizer,
    task::{self, Subject, TaskResult},
    work_items::LoadedWorkItem,
    workqueue::{AFTER_CONFLICT, WHILE_TERMINATING, until},
};

/// How many steps one reconcile may take: more than any Task needs, so that a mistake cannot spin.
const MAX_STEPS: usize = 12;
/// How many conflicts one reconcile tolerates.
const MAX_CONFLICTS: usize = 3;

/// Reconciles one Task.
pub(super) async fn reconcile(object: Arc<DynamicObject>, reconcilers: Arc<Reconcilers>) -> Result<Action, Error> {
    let context = &reconcilers.context;
    let subject = Subject::of(context, &object);
    if context.is_opted_out(&object.namespace().unwrap_or_default()) {
        return match subject.filter(|subject| subject.state.has_finalizer) {
            Some(subject) => remove_finalizer(&reconcilers, &subject).await,
            None => Ok(Action::await_change()),
        };
    }
    // While Kelos is installed again, its Tasks may be listed before its spawners, which policies select by.
    if !context.cache.spawners().is_listed() {
        return Ok(Action::requeue(WHILE_TERMINATING));
    }
    if let Some(subject) = subject {
        reconcilers.metadata.record_skipped(&subject).await;
    }
    let action = take_steps(&reconcilers, &object).await?;
    Ok(match reconcilers.metadata.complete(&object).await? {
        TaskResult::Conflict => Action::requeue(AFTER_CONFLICT),
        _ => action,
    })
}

async fn remove_finalizer(reconcilers: &Reconcilers, subject: &Subject) -> Result<Action, Error> {
    Ok(match finalizer::remove(&reconcilers.context, subject).await? {
        TaskResult::Conflict => Action::requeue(AFTER_CONFLICT),
        _ => Action::await_change(),
    })
}

async fn take_steps(reconcilers: &Reconcilers, object: &DynamicObject) -> Result<Action, Error> {
    let mut object = object.clone();
    let mut item = LoadedWorkItem::default();
    let mut conflicts = 0;
    for _ in 0..MAX_STEPS {
        let Some(subject) = subject(reconcilers, &object) else {
            return Ok(Action::await_change());
        };
        let result = match reconcilers.cancellation.reconcile(&subject).await? {
            Cancelling::Step(result) => result,
            cancelling => breaker_step(reconcilers, &subject, &cancelling, &mut item).await?,
        };
        match result {
            TaskResult::Changed(changed) => object = *changed,
            TaskResult::Unchanged => {}
            TaskResult::AwaitChange => return Ok(Action::await_change()),
            TaskResult::RequeueAt(moment) => return Ok(Action::requeue(until(moment))),
            TaskResult::Terminating => return Ok(Action::requeue(WHILE_TERMINATING)),
            TaskResult::NamespaceTerminating => {
                info!(
                    namespace = subject.namespace,
                    name = subject.state.name,
                    "removing the finalizer: the namespace is being deleted"
                );
                return remove_finalizer(reconcilers, &subject).await;
            }
            TaskResult::Conflict => {
                conflicts += 1;
                if conflicts > MAX_CONFLICTS {
                    return Ok(Action::requeue(AFTER_CONFLICT));
                }
                match task::read(&reconcilers.context, &subject).await? {
                    Some(fresh) => object = fresh,
                    None => return Ok(Action::await_change()),
                }
            }
        }
    }
    Ok(Action::requeue(AFTER_CONFLICT))
}

/// The Task `object`, which also must be replaced if its source shows the item again.
fn subject(reconcilers: &Reconcilers, object: &DynamicObject) -> Option<Subject> {
    let mut subject = Subject::of(&reconcilers.context, object)?;
    subject.state.must_be_replaced |= reconcilers
        .cancellation
        .is_wanted_again(&subject.object, &subject.state);
    Some(subject)
}

/// Takes the Task's next step of the circuit breaker. Where there is none, the reconcile waits for what cancellation waits for.
async fn breaker_step(
    reconcilers: &Reconcilers,
    subject: &Subject,
    cancelling: &Cancelling,
    item: &mut LoadedWorkItem,
) -> Result<TaskResult, Error> {
    let (context, breaker) = (&*reconcilers.context, &*reconcilers.breaker);
    if let Some(result) = attempt_history::add_late_usage(breaker, subject, item).await? {
        return Ok(result);
    }
    let step = next(reconcilers, subject, item).await?;
    debug!(namespace = subject.namespace, name = subject.state.name, ?step, "next");
    let enforced = subject.rule.as_ref().is_some_and(|(mode, _)| *mode == Mode::Enforce);
    match step {
        // Where the breaker governs the Task, it deletes the Task itself, unless it keeps it as a tombstone.
        TaskAction::Done | TaskAction::Wait(_) if matches!(cancelling, Cancelling::Replace) && !enforced => {
            ttl::delete(context, subject).await
        }
        TaskAction::Done => Ok(wait(None, cancelling)),
        TaskAction::Wait(moment) => Ok(wait(Some(moment), cancelling)),
        TaskAction::AddFinalizer => finalizer::adopt(context, subject).await,
        TaskAction::Mark => {
            let item = item.get(context, subject.item_ref().as_ref()).await?;
            finalizer::mark_recorded(context, subject, item).await
        }
        TaskAction::RemoveFinalizer => finalizer::remove(context, subject).await,
        TaskAction::Stop | TaskAction::StopMarked => {
            match stop::stop(context, subject, step == TaskAction::StopMarked).await? {
                TaskResult::AwaitChange => Ok(wait(None, cancelling)),
                result => Ok(result),
            }
        }
        TaskAction::Record => attempt_history::record(breaker, subject, item).await,
        TaskAction::Reset => attempt_history::reset(breaker, subject, item).await,
        TaskAction::Refresh(_) => attempt_history::refresh(breaker, subject, item).await,
        TaskAction::Delete => ttl::delete(context, subject).await,
    }
}

/// Requeues at the earlier of the two moments.
fn wait(moment: Option<Timestamp>, cancelling: &Cancelling) -> TaskResult {
    let also = match cancelling {
        Cancelling::Waiting(moment) => Some(*moment),
        _ => None,
    };
    match moment.into_iter().chain(also).min() {
        Some(moment) => TaskResult::RequeueAt(moment),
        None => TaskResult::AwaitChange,
    }
}

/// The next step. The cache is enough to see that there is none; any other step follows a read of the `WorkItem`.
async fn next(reconcilers: &Reconcilers, subject: &Subject, item: &mut LoadedWorkItem) -> Result<TaskAction, Error> {
    let context = &reconcilers.context;
    let cached = subject.cached_work_item(context);
    let key = subject.item_ref();
    let known = item.or_cached(key.as_ref(), cached.as_deref());
    let step = next_with(reconcilers, subject, known, false);
    match step {
        TaskAction::Done | TaskAction::Wait(_) => return Ok(step),
        // Does not depend on the WorkItem.
        TaskAction::AddFinalizer if known.is_none() && !subject.state.is_terminal() => return Ok(step),
        _ => {}
    }
    let item = item.get(context, key.as_ref()).await?;
    let abandoned = subject.state.deleting.is_some() && finalizer::is_abandoned(context, subject).await?;
    Ok(next_with(reconcilers, subject, item, abandoned))
}

fn next_with(reconcilers: &Reconcilers, subject: &Subject, item: Option<&WorkItem>, abandoned: bool) -> TaskAction {
    let tasks = &reconcilers.context.task_index;
    let mut others = subject.item_ref().map(|item| tasks.of(&item)).unwrap_or_default();
    others.retain(|other| other.uid != subject.state.uid);
    let status = item.map(|item| (item.uid().unwrap_or_default(), item.status.clone().unwrap_or_default()));
    next_action(&TaskContext {
        task: &subject.state,
        others: &others,
        rule: subject.rule.as_ref().map(|(mode, rule)| (*mode, rule)),
        work_item: subject.item.as_ref().map(|(_, name)| name.as_str()),
        item_status: status.as_ref().map(|(uid, status)| (uid.as_str(), status)),
        retrying: reconcilers.retry.state_of(&subject.object, &subject.state, item),
        abandoned,
        now: Timestamp::now(),
    })
}
