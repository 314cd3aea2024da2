//! `WorkItem`s without Tasks after a policy changed: nothing else would look at them, and their `breaker` would go on
//! telling what the old policy made of them. Verdicts do not rest on that field; people read it.

use std::time::Duration;

use jiff::Timestamp;
use kube::{ResourceExt as _, api::PostParams};
use taskgate_api::WorkItem;
use tokio::{sync::watch, time::sleep};
use tracing::debug;

use crate::context::Context;

/// How long policies have to be quiet, so that a rollout of many is looked at once.
const QUIET: Duration = Duration::from_secs(2);
/// Between two writes: of many items, Tasks come first.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks at all of them whenever `changed` says that the policies did, until its sender is gone.
pub(crate) async fn run(context: &Context, mut changed: watch::Receiver<()>) {
    while changed.changed().await.is_ok() {
        sleep(QUIET).await;
        changed.mark_unchanged();
        for item in context.work_items.state() {
            // A further change: everything is looked at anew.
            if changed.has_changed().unwrap_or(true) {
                break;
            }
            if reassess(context, &item).await {
                sleep(PAUSE).await;
            }
        }
    }
}

/// Writes the breaker's state if the policy makes it another one; whether it wrote. Whoever writes at the same time knows
/// better.
async fn reassess(context: &Context, item: &WorkItem) -> bool {
    let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
    if context.index.has(&(namespace.clone(), name.clone())) {
        return false;
    }
    let rule = context.rule_of(item).map(|(_, rule)| rule);
    let status = item.status.clone().unwrap_or_default();
    let Some(status) = taskgate_policy::refresh(&status, rule.as_ref(), Timestamp::now()) else {
        return false;
    };
    let mut item = item.clone();
    item.status = Some(status);
    let written = context
        .work_items(&namespace)
        .replace_status(&name, &PostParams::default(), &item)
        .await;
    if let Err(error) = written {
        debug!(%error, namespace, name, "the breaker's state was not written");
    }
    true
}
