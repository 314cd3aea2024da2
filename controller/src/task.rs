//! A Task with what decides about it, and the reads and writes of Tasks. Each write carries the UID and the resource version that
//! were read.
//!
//! Imports `context`, `error`, `kubernetes`, `workqueue`. Called by `breaker`, `cancellation`, `metadata`,
//! `queueing`, `finalizer` and `controller::task`, which is the reconcile loop.

use kube::{
    ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{Mode, kelos::Task, task_policy::FailurePolicy};
use taskgate_cache::trim_task;
use taskgate_policy::{ItemIdentity, PolicyScope, TaskState};
use tracing::info;

use crate::{
    context::{Context, ItemRef},
    error::Error,
    kubernetes::{delete_only, json_of, namespace_of},
    workqueue::StepResult,
};

/// What a step for a Task came to.
pub(crate) type TaskResult = StepResult<DynamicObject>;

/// A Task, the failure policy that governs it, and its work item.
pub(crate) struct Subject {
    pub(crate) object: Value,
    pub(crate) state: TaskState,
    pub(crate) namespace: String,
    /// Mode and failure section of the policy that governs it.
    pub(crate) rule: Option<(Mode, FailurePolicy)>,
    /// Its work item, and the name of the `WorkItem`.
    pub(crate) item: Option<(ItemIdentity, String)>,
}

impl Subject {
    /// The Task `object` under the policies of this moment; `None` for an object that is no Task.
    pub(crate) fn of(context: &Context, object: &DynamicObject) -> Option<Self> {
        let json = json_of(object);
        let state = TaskState::of(&json)?;
        let namespace = namespace_of(&json).to_owned();
        let policies = context.policies();
        let labels = context.namespace_labels(&namespace);
        let spawner = Task::of(&json)
            .spawner()
            .and_then(|name| context.spawner(&namespace, name));
        let found = PolicyScope::new(&policies, &namespace, &labels, spawner.as_deref()).failure(&json);
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

    /// The same Task in another version.
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

    /// The failure section of the policy that governs it.
    pub(crate) fn failure_policy(&self) -> Option<&FailurePolicy> {
        self.rule.as_ref().map(|(_, rule)| rule)
    }

    /// The reference to the Task's `WorkItem`.
    pub(crate) fn item_ref(&self) -> Option<ItemRef> {
        let (_, name) = self.item.as_ref()?;
        Some((self.namespace.clone(), name.clone()))
    }

    /// The resource version that was read.
    pub(crate) fn resource_version(&self) -> Option<&Value> {
        self.object.pointer("/metadata/resourceVersion")
    }

    /// `doing` failed for the Task, or for an object of its name.
    pub(crate) fn error(&self, doing: &'static str, kind: &'static str, source: kube::Error) -> Error {
        Error::new(doing, kind, &self.namespace, &self.state.name, source)
    }
}

/// Reads the Task; `None` when it is gone, also when another one has its name.
pub(crate) async fn read(context: &Context, subject: &Subject) -> Result<Option<DynamicObject>, Error> {
    let mut found = read_untrimmed(context, subject).await?;
    if let Some(object) = &mut found {
        trim_task(object);
    }
    Ok(found)
}

/// Reads the Task with all of its fields.
pub(crate) async fn read_untrimmed(context: &Context, subject: &Subject) -> Result<Option<DynamicObject>, Error> {
    let found = context.tasks(&subject.namespace).get_opt(&subject.state.name).await;
    let found = found.map_err(|error| subject.error("reading", "Task", error))?;
    Ok(found.filter(|object| object.uid().as_deref() == Some(&subject.state.uid)))
}

/// Changes the Task's metadata.
pub(crate) async fn patch(context: &Context, subject: &Subject, mut metadata: Value) -> Result<TaskResult, Error> {
    let version = subject.resource_version();
    metadata["resourceVersion"] = version.cloned().unwrap_or_default();
    metadata["uid"] = subject.state.uid.clone().into();
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let tasks = context.tasks(&subject.namespace);
    let patched = tasks.patch(&subject.state.name, &PatchParams::default(), &patch).await;
    written(context, version, patched).map_err(|error| subject.error("patching", "Task", error))
}

/// Changes the Task's status, if the Task is still at `version`.
pub(crate) async fn patch_status(
    context: &Context,
    subject: &Subject,
    version: Option<&Value>,
    status: Value,
) -> Result<TaskResult, Error> {
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": version, "uid": subject.state.uid},
        "status": status,
    }));
    let tasks = context.tasks(&subject.namespace);
    let patched = tasks
        .patch_status(&subject.state.name, &PatchParams::default(), &patch)
        .await;
    written(context, version, patched).map_err(|error| subject.error("writing the status of", "Task", error))
}

/// The result of a write to the Task at `version`. The cache has it at once, so that the next reconcile does not repeat it.
fn written(
    context: &Context,
    version: Option<&Value>,
    patched: kube::Result<DynamicObject>,
) -> kube::Result<TaskResult> {
    let mut result = TaskResult::of_write(patched)?;
    if let TaskResult::Changed(object) = &mut result {
        trim_task(object);
        if let Some(before) = version.and_then(Value::as_str) {
            context.cache.task_written(before, (**object).clone());
        }
    }
    Ok(result)
}

/// Deletes the version of the Task that was read.
pub(crate) async fn delete(context: &Context, subject: &Subject) -> Result<TaskResult, Error> {
    let version = subject.resource_version().and_then(Value::as_str);
    let params = delete_only(Some(subject.state.uid.clone()), version.map(ToOwned::to_owned));
    let (tasks, name) = (context.tasks(&subject.namespace), &subject.state.name);
    let result = StepResult::of_write(tasks.delete(name, &params).await);
    let result = result.map_err(|error| subject.error("deleting", "Task", error))?;
    Ok(match result {
        StepResult::Changed(_) => {
            info!(namespace = subject.namespace, name, "deleted an ended Task");
            TaskResult::AwaitChange
        }
        result => result.for_other(),
    })
}
