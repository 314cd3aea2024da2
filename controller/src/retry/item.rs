//! One item: look, take the next step, look again.

use std::time::Duration;

use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use taskgate_api::{WorkItem, keys};
use taskgate_policy::retry::{Retried, RunPhase};
use tracing::warn;

use super::{
    failed, look,
    memory::{self, Written},
    objects::{self, ObjectKey},
    tell, transition,
};
use crate::{context::Context, error::Error, requests, task::GOING, tasks::ItemRef};

/// How many steps one look may lead to: more than any retry needs, so that a mistake cannot spin.
const MAX_STEPS: usize = 24;
/// When to look again after somebody else was faster too often.
const SOON: Duration = Duration::from_millis(500);

/// What a look at an item came to.
pub(super) enum Look {
    /// There is nothing to do.
    Nothing,
    /// There is nothing to do before this moment.
    At(Timestamp),
    /// Something was written, or not.
    Wrote(Written),
    /// Something is not as it was seen.
    Again,
}

fn cached(context: &Context, (namespace, name): &ItemRef) -> Option<std::sync::Arc<WorkItem>> {
    context.work_items.get(&ObjectRef::new(name).within(namespace))
}

/// Whether a retry of the item is under way, as far as the cache knows.
pub(super) fn is_open(context: &Context, item: &ItemRef) -> bool {
    cached(context, item).is_some_and(|memory| memory::transition_of(&memory).is_some())
}

/// Looks at one item until there is nothing left to do for now; when to look again.
pub(super) async fn look(context: &Context, item: ItemRef) -> Option<Duration> {
    let caught = context
        .retry
        .unwinding
        .caught(item.clone(), Box::pin(look_after(context, &item)))
        .await;
    match caught {
        Err(wait) => Some(wait),
        Ok(Ok(again)) => again,
        Ok(Err(error)) => {
            warn!(%error, source = %error.source, item = item.1, "tried again soon");
            Some(context.retry.refusals.wait(item, &error))
        }
    }
}

async fn look_after(context: &Context, item: &ItemRef) -> Result<Option<Duration>, Error> {
    if context.policies.is_opted_out(&item.0) || !is_worth_a_look(context, item) {
        context.retry.slots.note(item, cached(context, item).as_deref());
        return Ok(None);
    }
    let mut memory = memory::read(context, item).await?;
    context.retry.slots.note(item, memory.as_ref());
    let mut conflicts = 0;
    for _ in 0..MAX_STEPS {
        match step(context, item, memory.as_ref()).await? {
            Look::Nothing | Look::Wrote(Written::Abandon) => return Ok(None),
            Look::At(moment) => return Ok(Some(until(moment))),
            Look::Wrote(Written::Going) => return Ok(Some(GOING)),
            Look::Wrote(Written::Now(now)) => {
                context.retry.slots.note(item, Some(&now));
                memory = Some(*now);
            }
            Look::Wrote(Written::Before | Written::Conflict) | Look::Again => {
                conflicts += 1;
                if conflicts > 3 {
                    return Ok(Some(SOON));
                }
                memory = memory::read(context, item).await?;
                context.retry.slots.note(item, memory.as_ref());
            }
        }
    }
    Ok(Some(SOON))
}

/// Whether `item` itself says that something may be to be done: a retry, a failure, or what a user asks for.
pub(super) fn is_pending(item: &WorkItem) -> bool {
    let ledger = item.status.as_ref().and_then(|status| status.retry.as_ref());
    requests::is_asked(item) || ledger.is_some_and(|ledger| ledger.transition.is_some() || ledger.failure.is_some())
}

/// Whether the caches say that something may be to be done; the rest rests on fresh reads.
fn is_worth_a_look(context: &Context, item: &ItemRef) -> bool {
    let memory = cached(context, item);
    memory.as_deref().is_some_and(is_pending)
        || context
            .retry
            .objects
            .of(item)
            .iter()
            .any(|(_, known)| match known.phase {
                RunPhase::Failed => known.governed,
                RunPhase::Succeeded => memory.is_some(),
                RunPhase::Active | RunPhase::Cancelled => false,
            })
}

/// The next step for one item: of the retry that is under way, else of the object that its ledger speaks of, else of any other.
async fn step(context: &Context, item: &ItemRef, memory: Option<&WorkItem>) -> Result<Look, Error> {
    if let Some(memory) = memory
        && let Some(written) = requests::reset(context, memory).await?
    {
        return Ok(Look::Wrote(written));
    }
    if let Some(memory) = memory.filter(|memory| memory::transition_of(memory).is_some()) {
        return transition::advance(context, item, memory).await;
    }
    if let Some(memory) = memory
        && let Some(written) = forget(context, item, memory).await?
    {
        return Ok(Look::Wrote(written));
    }
    if let Some(memory) = memory
        && is_spent(context, item, memory).await?
    {
        return Ok(Look::Wrote(requests::end_retry(context, memory).await?));
    }
    for key in candidates(context, item, memory) {
        match failed::look_at(context, item, memory, &key).await? {
            Look::Nothing | Look::Wrote(Written::Before) => {}
            // One run of an item after the other.
            look => return Ok(look),
        }
    }
    Ok(Look::Nothing)
}

/// The objects of `item` that ended, or that somebody asked about: first the one that is asked about, then the one that the
/// ledger speaks of.
fn candidates(context: &Context, item: &ItemRef, memory: Option<&WorkItem>) -> Vec<ObjectKey> {
    let ledger = memory.map(memory::ledger_of).unwrap_or_default();
    let asked = memory.and_then(requests::retry).map(|(order, _)| order.run());
    let named = [asked, ledger.failure.and(ledger.run)].into_iter().flatten();
    let mut keys: Vec<ObjectKey> = named.map(|run| (run.kind, run.name)).collect();
    for (key, known) in context.retry.objects.of(item) {
        let ended = matches!(known.phase, RunPhase::Failed | RunPhase::Succeeded);
        if ended && !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// Whether an order to run an object again stands on the item that cannot be carried out any more: it is done, or the object is
/// another one by now, has not failed, or is going. One that cannot be read or that admission did not stamp neither.
async fn is_spent(context: &Context, item: &ItemRef, memory: &WorkItem) -> Result<bool, Error> {
    if !memory.annotations().contains_key(keys::RETRY) {
        return Ok(false);
    }
    let Some((order, _)) = requests::retry(memory) else {
        return Ok(true);
    };
    // Without Foreman nothing is known of its Workloads.
    let Some(resource) = look::resource(context, order.kind) else {
        return Ok(false);
    };
    let found = look::object(context, &resource, &item.0, &order.name).await?;
    let found = found.as_ref().and_then(|found| Retried::of(order.kind, found));
    Ok(!found.is_some_and(|found| {
        found.uid() == order.uid && found.is_tombstone() && objects::is_of(context, memory, found)
    }))
}

/// Writes down that somebody else deleted the object of the failed run, if that is so.
async fn forget(context: &Context, item: &ItemRef, memory: &WorkItem) -> Result<Option<Written>, Error> {
    let ledger = memory::ledger_of(memory);
    let (Some(run), Some(_)) = (&ledger.run, &ledger.failure) else {
        return Ok(None);
    };
    let Some(resource) = look::resource(context, run.kind) else {
        return Ok(None);
    };
    let found = look::object(context, &resource, &item.0, &run.name).await?;
    let uid = found
        .as_ref()
        .and_then(|found| found.pointer("/metadata/uid")?.as_str());
    if uid == Some(&run.uid) {
        return Ok(None);
    }
    let written = memory::write(context, memory, |status, now| {
        taskgate_policy::retry::run_deleted(status, &run.uid, now)
    })
    .await?;
    if let Written::Now(now) = &written {
        tell::tell(context, now, run, tell::Happened::Forgotten).await;
    }
    Ok(Some(written))
}

/// How long until `moment`; never less than a tenth of a second, so that a clock that stands still does not spin.
fn until(moment: Timestamp) -> Duration {
    let wait = moment.duration_since(Timestamp::now());
    Duration::try_from(wait)
        .unwrap_or_default()
        .max(Duration::from_millis(100))
}
