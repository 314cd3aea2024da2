//! The memory in the cluster: `WorkItem`s are read, made and written here, and only here.
//!
//! An end is counted exactly once: the attempt is keyed by the Task's UID, and the status is written with the resource
//! version that it was computed from. Whoever loses a race reads again and finds the attempt there.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _, api::PostParams};
use taskgate_api::{
    WorkItem, WorkItemStatus,
    kelos::Task,
    work_item::{Breaker, Outcome as End},
};
use taskgate_policy as policy;
use tracing::warn;

use crate::{
    cap,
    context::Context,
    error::{Error, is_absent, is_conflict, is_invalid, is_namespace_terminating},
    events, evidence,
    task::{Outcome, Subject},
};

/// The `WorkItem` `name`, read consistently; one that is being deleted is none.
pub(crate) async fn read(context: &Context, namespace: &str, name: &str) -> Result<Option<WorkItem>, Error> {
    let found = context.work_items(namespace).get_opt(name).await;
    let found = found.map_err(|error| failed("reading", namespace, name, error))?;
    Ok(found.filter(|item| item.metadata.deletion_timestamp.is_none()))
}

/// Writes the Task's end into its `WorkItem`.
pub(crate) async fn record(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    let rule = subject.rule.as_ref().map(|(_, rule)| rule);
    let ending = evidence::ending(context, subject, rule).await?;
    let now = Timestamp::now();
    let attempt = policy::attempt(&subject.object, &subject.state, ending, now);
    let end = attempt.outcome;
    let cost = attempt.cost_usd.clone();
    let outcome = write(context, subject, true, |status| {
        policy::record(status, attempt.clone(), rule, now)
    })
    .await?;
    if let Written::Now(item) = &outcome {
        context.metrics.recorded(end, cost.as_deref());
        let opened = open_by(item, &subject.state.uid);
        if opened {
            context.metrics.opened(&subject.namespace, item.spec.spawner.as_deref());
        }
        if end == End::Failed || end == End::Infrastructure || end == End::Stopped {
            events::failed(context, subject, item, opened).await;
        }
    }
    Ok(outcome.into())
}

/// Adds what the Task used, where its end was recorded before Kelos told; `None` when there is nothing to add. A cache is enough
/// to see that.
pub(crate) async fn add_late_usage(context: &Context, subject: &Subject) -> Result<Option<Outcome>, Error> {
    let filled = |status: &WorkItemStatus| policy::add_late_usage(status, &subject.object);
    let cached = subject.cached_memory(context);
    let Some(status) = cached.as_ref().and_then(|item| item.status.as_ref()) else {
        return Ok(None);
    };
    if filled(status).is_none() {
        return Ok(None);
    }
    match write(context, subject, false, filled).await? {
        Written::Before => Ok(None),
        outcome => {
            if let Written::Now(item) = &outcome {
                let status = item.status.as_ref();
                let mut attempts = status.into_iter().flat_map(|status| &status.attempts);
                let known = attempts.find(|known| known.uid == subject.state.uid);
                context.metrics.paid(known.and_then(|known| known.cost_usd.as_deref()));
            }
            Ok(Some(outcome.into()))
        }
    }
}

/// Forgets the item's failures, because somebody else deleted the Task.
pub(crate) async fn reset(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    let now = Timestamp::now();
    let uid = subject.state.uid.as_str();
    let outcome = write(context, subject, false, |status| {
        policy::reset(status, "TombstoneDeleted", Some(uid), now)
    })
    .await?;
    if let Written::Now(item) = &outcome {
        events::reset(context, subject, item).await;
    }
    Ok(outcome.into())
}

/// Writes the breaker's state as policy and time make it.
pub(crate) async fn refresh(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    let now = Timestamp::now();
    let rule = subject.rule.as_ref().map(|(_, rule)| rule);
    let outcome = write(context, subject, false, |status| policy::refresh(status, rule, now)).await?;
    Ok(outcome.into())
}

/// What became of a write.
enum Written {
    /// The `WorkItem` is now this.
    Now(Box<WorkItem>),
    /// It stood there already.
    Before,
    Conflict,
    Going,
    Abandon,
}

impl From<Written> for Outcome {
    fn from(written: Written) -> Self {
        match written {
            Written::Now(_) | Written::Before => Self::Again,
            Written::Conflict => Self::Conflict,
            Written::Going => Self::Later,
            Written::Abandon => Self::Abandon,
        }
    }
}

async fn write(
    context: &Context,
    subject: &Subject,
    create: bool,
    change: impl Fn(&WorkItemStatus) -> Option<WorkItemStatus>,
) -> Result<Written, Error> {
    let Some((identity, name)) = &subject.item else {
        return Ok(Written::Before);
    };
    let (namespace, name) = (subject.namespace.as_str(), name.as_str());
    let mut item = match read(context, namespace, name).await? {
        Some(item) => item,
        None if !create => return Ok(Written::Before),
        None => match make(context, namespace, &new(subject, identity, name)).await? {
            Made::Now(item) => *item,
            Made::Conflict => return Ok(Written::Conflict),
            Made::Going => return Ok(Written::Going),
            Made::Abandon => return Ok(Written::Abandon),
        },
    };
    let Some(status) = change(&item.status.clone().unwrap_or_default()) else {
        return Ok(Written::Before);
    };
    item.status = Some(status);
    let written = replace(context, namespace, name, &item).await?;
    Ok(written.map_or(Written::Conflict, |item| Written::Now(Box::new(item))))
}

/// Writes the status of `item`, as its schema takes it, which was read as `name`; `None` if it changed or went meanwhile.
pub(crate) async fn replace(
    context: &Context,
    namespace: &str,
    name: &str,
    item: &WorkItem,
) -> Result<Option<WorkItem>, Error> {
    let api = context.work_items(namespace);
    let with = |status: WorkItemStatus| WorkItem {
        status: Some(status),
        ..item.clone()
    };
    let status = item.status.clone().unwrap_or_default();
    let fitted = with(policy::fit(&status));
    let mut written = api.replace_status(name, &PostParams::default(), &fitted).await;
    if written.as_ref().is_err_and(is_invalid) {
        warn!(
            namespace,
            name, "the status of a WorkItem is invalid: only counts and ends are written"
        );
        let least = with(policy::minimal(&status));
        written = api.replace_status(name, &PostParams::default(), &least).await;
    }
    match written {
        Ok(item) => Ok(Some(item)),
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(None),
        Err(error) => Err(failed("writing", namespace, name, error)),
    }
}

/// What became of making a memory.
pub(crate) enum Made {
    /// It is this.
    Now(Box<WorkItem>),
    /// Somebody else was faster.
    Conflict,
    /// One of that name is being deleted: until it is gone there can be no other.
    Going,
    /// Its namespace ends.
    Abandon,
}

/// Makes the memory `item`, and room for it: never for one that cannot come yet.
pub(crate) async fn make(context: &Context, namespace: &str, item: &WorkItem) -> Result<Made, Error> {
    let (api, name) = (context.work_items(namespace), item.name_any());
    let before = api.get_metadata_opt(&name).await;
    let before = before.map_err(|error| failed("reading", namespace, &name, error))?;
    if let Some(before) = before {
        let going = before.meta().deletion_timestamp.is_some();
        return Ok(if going { Made::Going } else { Made::Conflict });
    }
    cap::make_room(context, namespace).await?;
    match api.create(&PostParams::default(), item).await {
        Ok(item) => Ok(Made::Now(Box::new(item))),
        Err(error) if is_conflict(&error) => Ok(Made::Conflict),
        Err(error) if is_absent(&error) || is_namespace_terminating(&error) => Ok(Made::Abandon),
        Err(error) => Err(failed("creating", namespace, &name, error)),
    }
}

/// A new memory. Its spawner owns it, so that it goes with the spawner; a stated item belongs to nobody.
fn new(subject: &Subject, identity: &policy::ItemIdentity, name: &str) -> WorkItem {
    let mut item = identity.work_item(name);
    let owner = Task::of(&subject.object)
        .spawner_owner()
        .filter(|_| identity.spawner.is_some());
    if let Some(owner) = owner {
        item.owner_references_mut().push(OwnerReference {
            api_version: owner.api_version.to_owned(),
            kind: owner.kind.to_owned(),
            name: owner.name.to_owned(),
            uid: owner.uid.to_owned(),
            ..OwnerReference::default()
        });
    }
    item
}

fn open_by(item: &WorkItem, uid: &str) -> bool {
    item.status.as_ref().is_some_and(|status| {
        status.breaker == Some(Breaker::Open)
            && status
                .attempts
                .last()
                .is_some_and(|attempt| attempt.uid == uid && attempt.opened)
    })
}

pub(crate) fn failed(doing: &'static str, namespace: &str, name: &str, error: kube::Error) -> Error {
    Error {
        doing,
        kind: "WorkItem",
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: Box::new(error),
    }
}
