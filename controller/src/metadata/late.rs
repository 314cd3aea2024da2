//! What waits for the tracker, put on the Task when it has told; then on the Task's Job.
//!
//! The Task's annotation [`keys::PENDING`] says what is still to be done, and goes with the last write: whatever is
//! interrupted goes on from there, and a Task without it is never looked at again.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    runtime::reflector::Store,
};
use serde_json::{Map, Value, json};
use taskgate_api::{kelos::Task, keys, metadata::Metadata};
use taskgate_policy::{
    PolicySet, SpawnerInfo, WorkspaceInfo,
    metadata::{Pending, TemplateInput, copy, fill, settle},
    source::SourceKey,
};
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, info};

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict, is_refused},
    events, evidence, hold, named,
    task::{Outcome, Subject},
    tasks::{json_of, kelos_resource},
};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completed {
    /// Nothing is left to be done for now.
    Rest,
    /// Somebody else was faster: look again.
    Conflict,
}

/// Does what is still to be done about the labels and annotations of the Task `cached`, if anything can be done by now.
///
/// RBAC: `get, patch` on tasks and jobs, `get` on workspaces.
pub(crate) async fn complete(context: &Context, cached: &DynamicObject) -> Result<Completed, Error> {
    if !cached.annotations().contains_key(keys::PENDING) || cached.metadata.deletion_timestamp.is_some() {
        return Ok(Completed::Rest);
    }
    // A cache is enough to see that the tracker has not told yet; what is written rests on a fresh read.
    let (Some(key), Some(subject)) = (source_of(cached), Subject::of(context, cached)) else {
        return Ok(Completed::Rest);
    };
    let waits = Pending::of(&subject.object).waits();
    if waits && context.sources.latest(&key).is_none() {
        return Ok(Completed::Rest);
    }
    let tasks = context.tasks(&subject.namespace);
    let fresh = tasks.get_opt(&subject.state.name).await;
    let fresh = fresh.map_err(|error| Error::of("reading", "Task", &subject, error))?;
    let Some(fresh) = fresh.filter(|fresh| fresh.uid().as_deref() == Some(&subject.state.uid)) else {
        return Ok(Completed::Rest);
    };
    let subject = subject.at(&fresh);
    let pending = Pending::of(&subject.object);
    if pending.waits() {
        // Copying goes on when the Task comes back as it is now.
        return put(context, &subject, &key).await;
    }
    if pending.copies() {
        return pass_on(context, &subject).await;
    }
    Ok(Completed::Rest)
}

/// Looks at the Tasks that wait whenever a tracker has told something of their item.
pub(crate) async fn follow_sources(context: &Arc<Context>, tasks: &Store<DynamicObject>, look_at: impl Fn(&str, &str)) {
    let mut news = context.sources.subscribe();
    loop {
        let key = match news.recv().await {
            Ok(key) => Some(key),
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return,
        };
        for task in tasks.state() {
            let waits = task.annotations().contains_key(keys::PENDING);
            if waits && key.as_ref().is_none_or(|key| source_of(&task).as_ref() == Some(key)) {
                look_at(&task.namespace().unwrap_or_default(), &task.name_any());
            }
        }
    }
}

fn source_of(task: &DynamicObject) -> Option<SourceKey> {
    SourceKey::of(&task.namespace()?, Task::of(&json_of(task)))
}

/// What surrounds a Task, owned.
struct Surroundings {
    policies: Arc<PolicySet>,
    namespace_labels: BTreeMap<String, String>,
    spawner: Option<SpawnerInfo>,
    workspace: Option<WorkspaceInfo>,
    source_fields: Map<String, Value>,
}

impl Surroundings {
    fn of(context: &Context, subject: &Subject) -> Self {
        let spawner = Task::of(&subject.object).spawner();
        Self {
            policies: context.policies.current(),
            namespace_labels: context.policies.namespace_labels(&subject.namespace),
            spawner: spawner.and_then(|name| context.policies.spawner(&subject.namespace, name)),
            workspace: None,
            source_fields: Map::new(),
        }
    }

    fn scope<'a>(&'a self, subject: &'a Subject) -> TemplateInput<'a> {
        TemplateInput {
            object: &subject.object,
            namespace: &subject.namespace,
            namespace_labels: &self.namespace_labels,
            spawner: self.spawner.as_ref(),
            workspace: self.workspace.as_ref(),
            user: None,
            source_fields: Some(&self.source_fields),
        }
    }
}

/// Puts on the Task what it waited for.
async fn put(context: &Context, subject: &Subject, key: &SourceKey) -> Result<Completed, Error> {
    let Some(seen) = context.sources.latest(key) else {
        return Ok(Completed::Rest);
    };
    let mut surroundings = Surroundings::of(context, subject);
    surroundings.workspace = workspace(context, subject).await?;
    // Of an item that is gone nothing will ever be known.
    surroundings.source_fields = seen.item.map(|item| item.template_fields()).unwrap_or_default();
    // All templates of all policies.
    let filling = tokio::task::block_in_place(|| fill(&surroundings.policies, &surroundings.scope(subject)));
    match hold::patch(context, subject, filling.change).await? {
        Outcome::Conflict => return Ok(Completed::Conflict),
        Outcome::Changed(_) => {}
        _ => return Ok(Completed::Rest),
    }
    info!(
        namespace = subject.namespace,
        name = subject.state.name,
        item = key.item,
        "labels and annotations are made from what the tracker told"
    );
    context.metrics.completed_metadata(filling.left_out.is_some());
    if let Some(note) = &filling.left_out {
        let state = &subject.state;
        // However old the Task is: it is told of this now.
        context.told.first(&state.uid, note, state.created, Timestamp::now());
        events::left_out(context, subject, note).await;
    }
    Ok(Completed::Rest)
}

async fn workspace(context: &Context, subject: &Subject) -> Result<Option<WorkspaceInfo>, Error> {
    let Some(name) = Task::of(&subject.object).workspace() else {
        return Ok(None);
    };
    let kind = kelos_resource(&context.task_kind.version, "Workspace", "workspaces");
    let workspaces = Api::<DynamicObject>::namespaced_with(context.client.clone(), &subject.namespace, &kind);
    let found = named::object(&workspaces, name).await;
    let found = found.map_err(|error| Error::of("reading the Workspace of", "Task", subject, error))?;
    Ok(found.map(|found| WorkspaceInfo::of(&json_of(&found))))
}

/// Copies to the Job what the Task has by now. A Job that is made later gets it from admission: when the Task says that it
/// has one, this is looked at again.
async fn pass_on(context: &Context, subject: &Subject) -> Result<Completed, Error> {
    if let Some(job) = evidence::job_of(context, subject).await? {
        if !copy_to(context, subject, &job).await? {
            return Ok(Completed::Conflict);
        }
    } else if !subject.state.is_terminal() {
        return Ok(Completed::Rest);
    }
    Ok(match hold::patch(context, subject, settle()).await? {
        Outcome::Conflict => Completed::Conflict,
        _ => Completed::Rest,
    })
}

/// Whether the Job has now what it is to have.
async fn copy_to(context: &Context, subject: &Subject, job: &Value) -> Result<bool, Error> {
    let surroundings = Surroundings::of(context, subject);
    let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
    let metadata = Metadata::of(job);
    for pods in [true, false] {
        let Some(mut change) = copy(&surroundings.policies, &surroundings.scope(subject), job, pods) else {
            return Ok(true);
        };
        change["metadata"]["uid"] = json!(metadata.uid());
        change["metadata"]["resourceVersion"] = job.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        let patch = Patch::Merge(change);
        match jobs.patch(&subject.state.name, &PatchParams::default(), &patch).await {
            Ok(_) => return Ok(true),
            Err(error) if is_absent(&error) || is_conflict(&error) => return Ok(false),
            // Whether a pod template may still change is for the API server to say, and for the cluster's own policies.
            Err(error) if is_refused(&error) && pods => debug!(%error, "the pod template stays as it is"),
            Err(error) => return Err(Error::of("patching", "Job", subject, error)),
        }
    }
    Ok(true)
}
