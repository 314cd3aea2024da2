//! The inputs of a decision besides the request, and the trait that reads them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::Value;
use taskgate_api::{
    WorkItem, WorkItemStatus,
    job::Job,
    kelos,
    kelos_fields::{KelosFields, KelosWriters},
    metadata::{Metadata, Owner},
};
use taskgate_policy::{
    AdmissionContext, Governed, ItemIdentity, Kind, KueueInfo, PolicySet, Request, Right, SpawnerInfo, TaskState,
    Workspace, has_queue_field, is_far_from_limit, requests_queue,
};

/// The labels of a namespace.
pub type NamespaceLabels = Arc<BTreeMap<String, String>>;

/// The Task that a review is about.
#[derive(Clone, Copy, Debug)]
pub struct ReviewedTask<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The Task to create, or the Task whose Job to create.
    pub task: &'a Value,
    /// Whether the review is about the Task's Job. Then only earlier Tasks compete.
    pub for_job: bool,
}

/// A check of a user's right.
#[derive(Clone, Debug, Default)]
pub struct AccessDecision {
    /// Whether the user has the right.
    pub allowed: bool,
    /// The API server's reason; mostly empty.
    pub reason: String,
}

/// A work item, as far as a decision about one of its Tasks depends on it.
#[derive(Clone, Debug, Default)]
pub struct ItemState {
    /// Its WorkItem; `None` if there is none.
    pub work_item: Option<Arc<WorkItem>>,
    /// Other Tasks of the item; `None` if they are not known.
    pub tasks: Option<Vec<TaskState>>,
}

impl ItemState {
    /// The status of its WorkItem.
    pub(super) fn status(&self) -> Option<&WorkItemStatus> {
        self.work_item.as_ref()?.status.as_ref()
    }

    /// How many of the Tasks match `counts`.
    fn count(&self, counts: impl Fn(&TaskState, Option<&WorkItemStatus>) -> bool) -> Option<u32> {
        let counted = self.tasks.as_ref()?.iter().filter(|task| counts(task, self.status()));
        Some(u32::try_from(counted.count()).unwrap_or(u32::MAX))
    }
}

impl ReviewedTask<'_> {
    /// The Tasks among the `stored` ones of its item that compete with it for the item's attempts: all others, or for a Job the
    /// earlier ones and those whose UID is in `running`, as they have a Job already.
    ///
    /// Tasks that are created at the same moment are admitted together, because none of them is stored when the others are
    /// reviewed. Their Jobs are not: each review of a Job sees all Tasks that have a Job. A Task that was stored after the Job of
    /// a later Task was admitted waits for that Job.
    pub fn competing(&self, mut stored: Vec<TaskState>, running: &HashSet<String>) -> Vec<TaskState> {
        let own_name = Metadata::of(self.task).name().unwrap_or_default();
        let own = TaskState::of(self.task);
        stored.retain(|task| {
            let is_earlier = own.as_ref().is_none_or(|own| task.is_before(own));
            task.name != own_name && (!self.for_job || is_earlier || running.contains(&task.uid))
        });
        stored
    }

    /// The names of unfinished Tasks that are later than this one; none unless the review is about a Job.
    pub(crate) fn later(&self, stored: &[TaskState]) -> Vec<String> {
        let Some(own) = TaskState::of(self.task).filter(|_| self.for_job) else {
            return Vec::new();
        };
        let later = stored.iter().filter(|task| task.is_under_way() && own.is_before(task));
        later.map(|task| task.name.clone()).collect()
    }
}

/// The cluster as far as decisions depend on it. The server reads the live one; tests and the offline check have their own.
pub trait ClusterContext: Send + Sync + 'static {
    /// Whether the caches are synced. Until then nothing is decided.
    fn is_ready(&self) -> bool;

    /// The policies in force.
    fn policies(&self) -> Arc<PolicySet>;

    /// The labels of `namespace`; empty if it does not exist.
    fn namespace_labels(
        &self,
        namespace: &str,
    ) -> impl Future<Output = Result<NamespaceLabels, ClusterReadError>> + Send;

    /// The Task that `owner` refers to, with its metadata, its status and the [`TEMPLATE_FIELDS`](taskgate_policy::TEMPLATE_FIELDS) at
    /// least. `None` if it does not exist, or has another UID: then it is a successor of the same name, which does not own the Job.
    fn owner_task(
        &self,
        namespace: &str,
        owner: &Owner<'_>,
    ) -> impl Future<Output = Result<Option<Value>, ClusterReadError>> + Send;

    /// A spawner as decisions need it; `None` if it does not exist.
    fn spawner(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Arc<SpawnerInfo>>, ClusterReadError>> + Send;

    /// A Workspace as decisions need it. A failed read gives [`Workspace::Unknown`].
    fn workspace(&self, namespace: &str, name: &str) -> impl Future<Output = Workspace> + Send;

    /// Kueue, for a new Job in `namespace`, which has these labels.
    fn kueue(&self, namespace: &str, namespace_labels: &BTreeMap<String, String>) -> KueueInfo {
        let _ = (namespace, namespace_labels);
        KueueInfo::default()
    }

    /// The item as it was known last, without asking the API server. It has all other Tasks whose failure its WorkItem may lack;
    /// where that cannot be known, it has none.
    fn known_item(&self, reviewed: &ReviewedTask<'_>, item: &ItemIdentity) -> ItemState;

    /// The item as it is stored, with the Tasks that [compete](ReviewedTask::competing) with the reviewed one.
    fn stored_item(
        &self,
        reviewed: &ReviewedTask<'_>,
        item: &ItemIdentity,
    ) -> impl Future<Output = Result<ItemState, ClusterReadError>> + Send;

    /// Whether the Task `name` is stored, and the spawner with the UID `spawner` controls it.
    fn spawner_has_task(
        &self,
        namespace: &str,
        spawner: &str,
        name: &str,
    ) -> impl Future<Output = Result<bool, ClusterReadError>> + Send {
        let _ = (namespace, spawner, name);
        std::future::ready(Ok(false))
    }

    /// The fields of Kelos' kinds that are taskgate's; none where Kelos' schemas are not extended.
    fn kelos_fields(&self) -> KelosFields {
        KelosFields::new()
    }

    /// The service accounts of Kelos that write whole objects.
    fn kelos_writers(&self) -> KelosWriters {
        KelosWriters::default()
    }

    /// The name of the user that taskgate itself is authenticated as, if that is known.
    fn own_user(&self) -> impl Future<Output = Result<Option<String>, ClusterReadError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Checks whether `user` has `right`.
    fn check_access(
        &self,
        user: &UserInfo,
        right: &Right,
    ) -> impl Future<Output = Result<AccessDecision, ClusterReadError>> + Send {
        let _ = (user, right);
        std::future::ready(Ok(AccessDecision::default()))
    }
}

/// An input of a decision cannot be read. The request is answered with an error, never with a guess: the webhook's
/// `failurePolicy` decides.
#[derive(Debug, thiserror::Error)]
#[error("taskgate cannot read {kind} {}: {reason}", coordinates(namespace, name))]
pub struct ClusterReadError {
    /// The kind of the object.
    pub kind: &'static str,
    /// Its namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The API server's message.
    pub reason: String,
    /// The error itself.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

fn coordinates(namespace: &str, name: &str) -> String {
    match namespace {
        "" => name.to_owned(),
        namespace => format!("{namespace}/{name}"),
    }
}

/// The inputs of a decision, owned.
#[derive(Debug)]
pub(super) struct DecisionInputs {
    policies: Arc<PolicySet>,
    namespace_labels: NamespaceLabels,
    owner_task: Option<Value>,
    spawner: Option<Arc<SpawnerInfo>>,
    workspace: Workspace,
    kueue: KueueInfo,
    kelos_fields: KelosFields,
}

impl DecisionInputs {
    /// The Task that owns the Job.
    pub(super) fn owner_task(&self) -> Option<&Value> {
        self.owner_task.as_ref()
    }

    /// The inputs as the policy crate takes them.
    pub(super) fn context(&self) -> AdmissionContext<'_> {
        AdmissionContext {
            policies: &self.policies,
            namespace_labels: &self.namespace_labels,
            owner_task: self.owner_task.as_ref(),
            spawner: self.spawner.as_deref(),
            workspace: &self.workspace,
            kueue: &self.kueue,
            kelos_fields: &self.kelos_fields,
        }
    }
}

/// Reads the inputs of the policy match for `request`: the namespace, the Task (the object itself or a Job's owner), and the
/// spawner and the Workspace that the Task names.
pub(super) async fn read_inputs<C: ClusterContext>(
    cluster: &C,
    request: &Request<'_>,
) -> Result<DecisionInputs, ClusterReadError> {
    let mut inputs = DecisionInputs {
        policies: cluster.policies(),
        namespace_labels: NamespaceLabels::default(),
        owner_task: None,
        spawner: None,
        workspace: Workspace::Unknown,
        kueue: KueueInfo::default(),
        kelos_fields: cluster.kelos_fields(),
    };
    let namespace = request.namespace;
    if let Some(owner) = Job::of(request.object).task().filter(|_| request.kind == Kind::Job) {
        inputs.owner_task = cluster.owner_task(namespace, &owner).await?;
    }
    // Without a policy nothing is governed; but a Task may have been cancelled manually, so that its Job must not run, or have a
    // queue in its own field.
    if inputs.policies.is_empty() && !inputs.owner_task.as_ref().is_some_and(has_queue_field) {
        return Ok(inputs);
    }
    let task = match request.kind {
        Kind::Task => Some(request.object),
        Kind::Job => inputs.owner_task.as_ref(),
        Kind::TaskSpawner | Kind::TaskPolicy | Kind::ClusterTaskPolicy | Kind::WorkItem | Kind::WorkItemStatus => None,
    };
    if let Some(task) = task.map(kelos::Task::of) {
        inputs.namespace_labels = cluster.namespace_labels(namespace).await?;
        if let Some(spawner) = task.spawner() {
            inputs.spawner = cluster.spawner(namespace, spawner).await?;
        }
        if let Some(workspace) = task.workspace() {
            inputs.workspace = cluster.workspace(namespace, workspace).await;
        }
    }
    if let (Kind::Job, Some(task)) = (request.kind, &inputs.owner_task)
        && (inputs.policies.queues() || requests_queue(task))
    {
        inputs.kueue = cluster.kueue(namespace, &inputs.namespace_labels);
    }
    Ok(inputs)
}

/// Loads the state of the item that the decision on `governed` depends on, and how many other Tasks may add a failure to it; both
/// empty if it depends on none.
///
/// A decision that is enforced needs the stored state, because the limit holds only on that; but far from the limit, every
/// state that can be stored by now gives the same decision as the known one.
pub(super) async fn load_item<C: ClusterContext>(
    cluster: &C,
    reviewed: &ReviewedTask<'_>,
    governed: &Governed<'_>,
    now: Timestamp,
) -> Result<(ItemState, Option<u32>), ClusterReadError> {
    let Some(item) = governed.item() else {
        return Ok((ItemState::default(), None));
    };
    let known = cluster.known_item(reviewed, item);
    if !governed.is_enforced() {
        return Ok((known, None));
    }
    let unrecorded = known.count(TaskState::may_be_unrecorded);
    if unrecorded.is_some_and(|unrecorded| is_far_from_limit(governed, known.status(), unrecorded, now)) {
        return Ok((known, unrecorded));
    }
    let stored = cluster.stored_item(reviewed, item).await?;
    let active = stored.count(TaskState::may_still_count);
    Ok((stored, active))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(name: &str, created: &str) -> Value {
        json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": created}})
    }

    #[test]
    fn a_job_waits_for_earlier_tasks_and_for_existing_jobs() {
        let [first, own, same, last] = [
            task("a", "2026-01-01T00:00:00Z"),
            task("b", "2026-01-01T00:00:01Z"),
            task("c", "2026-01-01T00:00:01Z"),
            task("d", "2026-01-01T00:00:02Z"),
        ];
        let stored: Vec<_> = [&first, &own, &same, &last]
            .into_iter()
            .filter_map(TaskState::of)
            .collect();
        let reviewed = |for_job| ReviewedTask {
            namespace: "team",
            task: &own,
            for_job,
        };
        assert_eq!(reviewed(true).later(&stored), ["c", "d"]);
        assert!(reviewed(false).later(&stored).is_empty(), "the review is about a Task");
        let count = |for_job, running: &[&str]| {
            let running = running.iter().map(ToString::to_string).collect();
            reviewed(for_job).competing(stored.clone(), &running).len()
        };
        assert_eq!(count(false, &[]), 3);
        assert_eq!(count(true, &[]), 1);
        assert_eq!(count(true, &["uid-d"]), 2);
        assert_eq!(count(true, &["uid-a", "uid-b"]), 1, "neither twice nor itself");
    }
}
