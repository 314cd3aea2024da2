//! The memory in the cluster: `WorkItem`s are read, made and written here, and only here.
//!
//! An end is counted exactly once: the attempt is keyed by the Task's UID, and the status is written with the resource
//! version that it was computed from. Whoever loses a race reads again and finds the attempt there.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{ResourceExt as _, api::PostParams};
use taskgate_api::{
    WorkItem, WorkItemStatus,
    kelos::Task,
    work_item::{Breaker, Outcome as End},
};
use taskgate_policy as policy;

use crate::{
    cap,
    context::Context,
    error::{Error, is_absent, is_conflict, is_namespace_terminating},
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
    Abandon,
}

impl From<Written> for Outcome {
    fn from(written: Written) -> Self {
        match written {
            Written::Now(_) | Written::Before => Self::Again,
            Written::Conflict => Self::Conflict,
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
    let api = context.work_items(namespace);
    let mut item = match read(context, namespace, name).await? {
        Some(item) => item,
        None if !create => return Ok(Written::Before),
        None => {
            cap::make_room(context, namespace).await?;
            match api.create(&PostParams::default(), &new(subject, identity, name)).await {
                Ok(item) => item,
                Err(error) if is_conflict(&error) => return Ok(Written::Conflict),
                Err(error) if is_absent(&error) || is_namespace_terminating(&error) => return Ok(Written::Abandon),
                Err(error) => return Err(failed("creating", namespace, name, error)),
            }
        }
    };
    let Some(status) = change(&item.status.clone().unwrap_or_default()) else {
        return Ok(Written::Before);
    };
    item.status = Some(status);
    match api.replace_status(name, &PostParams::default(), &item).await {
        Ok(item) => Ok(Written::Now(Box::new(item))),
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(Written::Conflict),
        Err(error) => Err(failed("writing", namespace, name, error)),
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
