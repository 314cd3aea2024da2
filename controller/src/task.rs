//! One Task: look, take the next step, look again.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{ResourceExt as _, api::DynamicObject, runtime::controller::Action};
use serde_json::Value;
use taskgate_api::{Mode, WorkItem, kelos::Task, task_policy::FailurePolicy};
use taskgate_policy::{ItemIdentity, PolicyScope, TaskAction, TaskContext, TaskState, next_action};
use tracing::{debug, info};

use crate::{
    cancel::{self, Next},
    context::Context,
    error::Error,
    hold, ledger,
    metadata::{self, Completed},
    retry, stop,
    tasks::{ItemRef, json_of, namespace_of},
    ttl,
};

/// How many steps one look may lead to: more than any Task needs, so that a mistake cannot spin.
const MAX_STEPS: usize = 12;
/// When to look again after somebody else was faster.
const SOON: Duration = Duration::from_millis(500);

/// When to look again while something that is in the way is being deleted: finalizers may keep it for as long as they like.
pub(crate) const GOING: Duration = Duration::from_secs(5);

/// A Task, and what was found out about it.
pub(crate) struct Subject {
    pub(crate) object: Value,
    pub(crate) state: TaskState,
    pub(crate) namespace: String,
    /// Mode and section of the policy that governs it.
    pub(crate) rule: Option<(Mode, FailurePolicy)>,
    /// Its work item, and that one's name.
    pub(crate) item: Option<(ItemIdentity, String)>,
}

/// What a step came to.
pub(crate) enum Outcome {
    /// The Task is now this.
    Changed(Box<DynamicObject>),
    /// The Task is as it was; something else changed.
    Again,
    /// The Task is gone.
    Gone,
    /// Somebody else was faster: look again with fresh eyes.
    Conflict,
    /// Something is being deleted, and in the way until it is gone.
    Later,
    /// Nothing can be recorded any more: let go of the Task.
    Abandon,
}

/// Looks after one Task until there is nothing left to do for now. Its labels come last: whatever becomes of them, its books
/// are kept.
pub(crate) async fn reconcile(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, Error> {
    if context.policies.is_opted_out(&object.namespace().unwrap_or_default()) {
        return let_go(&object, &context).await;
    }
    if let Some(subject) = Subject::of(&context, &object) {
        metadata::tell(&context, &subject).await;
    }
    let action = advance(&object, &context).await?;
    Ok(match metadata::complete(&context, &object).await? {
        Completed::Rest => action,
        Completed::Conflict => Action::requeue(SOON),
    })
}

/// Removes the finalizer and does nothing else: the Task's namespace is opted out.
async fn let_go(object: &DynamicObject, context: &Context) -> Result<Action, Error> {
    let Some(subject) = Subject::of(context, object).filter(|subject| subject.state.has_finalizer) else {
        return Ok(Action::await_change());
    };
    Ok(match hold::release(context, &subject).await? {
        Outcome::Conflict => Action::requeue(SOON),
        _ => Action::await_change(),
    })
}

async fn advance(object: &DynamicObject, context: &Arc<Context>) -> Result<Action, Error> {
    let mut object = object.clone();
    let mut conflicts = 0;
    for _ in 0..MAX_STEPS {
        let Some(subject) = Subject::of(context, &object) else {
            return Ok(Action::await_change());
        };
        let cancelling = cancel::advance(context, &subject).await?;
        let outcome = match cancelling {
            Next::Taken(outcome) => outcome,
            Next::Idle | Next::Wait(_) | Next::Replace => match keep_books(context, &subject, &cancelling).await? {
                Kept::Rest(action) => return Ok(action),
                Kept::Taken(outcome) => outcome,
            },
        };
        match outcome {
            Outcome::Changed(changed) => object = *changed,
            Outcome::Again => {}
            Outcome::Gone => return Ok(Action::await_change()),
            Outcome::Later => return Ok(Action::requeue(GOING)),
            Outcome::Abandon => {
                info!(
                    namespace = subject.namespace,
                    name = subject.state.name,
                    "let go: its namespace ends"
                );
                return Ok(match hold::release(context, &subject).await? {
                    Outcome::Conflict => Action::requeue(SOON),
                    _ => Action::await_change(),
                });
            }
            Outcome::Conflict => {
                conflicts += 1;
                if conflicts > 3 {
                    return Ok(Action::requeue(SOON));
                }
                match hold::read(context, &subject).await? {
                    Some(fresh) => object = fresh,
                    None => return Ok(Action::await_change()),
                }
            }
        }
    }
    Ok(Action::requeue(SOON))
}

/// What bookkeeping came to.
enum Kept {
    /// Nothing is left to do for now.
    Rest(Action),
    /// A step was taken.
    Taken(Outcome),
}

/// Takes the next step of the Task's bookkeeping; what cancellation waits for is waited for as well.
async fn keep_books(context: &Context, subject: &Subject, cancelling: &Next) -> Result<Kept, Error> {
    if let Some(outcome) = ledger::add_late_usage(context, subject).await? {
        return Ok(Kept::Taken(outcome));
    }
    let step = subject.step(context).await?;
    debug!(namespace = subject.namespace, name = subject.state.name, ?step, "next");
    let enforced = subject.rule.as_ref().is_some_and(|(mode, _)| *mode == Mode::Enforce);
    let outcome = match step {
        // Where the bookkeeping governs the Task, it deletes it itself, unless its item is open.
        TaskAction::Done | TaskAction::Wait(_) if matches!(cancelling, Next::Replace) && !enforced => {
            ttl::delete(context, subject).await?
        }
        TaskAction::Done => return Ok(Kept::Rest(rest(None, cancelling))),
        TaskAction::Wait(until) => return Ok(Kept::Rest(rest(Some(until), cancelling))),
        TaskAction::AddFinalizer => hold::adopt(context, subject).await?,
        TaskAction::Mark => hold::mark(context, subject).await?,
        TaskAction::RemoveFinalizer => hold::release(context, subject).await?,
        TaskAction::Stop | TaskAction::StopMarked => {
            match stop::stop(context, subject, step == TaskAction::StopMarked).await? {
                Some(outcome) => outcome,
                None => return Ok(Kept::Rest(rest(None, cancelling))),
            }
        }
        TaskAction::Record => ledger::record(context, subject).await?,
        TaskAction::Reset => ledger::reset(context, subject).await?,
        TaskAction::Refresh(_) => ledger::refresh(context, subject).await?,
        TaskAction::Delete => ttl::delete(context, subject).await?,
    };
    Ok(Kept::Taken(outcome))
}

/// When to look again: at the earlier of the two moments, or when the Task changes.
fn rest(until: Option<Timestamp>, cancelling: &Next) -> Action {
    let also = match cancelling {
        Next::Wait(until) => Some(*until),
        _ => None,
    };
    match until.into_iter().chain(also).min() {
        Some(until) => Action::requeue(until_then(until)),
        None => Action::await_change(),
    }
}

impl Subject {
    /// The same Task as it is now.
    pub(crate) fn at(&self, object: &DynamicObject) -> Self {
        let object = json_of(object);
        Self {
            state: TaskState::of(&object).unwrap_or_else(|| self.state.clone()),
            object,
            namespace: self.namespace.clone(),
            rule: self.rule.clone(),
            item: self.item.clone(),
        }
    }

    /// What is known about the Task `object`; `None` for what is no Task.
    pub(crate) fn of(context: &Context, object: &DynamicObject) -> Option<Self> {
        let json = json_of(object);
        let mut state = TaskState::of(&json)?;
        state.must_be_replaced |= cancel::is_wanted_again(context, &json, &state);
        let namespace = namespace_of(&json).to_owned();
        let policies = context.policies.current();
        let labels = context.policies.namespace_labels(&namespace);
        let spawner = Task::of(&json)
            .spawner()
            .and_then(|name| context.policies.spawner(&namespace, name));
        let found = PolicyScope::new(&policies, &namespace, &labels, spawner.as_ref()).failure(&json);
        let rule = found.as_ref().map(|found| (found.mode, found.rule.clone()));
        let item = found.and_then(|found| found.item).map(|item| {
            let name = item.work_item_name();
            (item, name)
        });
        Some(Self {
            object: json,
            state,
            namespace,
            rule,
            item,
        })
    }

    /// The next step. A cache is enough to see that nothing is to be done; everything else rests on a fresh read.
    async fn step(&self, context: &Context) -> Result<TaskAction, Error> {
        let cached = self.cached_memory(context);
        let step = self.step_with(context, cached.as_deref(), false);
        match step {
            TaskAction::Done | TaskAction::Wait(_) => return Ok(step),
            // Needs no memory.
            TaskAction::AddFinalizer if cached.is_none() && !self.state.is_terminal() => return Ok(step),
            _ => {}
        }
        let fresh = match &self.item {
            Some((_, name)) => ledger::read(context, &self.namespace, name).await?,
            None => None,
        };
        let abandoned = self.state.deleting.is_some() && hold::is_abandoned(context, self).await?;
        Ok(self.step_with(context, fresh.as_ref(), abandoned))
    }

    fn step_with(&self, context: &Context, memory: Option<&WorkItem>, abandoned: bool) -> TaskAction {
        let mut others = self.item_ref().map(|item| context.index.of(&item)).unwrap_or_default();
        others.retain(|other| other.uid != self.state.uid);
        let status = memory.map(|item| (item.uid().unwrap_or_default(), item.status.clone().unwrap_or_default()));
        next_action(&TaskContext {
            task: &self.state,
            others: &others,
            rule: self.rule.as_ref().map(|(mode, rule)| (*mode, rule)),
            work_item: self.item.as_ref().map(|(_, name)| name.as_str()),
            item_status: status.as_ref().map(|(uid, status)| (uid.as_str(), status)),
            retrying: retry::retrying(context, &self.object, &self.state, memory),
            abandoned,
            now: Timestamp::now(),
        })
    }

    /// The Task's memory as the cache has it, without all that is only for people.
    pub(crate) fn cached_memory(&self, context: &Context) -> Option<Arc<WorkItem>> {
        let (namespace, name) = self.item_ref()?;
        let key = kube::runtime::reflector::ObjectRef::new(&name).within(&namespace);
        context.work_items.get(&key)
    }

    /// The Task's `WorkItem`.
    pub(crate) fn item_ref(&self) -> Option<ItemRef> {
        let (_, name) = self.item.as_ref()?;
        Some((self.namespace.clone(), name.clone()))
    }
}

/// How long until `moment`; never less than a tenth of a second, so that a clock that stands still does not spin.
fn until_then(moment: Timestamp) -> Duration {
    let wait = moment.duration_since(Timestamp::now());
    Duration::try_from(wait)
        .unwrap_or_default()
        .max(Duration::from_millis(100))
}
