//! Adds the values that wait for the issue source to the Task, and then to the Task's Job.
//!
//! The Task's annotation [`keys::PENDING`] says what is still to be done, and the last write removes it: an interrupted reconcile
//! goes on from there, and a Task without it is never read for this.

use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};
use taskgate_api::{kelos::Task, keys, metadata::Metadata};
use taskgate_policy::{
    PolicySet, WorkspaceInfo,
    metadata::{Pending, TemplateInput, copy, fill, settle},
    source::SourceKey,
};
use tracing::{debug, info};

use super::{MetadataReconciler, record_skipped};
use crate::{
    context::Context,
    error::{Error, is_refused},
    job,
    kubernetes::{self, json_of, settled},
    task::{self, Subject, TaskResult},
};

impl MetadataReconciler {
    /// Adds the labels and annotations that are still missing on the Task `cached` or on its Job, if their values are known by now.
    /// `AwaitChange`: there is nothing to do, or it is done.
    ///
    /// RBAC: `get, patch` on tasks and jobs, `get` on workspaces.
    pub(crate) async fn complete(&self, cached: &DynamicObject) -> Result<TaskResult, Error> {
        let context = &*self.context;
        if !cached.annotations().contains_key(keys::PENDING) || cached.metadata.deletion_timestamp.is_some() {
            return Ok(TaskResult::AwaitChange);
        }
        // The cache is enough to see that the source was not read yet; a write follows a read of the API server.
        let (Some(key), Some(subject)) = (source_of(cached), Subject::of(context, cached)) else {
            return Ok(TaskResult::AwaitChange);
        };
        let waits = Pending::of(&subject.object).waits();
        if waits && self.sources.latest(&key).is_none() {
            return Ok(TaskResult::AwaitChange);
        }
        let Some(fresh) = task::read_untrimmed(context, &subject).await? else {
            return Ok(TaskResult::AwaitChange);
        };
        let subject = subject.at(&fresh);
        let pending = Pending::of(&subject.object);
        if pending.waits() {
            // The Job follows when the watch shows the Task with its values.
            return self.fill_task(&subject, &key).await;
        }
        if pending.copies() {
            return fill_job(context, &subject).await;
        }
        Ok(TaskResult::AwaitChange)
    }

    /// Adds to the Task the values that waited for its source.
    async fn fill_task(&self, subject: &Subject, key: &SourceKey) -> Result<TaskResult, Error> {
        let context = &*self.context;
        let Some(observation) = self.sources.latest(key) else {
            return Ok(TaskResult::AwaitChange);
        };
        let workspace = workspace(context, subject).await?;
        // A deleted item stays unknown.
        let source_fields = observation.item.map(|item| item.template_fields()).unwrap_or_default();
        let inputs = (workspace.as_ref(), &source_fields);
        // All templates of all policies.
        let filling = tokio::task::block_in_place(|| rendered(context, subject, inputs, fill));
        match task::patch(context, subject, filling.change).await? {
            TaskResult::Changed(_) => {}
            result => return Ok(result),
        }
        info!(
            namespace = subject.namespace,
            name = subject.state.name,
            item = key.item,
            "added the labels and annotations that waited for the issue source"
        );
        self.metrics.completed(filling.left_out.is_some());
        if let Some(note) = &filling.left_out {
            let state = &subject.state;
            // Recorded however old the Task is.
            self.recorded.is_new(&state.uid, note, state.created, context.now());
            record_skipped(context, subject, note);
        }
        Ok(TaskResult::AwaitChange)
    }
}

/// Enqueues the Tasks that wait whenever the source of their item was read.
pub(crate) async fn follow_sources(reconciler: &MetadataReconciler, enqueue: impl Fn(&str, &str)) {
    let enqueue_waiting = |key: Option<&SourceKey>| {
        for task in reconciler.context.cache.tasks().all() {
            let waits = task.annotations().contains_key(keys::PENDING);
            if waits && (key.is_none() || source_of(&task).as_ref() == key) {
                enqueue(&task.namespace().unwrap_or_default(), &task.name_any());
            }
        }
    };
    reconciler.sources.follow(enqueue_waiting).await;
}

fn source_of(task: &DynamicObject) -> Option<SourceKey> {
    SourceKey::of(&task.namespace()?, Task::of(&json_of(task)))
}

/// What `render` makes of all policies and the inputs of the Task's templates.
fn rendered<T>(
    context: &Context,
    subject: &Subject,
    (workspace, source_fields): (Option<&WorkspaceInfo>, &Map<String, Value>),
    render: impl FnOnce(&PolicySet, &TemplateInput<'_>) -> T,
) -> T {
    context.in_scope(&subject.namespace, Task::of(&subject.object).spawner(), |scope| {
        let input = TemplateInput {
            object: &subject.object,
            namespace: scope.namespace,
            namespace_labels: scope.namespace_labels,
            spawner: scope.spawner,
            workspace,
            user: None,
            source_fields: Some(source_fields),
        };
        render(scope.policies, &input)
    })
}

async fn workspace(context: &Context, subject: &Subject) -> Result<Option<WorkspaceInfo>, Error> {
    let Some(name) = Task::of(&subject.object).workspace() else {
        return Ok(None);
    };
    if let Some(cached) = context.cache.workspaces().get(&subject.namespace, name) {
        return Ok(Some((*cached).clone()));
    }
    // It may be younger than the cache.
    let found = kubernetes::find(&context.workspaces(&subject.namespace), name).await;
    let found = found.map_err(|error| subject.error("reading the Workspace of", "Task", error))?;
    Ok(found.map(|found| WorkspaceInfo::of(&json_of(&found))))
}

/// Copies to the Job the labels and annotations of the Task. A Job that is created later gets them from admission: the Task is
/// reconciled again when its status names the Job.
async fn fill_job(context: &Context, subject: &Subject) -> Result<TaskResult, Error> {
    if let Some(job) = job::of_task(context, subject).await? {
        if !copy_to(context, subject, &job).await? {
            return Ok(TaskResult::Conflict);
        }
    } else if !subject.state.is_terminal() {
        return Ok(TaskResult::AwaitChange);
    }
    Ok(match task::patch(context, subject, settle()).await? {
        TaskResult::Changed(_) => TaskResult::AwaitChange,
        result => result,
    })
}

/// Whether the Job has all of them now; `false` after a conflict.
async fn copy_to(context: &Context, subject: &Subject, job: &Value) -> Result<bool, Error> {
    let inputs = (None, &Map::new());
    let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
    let metadata = Metadata::of(job);
    for pods in [true, false] {
        let change = |policies: &PolicySet, input: &TemplateInput<'_>| copy(policies, input, job, pods);
        let Some(mut change) = rendered(context, subject, inputs, change) else {
            return Ok(true);
        };
        change["metadata"]["uid"] = json!(metadata.uid());
        change["metadata"]["resourceVersion"] = job.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        let patch = Patch::Merge(change);
        let patched = jobs.patch(&subject.state.name, &PatchParams::default(), &patch).await;
        match settled(patched) {
            Ok(patched) => return Ok(patched.is_some()),
            // The API server, or a policy of the cluster, decides whether a pod template may still change.
            Err(error) if is_refused(&error) && pods => debug!(%error, "the pod template is not changed"),
            Err(error) => return Err(subject.error("patching", "Job", error)),
        }
    }
    Ok(true)
}
