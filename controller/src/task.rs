//! A Task with what decides about it, and the reads and writes of Tasks. Each write carries the UID and the resource version that
//! were read.
//!
//! Imports `context`, `error`, `kubernetes`, `task_index`, `workqueue`. Called by `breaker`, `cancellation`, `metadata`,
//! `queueing`, `finalizer` and `controller::task`, which is the reconcile loop.

use kube::{
    ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{Mode, WorkItem, kelos::Task, task_policy::FailurePolicy};
use taskgate_cache::trim_task;
use taskgate_policy::{ItemIdentity, PolicyScope, TaskState};

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    kubernetes::{json_of, namespace_of},
    task_index::ItemRef,
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

    /// The reference to the Task's `WorkItem`.
    pub(crate) fn item_ref(&self) -> Option<ItemRef> {
        let (_, name) = self.item.as_ref()?;
        Some((self.namespace.clone(), name.clone()))
    }

    /// The Task's `WorkItem` as the cache has it.
    pub(crate) fn cached_work_item(&self, context: &Context) -> Option<Box<WorkItem>> {
        context.cached_work_item(&self.item_ref()?)
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
    metadata["resourceVersion"] = subject.resource_version().cloned().unwrap_or_default();
    metadata["uid"] = subject.state.uid.clone().into();
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let tasks = context.tasks(&subject.namespace);
    let patched = tasks.patch(&subject.state.name, &PatchParams::default(), &patch).await;
    written(patched).map_err(|error| subject.error("patching", "Task", error))
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
    written(patched).map_err(|error| subject.error("writing the status of", "Task", error))
}

fn written(patched: kube::Result<DynamicObject>) -> kube::Result<TaskResult> {
    match patched {
        Ok(mut object) => {
            trim_task(&mut object);
            Ok(TaskResult::Changed(Box::new(object)))
        }
        Err(error) if is_absent(&error) => Ok(TaskResult::AwaitChange),
        Err(error) if is_conflict(&error) => Ok(TaskResult::Conflict),
        Err(error) => Err(error),
    }
}
