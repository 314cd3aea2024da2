//! Retries failed Workloads and Tasks that no spawner makes again (seed 003).
//!
//! ```text
//! Workloads, Tasks ─┐                     ┌─ failed: record, give up, begin
//! WorkItems ────────┼─→ agenda ── look ───┤
//! policies ─────────┘   one item at a time└─ transition: dry run, delete, wait, create
//! ```
//!
//! What users ask of an item (`crate::requests`) is carried out here too, whether anything is retried or not: one look at an
//! item at a time.
//!
//! Where the policy says so, the tracker is asked before a run is repeated (`questions`).
//!
//! What the next step is, the decision core says ([`taskgate_policy::retry`]); here it is only taken. Nothing is ever written to
//! a failed object.
//!
//! RBAC: `get, list, watch, create, delete` on workloads and `list` on agentictasks of foreman.llmkube.dev; `get, create, delete`
//! on tasks of kelos.dev; `list` on jobs and pods, cluster-wide; what the breaker needs for workitems and Events.

mod agenda;
mod failed;
mod foreman;
mod item;
mod look;
pub(crate) mod memory;
mod metrics;
mod objects;
mod pace;
mod questions;
mod slots;
mod succeed;
mod tell;
mod transition;
mod workloads;

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError, RwLock},
};

use kube::ResourceExt as _;
use serde_json::Value;
use taskgate_api::{Mode, WorkItem, retry_status::RetryStage, task_policy::RetriedKind};
use taskgate_policy::{
    PolicyScope, Retrying, TaskState,
    retry::{Retried, RunPhase},
};
use tokio::sync::mpsc;

pub(crate) use metrics::Metrics;

use self::{
    objects::Objects,
    questions::{Questions, Waiting},
    slots::Slots,
    workloads::Workloads,
};
use crate::{
    context::Context,
    refusals::Refusals,
    source::{Asker, SourceConfig},
    tasks::ItemRef,
    unwinding::Unwinding,
};

/// What the retry part knows beyond what is stored.
#[derive(Debug)]
pub(crate) struct Retry {
    objects: Objects,
    slots: Slots,
    workloads: Workloads,
    questions: Questions,
    /// The predecessors whose deletion this process has announced in the ledger and not sent yet.
    unsent: Mutex<HashSet<String>>,
    /// The version in which Foreman is served.
    foreman: RwLock<Option<&'static str>>,
    /// How often steps were refused.
    refusals: Refusals<ItemRef>,
    unwinding: Unwinding<ItemRef>,
    wake: mpsc::UnboundedSender<ItemRef>,
}

/// What waits for its turn.
pub(crate) struct Work {
    /// The items that are to be looked at.
    woken: mpsc::UnboundedReceiver<ItemRef>,
    /// The questions that are to be asked, and who asks them.
    questions: Waiting,
    asker: Asker,
}

impl Retry {
    /// Nothing is known yet.
    pub(crate) fn new(sources: &SourceConfig, metrics: &crate::Metrics) -> (Self, Work) {
        let (wake, woken) = mpsc::unbounded_channel();
        let (questions, waiting) = Questions::new();
        let retry = Self {
            objects: Objects::default(),
            slots: Slots::default(),
            workloads: Workloads::default(),
            questions,
            unsent: Mutex::default(),
            foreman: RwLock::default(),
            refusals: Refusals::default(),
            unwinding: Unwinding::new("retry", metrics),
            wake,
        };
        let asker = Asker::new(sources.clone());
        let work = Work {
            woken,
            questions: waiting,
            asker,
        };
        (retry, work)
    }

    /// Looks at `item` soon. Sending fails only when all of it is being dropped.
    fn wake(&self, item: &ItemRef) {
        let _ = self.wake.send(item.clone());
    }

    /// Takes note of a memory that changed, or went.
    pub(crate) fn note_memory(&self, item: &WorkItem, gone: bool) {
        let key = (item.namespace().unwrap_or_default(), item.name_any());
        if gone {
            self.slots.note(&key, None);
        } else {
            self.slots.keep(&key, item);
        }
        if item::is_pending(item) || self.objects.has(&key) || self.slots.holds(&key) {
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

/// Follows Foreman, and looks at every item that is woken, for ever.
pub(crate) async fn run(context: &Context, work: Work) {
    let looking = async {
        context.ready().await;
        agenda::run(work.woken, |item| item::look(context, item)).await;
    };
    let asking = questions::run(context, &work.asker, work.questions);
    let following = async {
        if context.retries.contains(&RetriedKind::Workload) {
            foreman::follow(context).await;
        }
    };
    tokio::join!(following, looking, asking);
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
        if gone || !active || item::is_open(context, &item) {
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
    let retried = Retried::of(RetriedKind::Task, object);
    let Some(retried) = retried.filter(|_| context.retries.contains(&RetriedKind::Task)) else {
        return Retrying::No;
    };
    let namespace = crate::tasks::namespace_of(object);
    let policies = context.policies.current();
    let labels = context.policies.namespace_labels(namespace);
    let rule = PolicyScope::new(&policies, namespace, &labels, None).retry(retried.kind(), retried.object());
    let keeps = rule.is_some_and(|found| found.mode == Mode::Enforce && !state.cancelled);
    if keeps { Retrying::Keeps } else { Retrying::No }
}
