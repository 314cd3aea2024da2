//! `WorkItem`s that no Task looks after, when a policy changed: nothing else would look at them, and their `breaker` would go
//! on telling what the old policy made of them. Verdicts do not rest on that field; people read it.

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    ResourceExt as _,
    api::DynamicObject,
    runtime::reflector::{ObjectRef, Store},
};
use taskgate_api::{Mode, WorkItem, task_policy::FailurePolicy};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::debug;

use crate::{
    context::Context,
    error::Error,
    ledger,
    spawner_status::{self, SpawnerRef},
    task::Subject,
    tasks::ItemRef,
    unwinding::Unwinding,
};

/// How long policies have to be quiet, so that a rollout of many is looked at once.
const QUIET: Duration = Duration::from_secs(2);
/// Between two writes: of many items, Tasks come first.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a write is tried when somebody else is faster.
const TRIES: usize = 3;

/// Looks at all of them whenever `changed` says that the policies did, until its sender is gone; `spawners` are told as well.
pub(crate) async fn run(
    context: &Context,
    tasks: &Store<DynamicObject>,
    mut changed: watch::Receiver<()>,
    spawners: &mpsc::UnboundedSender<SpawnerRef>,
) {
    let unwinding = Unwinding::new("reassess", &context.metrics);
    while changed.changed().await.is_ok() {
        sleep(QUIET).await;
        changed.mark_unchanged();
        spawner_status::reconsider(context, spawners);
        for item in context.work_items.state() {
            // A further change: everything is looked at anew.
            if changed.has_changed().unwrap_or(true) {
                break;
            }
            match unwinding.caught(item.uid(), reassess(context, tasks, &item)).await {
                Ok(Ok(false)) => {}
                // What panicked is looked at again with the next change of a policy.
                Ok(Ok(true)) | Err(_) => sleep(PAUSE).await,
                Ok(Err(error)) => {
                    debug!(%error, source = %error.source, "the breaker's state was not written");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Writes the breaker's state if the policy makes it another one; whether it tried. `cached` is enough to see that nothing is
/// to be done, and lacks too much to be written back.
async fn reassess(context: &Context, tasks: &Store<DynamicObject>, cached: &WorkItem) -> Result<bool, Error> {
    let key = (cached.namespace().unwrap_or_default(), cached.name_any());
    if context.policies.is_opted_out(&key.0) {
        return Ok(false);
    }
    let ruled = rule_of_tasks(context, tasks, &key).or_else(|| context.rule_of(cached));
    // Then it is for them to tell.
    if context.index.has(&key) && ruled.as_ref().is_some_and(|(mode, _)| *mode == Mode::Enforce) {
        return Ok(false);
    }
    let refreshed = |item: &WorkItem| {
        let status = item.status.clone().unwrap_or_default();
        taskgate_policy::refresh(&status, ruled.as_ref().map(|(_, rule)| rule), Timestamp::now())
    };
    if refreshed(cached).is_none() {
        return Ok(false);
    }
    let (namespace, name) = (key.0.as_str(), key.1.as_str());
    for _ in 0..TRIES {
        let Some(mut item) = ledger::read(context, namespace, name).await? else {
            break;
        };
        let Some(status) = refreshed(&item) else { break };
        item.status = Some(status);
        if ledger::replace(context, namespace, name, &item).await?.is_some() {
            break;
        }
    }
    Ok(true)
}

/// The failure section that governs the Tasks of the item `key`, and how far it may go: the one that is enforced, if there is
/// one.
fn rule_of_tasks(context: &Context, tasks: &Store<DynamicObject>, key: &ItemRef) -> Option<(Mode, FailurePolicy)> {
    let known = context.index.of(key);
    let rules = known.iter().filter_map(|task| {
        let task = ObjectRef::new_with(&task.name, context.task_kind.clone()).within(&key.0);
        let subject = Subject::of(context, &*tasks.get(&task)?)?;
        let of_item = subject.item_ref().as_ref() == Some(key);
        subject.rule.filter(|_| of_item)
    });
    rules.max_by_key(|(mode, _)| *mode == Mode::Enforce)
}
