//! The reconcile of one Task: steps are taken until there is nothing left to do for now.
//!
//! First its cancellation, then the breaker, last its labels and annotations, so that no error of theirs delays the count of a
//! failure.

use jiff::Timestamp;
use kube::{ResourceExt as _, api::DynamicObject};
use taskgate_api::{Mode, WorkItem};
use taskgate_cache::NamespacedName;
use taskgate_policy::{TaskAction, TaskContext, next_action, refresh};
use tracing::{debug, info};

use super::Reconcilers;
use crate::{
    breaker::{attempt_history, stop},
    cancellation::{Cancelling, run::Running},
    error::Error,
    finalizer,
    task::{self, Subject, TaskResult},
    work_items::CurrentWorkItem,
    workqueue::{AFTER_CONFLICT, Reconciled, WHILE_TERMINATING, until},
};

/// How many steps one reconcile may take: more than any Task needs, so that a mistake cannot spin.
const MAX_STEPS: usize = 12;
/// How many conflicts one reconcile tolerates.
const MAX_CONFLICTS: usize = 3;

/// Reconciles one Task, as the cache has it.
pub(super) async fn reconcile(reconcilers: &Reconcilers, key: NamespacedName) -> Reconciled {
    let context = &reconcilers.context;
    let Some(object) = context.cache.tasks().get(&key.namespace, &key.name) else {
        return Ok(None);
    };
    let subject = Subject::of(context, &object);
    if context.is_opted_out(&key.namespace) {
        return match subject.filter(|subject| subject.state.has_finalizer) {
            Some(subject) => remove_finalizer(reconcilers, &subject).await,
            None => Ok(None),
        };
    }
    // While Kelos is installed again, its Tasks may be listed before its spawners, which policies select by.
    if !context.cache.spawners().is_listed() {
        return Ok(Some(WHILE_TERMINATING));
    }
    if let Some(subject) = subject {
        reconcilers.metadata.record_skipped(&subject);
    }
    let requeue = take_steps(reconcilers, &object).await?;
    Ok(match reconcilers.metadata.complete(&object).await? {
        TaskResult::Conflict => Some(AFTER_CONFLICT),
        _ => requeue,
    })
}

async fn remove_finalizer(reconcilers: &Reconcilers, subject: &Subject) -> Reconciled {
    let removed = finalizer::remove(&reconcilers.context, subject).await?;
    Ok(matches!(removed, TaskResult::Conflict).then_some(AFTER_CONFLICT))
}

async fn take_steps(reconcilers: &Reconcilers, object: &DynamicObject) -> Reconciled {
    let context = &*reconcilers.context;
    let mut object = object.clone();
    let mut item: Option<CurrentWorkItem> = None;
    let mut running: Option<Running> = None;
    let mut conflicts = 0;
    for _ in 0..MAX_STEPS {
        let Some(subject) = subject(reconcilers, &object) else {
            return Ok(None);
        };
        let key = subject.item_ref();
        if item.as_ref().map(CurrentWorkItem::key) != key.as_ref() {
            item = key.map(|key| CurrentWorkItem::cached(context, key));
        }
        let result = match reconcilers.cancellation.reconcile(&subject, &mut running).await? {
            Cancelling::Step(result) => result,
            cancelling => breaker_step(reconcilers, &subject, &cancelling, item.as_mut()).await?,
        };
        match result {
            TaskResult::Changed(changed) => object = *changed,
            TaskResult::Unchanged => {}
            TaskResult::AwaitChange => return Ok(None),
            TaskResult::RequeueAt(moment) => return Ok(Some(until(moment, context.now()))),
            TaskResult::Terminating => return Ok(Some(WHILE_TERMINATING)),
            TaskResult::NamespaceTerminating => {
                info!(
                    namespace = subject.namespace,
                    name = subject.state.name,
                    "removing the finalizer: the namespace is being deleted"
                );
                return remove_finalizer(reconcilers, &subject).await;
            }
            TaskResult::Conflict => {
                running = None;
                conflicts += 1;
                if conflicts > MAX_CONFLICTS {
                    return Ok(Some(AFTER_CONFLICT));
                }
                match task::read(context, &subject).await? {
                    Some(fresh) => object = fresh,
                    None => return Ok(None),
                }
            }
        }
    }
    Ok(Some(AFTER_CONFLICT))
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
    mut item: Option<&mut CurrentWorkItem>,
) -> Result<TaskResult, Error> {
    let (context, breaker) = (&*reconcilers.context, &*reconcilers.breaker);
    if let Some(item) = item.as_deref_mut() {
        attempt_history::add_late_usage(breaker, subject, item).await?;
    }
    let step = next(reconcilers, subject, item.as_deref_mut()).await?;
    debug!(namespace = subject.namespace, name = subject.state.name, ?step, "next");
    let enforced = subject.rule.as_ref().is_some_and(|(mode, _)| *mode == Mode::Enforce);
    match (step, item) {
        // Where the breaker governs the Task, it deletes the Task itself, unless it keeps it as a tombstone.
        (TaskAction::Done | TaskAction::Wait(_), _) if matches!(cancelling, Cancelling::Replace) && !enforced => {
            task::delete(context, subject).await
        }
        (TaskAction::Done, _) => Ok(wait(None, cancelling)),
        (TaskAction::Wait(moment), _) => Ok(wait(Some(moment), cancelling)),
        (TaskAction::AddFinalizer, _) => finalizer::adopt(context, subject).await,
        (TaskAction::RemoveFinalizer, _) => finalizer::remove(context, subject).await,
        (TaskAction::Delete, _) => task::delete(context, subject).await,
        (step @ (TaskAction::Stop | TaskAction::StopMarked), _) => {
            match stop::stop(context, subject, step == TaskAction::StopMarked).await? {
                TaskResult::AwaitChange => Ok(wait(None, cancelling)),
                result => Ok(result),
            }
        }
        (TaskAction::Record, Some(item)) => attempt_history::record(breaker, subject, item).await,
        (TaskAction::Reset, Some(item)) => attempt_history::reset(breaker, subject, item).await,
        (TaskAction::Refresh(_), Some(item)) => {
            let rule = subject.failure_policy();
            item.write(context, |status, now| refresh(status, rule, now)).await?;
            Ok(TaskResult::Unchanged)
        }
        (TaskAction::Mark, Some(item)) => match item.get() {
            Some(item) => finalizer::mark_recorded(context, subject, item).await,
            None => Ok(TaskResult::Unchanged),
        },
        // Only the Task of an item has these steps.
        (TaskAction::Record | TaskAction::Reset | TaskAction::Refresh(_) | TaskAction::Mark, None) => {
            Ok(TaskResult::AwaitChange)
        }
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

/// The next step. The cache is enough where the step changes nothing, or is a write of the `WorkItem` with its version as the
/// precondition, or the same whatever happened to the `WorkItem` meanwhile. Any other step follows a read.
async fn next(
    reconcilers: &Reconcilers,
    subject: &Subject,
    item: Option<&mut CurrentWorkItem>,
) -> Result<TaskAction, Error> {
    use TaskAction::{AddFinalizer, Done, Mark, Record, Refresh, StopMarked, Wait};
    let Some(item) = item else {
        return Ok(next_with(reconcilers, subject, None, false));
    };
    let step = next_with(reconcilers, subject, item.get(), false);
    let is_deleting = subject.state.deleting.is_some();
    match step {
        Done | Wait(_) => return Ok(step),
        AddFinalizer | Mark | Record | Refresh(_) | StopMarked if !is_deleting => return Ok(step),
        _ => {}
    }
    let context = &reconcilers.context;
    item.read(context).await?;
    let abandoned = is_deleting && finalizer::is_abandoned(context, subject).await?;
    Ok(next_with(reconcilers, subject, item.get(), abandoned))
}

fn next_with(reconcilers: &Reconcilers, subject: &Subject, item: Option<&WorkItem>, abandoned: bool) -> TaskAction {
    let context = &reconcilers.context;
    let mut others = subject
        .item_ref()
        .map(|item| context.tasks_of(&item))
        .unwrap_or_default();
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
        now: context.now(),
    })
}
