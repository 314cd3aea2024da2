//! Retries failed Workloads and Tasks that no spawner makes again (seed 003).
//!
//! ```text
//! Workloads, Tasks ─┐                     ┌─ failed: record, give up, begin
//! WorkItems ────────┼─→ agenda ── look ───┤
//! policies ─────────┘   one item at a time└─ transition: dry run, delete, wait, create
//! ```
//!
//! What the next step is, the decision core says ([`taskgate_policy::retry`]); here it is only taken. Nothing is ever written to
//! a failed object.
//!
//! RBAC: `get, list, watch, create, delete` on workloads and `list` on agentictasks of foreman.llmkube.dev; `get, create, delete`
//! on tasks of kelos.dev; `list` on jobs and pods, cluster-wide; what the breaker needs for workitems and Events.

mod agenda;
mod failed;
mod foreman;
mod look;
mod memory;
mod metrics;
mod objects;
mod slots;
mod tell;
mod transition;
mod workloads;

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use serde_json::Value;
use taskgate_api::{Mode, WorkItem, retry_ledger::RetryStage, task_policy::RetriedKind};
use taskgate_policy::{
    Retrying, TaskState,
    retry::{Retried, RunPhase},
    retry_rule,
};
use tokio::sync::mpsc;
use tracing::warn;

pub(crate) use metrics::Metrics;

use self::{
    memory::Written,
    objects::{ObjectKey, Objects},
    slots::Slots,
    workloads::Workloads,
};
use crate::{context::Context, error::Error, tasks::ItemRef};

/// How many steps one look may lead to: more than any retry needs, so that a mistake cannot spin.
const MAX_STEPS: usize = 24;
/// Until a failed step is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// When to look again after somebody else was faster too often.
const SOON: Duration = Duration::from_millis(500);

/// What the retry part knows beyond what is stored.
#[derive(Debug)]
pub(crate) struct Retry {
    objects: Objects,
    slots: Slots,
    workloads: Workloads,
    /// The predecessors whose deletion this process has announced in the ledger and not sent yet.
    unsent: Mutex<HashSet<String>>,
    /// The version in which Foreman is served.
    foreman: RwLock<Option<&'static str>>,
    wake: mpsc::UnboundedSender<ItemRef>,
}

/// The items that are to be looked at.
pub(crate) type Woken = mpsc::UnboundedReceiver<ItemRef>;

impl Retry {
    /// Nothing is known yet.
    pub(crate) fn new() -> (Self, Woken) {
        let (wake, woken) = mpsc::unbounded_channel();
        let retry = Self {
            objects: Objects::default(),
            slots: Slots::default(),
            workloads: Workloads::default(),
            unsent: Mutex::default(),
            foreman: RwLock::default(),
            wake,
        };
        (retry, woken)
    }

    /// Looks at `item` soon. Sending fails only when all of it is being dropped.
    fn wake(&self, item: &ItemRef) {
        let _ = self.wake.send(item.clone());
    }

    /// Takes note of a memory that changed, or went.
    pub(crate) fn note_memory(&self, item: &WorkItem, gone: bool) {
        let key = (item.namespace().unwrap_or_default(), item.name_any());
        self.slots.note(&key, Some(item).filter(|_| !gone));
        let ledger = item.status.as_ref().and_then(|status| status.retry.as_ref());
        let business = ledger
            .is_some_and(|ledger| ledger.transition.is_some() || ledger.failure.is_some() || ledger.request.is_some());
        if business || self.objects.has(&key) {
            self.wake(&key);
        }
    }

    /// Whether an item has objects here.
    pub(crate) fn needs(&self, item: &WorkItem) -> bool {
        self.objects
            .has(&(item.namespace().unwrap_or_default(), item.name_any()))
    }

    fn foreman(&self) -> Option<&'static str> {
        *self.foreman.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsent(&self, uid: &str) {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        unsent.insert(uid.to_owned());
    }

    /// Whether the deletion was announced by this process, and not sent; from now on it counts as sent.
    fn sent(&self, uid: &str) -> bool {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).remove(uid)
    }

    fn is_unsent(&self, uid: &str) -> bool {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).contains(uid)
    }
}

/// What a look at an item came to.
enum Look {
    /// There is nothing to do.
    Nothing,
    /// There is nothing to do before this moment.
    At(Timestamp),
    /// Something was written, or not.
    Wrote(Written),
    /// Something is not as it was seen.
    Again,
}

/// Follows Foreman, and looks at every item that is woken, for ever.
pub(crate) async fn run(context: &Context, woken: Woken) {
    let looking = async {
        context.ready().await;
        context.policies.compile();
        agenda::run(woken, |item| look(context, item)).await;
    };
    tokio::join!(foreman::follow(context), looking);
}

/// Takes note of an object that is there, or went.
pub(crate) fn note(context: &Context, kind: RetriedKind, object: &Value, gone: bool) {
    let Some((namespace, key, known)) = objects::know(context, kind, object) else {
        return;
    };
    let active = known.phase == RunPhase::Active;
    let known = Some(known).filter(|_| !gone);
    for item in context.retry.objects.note(&namespace, &key, known) {
        // Of a run that goes on nothing follows, unless a retry waits for it.
        if gone || !active || open(context, &item) {
            context.retry.wake(&item);
        }
    }
}

/// Forgets the Tasks: they are listed anew.
pub(crate) fn clear_tasks(context: &Context) {
    context.retry.objects.clear(RetriedKind::Task);
}

/// The policies changed: what failed, and what is under way, is looked at anew. Tasks are noted by whoever has them.
pub(crate) fn reconsider(context: &Context) {
    foreman::note_all(context);
    wake_all(context);
}

/// Looks at every item whose memory has something to do with retries.
fn wake_all(context: &Context) {
    for item in context.work_items.state() {
        context.retry.note_memory(&item, false);
    }
}

/// Whether a retry of the item is under way.
pub(crate) fn is_under_way(item: &WorkItem) -> bool {
    memory::transition_of(item).is_some()
}

/// What the retry part does with a Task, as its bookkeeping has to know.
pub(crate) fn retrying(context: &Context, object: &Value, state: &TaskState, memory: Option<&WorkItem>) -> Retrying {
    let transition = memory.and_then(memory::transition_of);
    let deletes =
        transition.is_some_and(|transition| transition.old.uid == state.uid && transition.step != RetryStage::Planned);
    if deletes {
        return Retrying::Deletes;
    }
    let Some(retried) = Retried::of(RetriedKind::Task, object) else {
        return Retrying::No;
    };
    let namespace = crate::tasks::namespace_of(object);
    let policies = context.policies.current();
    let labels = context.policies.namespace_labels(namespace);
    let rule = retry_rule(&policies, namespace, &labels, retried);
    let keeps = rule.is_some_and(|found| found.mode == Mode::Enforce && !state.cancelled);
    if keeps { Retrying::Keeps } else { Retrying::No }
}

fn cached(context: &Context, (namespace, name): &ItemRef) -> Option<std::sync::Arc<WorkItem>> {
    context.work_items.get(&ObjectRef::new(name).within(namespace))
}

fn open(context: &Context, item: &ItemRef) -> bool {
    cached(context, item).is_some_and(|memory| memory::transition_of(&memory).is_some())
}

/// Looks at one item until there is nothing left to do for now; when to look again.
async fn look(context: &Context, item: ItemRef) -> Option<Duration> {
    match look_after(context, &item).await {
        Ok(again) => again,
        Err(error) => {
            warn!(%error, source = %error.source, item = item.1, "tried again soon");
            Some(RETRY)
        }
    }
}

async fn look_after(context: &Context, item: &ItemRef) -> Result<Option<Duration>, Error> {
    if !is_worth_a_look(context, item) {
        return Ok(None);
    }
    let mut memory = memory::read(context, item).await?;
    let mut conflicts = 0;
    for _ in 0..MAX_STEPS {
        match step(context, item, memory.as_ref()).await? {
            Look::Nothing => return Ok(None),
            Look::At(moment) => return Ok(Some(until(moment))),
            Look::Wrote(Written::Now(now)) => {
                context.retry.slots.note(item, Some(&now));
                memory = Some(*now);
            }
            Look::Wrote(Written::Abandon) => return Ok(None),
            Look::Wrote(Written::Before | Written::Conflict) | Look::Again => {
                conflicts += 1;
                if conflicts > 3 {
                    return Ok(Some(SOON));
                }
                memory = memory::read(context, item).await?;
            }
        }
    }
    Ok(Some(SOON))
}

/// Whether the caches say that something may be to be done; the rest rests on fresh reads.
fn is_worth_a_look(context: &Context, item: &ItemRef) -> bool {
    let memory = cached(context, item);
    let ledger = memory.as_deref().map(memory::ledger_of);
    let business = ledger
        .as_ref()
        .is_some_and(|ledger| ledger.transition.is_some() || ledger.failure.is_some() || ledger.request.is_some());
    business
        || context
            .retry
            .objects
            .of(item)
            .iter()
            .any(|(_, known)| match known.phase {
                RunPhase::Failed => known.governed,
                RunPhase::Succeeded => ledger.is_some(),
                RunPhase::Active | RunPhase::Cancelled => false,
            })
}

/// The next step for one item: of the retry that is under way, else of the object that its ledger speaks of, else of any other.
async fn step(context: &Context, item: &ItemRef, memory: Option<&WorkItem>) -> Result<Look, Error> {
    if let Some(memory) = memory.filter(|memory| memory::transition_of(memory).is_some()) {
        return transition::advance(context, item, memory).await;
    }
    if let Some(memory) = memory
        && let Some(written) = forget(context, item, memory).await?
    {
        return Ok(Look::Wrote(written));
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
    let asked = ledger.request.map(|request| request.run);
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
        taskgate_policy::retry::forgotten(status, &run.uid, now)
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
