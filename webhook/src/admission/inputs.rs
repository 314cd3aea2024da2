//! The inputs of a decision besides the request, and the trait that reads them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    job::Job,
    kelos,
    metadata::{Metadata, Owner},
};
use taskgate_policy::{
    AdmissionContext, Governed, ItemIdentity, ItemSnapshot, Kind, KueueInfo, Phase, PolicySet, Request, Right,
    SpawnerInfo, TaskState, Workspace, requests_queue,
};

use super::review::UserInfo;

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

/// The Kueue objects that a decision on a Job needs.
#[derive(Clone, Copy, Debug)]
pub struct QueueLookup<'a> {
    /// The Job's namespace.
    pub namespace: &'a str,
    /// The labels of that namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The `LocalQueue` and the `WorkloadPriorityClass` that the Job names; `None` while it names no queue.
    pub names: Option<(&'a str, Option<&'a str>)>,
}

/// The stored Tasks of an item that compete with a reviewed Task for its attempts.
#[derive(Clone, Debug, Default)]
pub struct CompetingTasks(Vec<TaskState>);

impl CompetingTasks {
    /// The Tasks among `stored` that compete with `reviewed`: all others, or for a Job the earlier ones and those whose UID is
    /// in `running`, as they have a Job already.
    ///
    /// Tasks that are created at the same moment are admitted together, because none of them is stored when the others are
    /// listed. Their Jobs are not: each review of a Job sees all Tasks that have a Job. A Task that was stored after the Job of
    /// a later Task was admitted waits for that Job.
    pub fn among(mut stored: Vec<TaskState>, reviewed: &ReviewedTask<'_>, running: &HashSet<String>) -> Self {
        let own_name = Metadata::of(reviewed.task).name().unwrap_or_default();
        let own = TaskState::of(reviewed.task);
        stored.retain(|task| {
            let is_earlier = own.as_ref().is_none_or(|own| task.is_before(own));
            task.name != own_name && (!reviewed.for_job || is_earlier || running.contains(&task.uid))
        });
        Self(stored)
    }

    /// The names of unfinished Tasks that are later than the reviewed one; none unless the review is about a Job.
    pub(crate) fn later(stored: &[TaskState], reviewed: &ReviewedTask<'_>) -> Vec<String> {
        let Some(own) = TaskState::of(reviewed.task).filter(|_| reviewed.for_job) else {
            return Vec::new();
        };
        let later = stored.iter().filter(|task| task.is_under_way() && own.is_before(task));
        later.map(|task| task.name.clone()).collect()
    }

    /// How many of them may still add a failure to `status`.
    fn count(&self, status: Option<&WorkItemStatus>) -> u32 {
        let counted = self.0.iter().filter(|task| task.may_still_count(status)).count();
        u32::try_from(counted).unwrap_or(u32::MAX)
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

    /// The Task that `owner` refers to, with all fields. `None` if it does not exist, or has another UID: then it is a successor of
    /// the same name, which does not own the Job.
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

    /// Kueue as a decision on a Job needs it. A failed read leaves a field unknown: a Job does not wait for Kueue.
    fn kueue(&self, lookup: QueueLookup<'_>) -> impl Future<Output = KueueInfo> + Send {
        let _ = lookup;
        std::future::ready(KueueInfo::default())
    }

    /// The status of an item's WorkItem; `consistent`: read from the API server rather than the cache.
    fn work_item_status(
        &self,
        namespace: &str,
        item: &ItemIdentity,
        consistent: bool,
    ) -> impl Future<Output = Result<Option<Arc<WorkItemStatus>>, ClusterReadError>> + Send;

    /// The other Tasks of the item that compete with `reviewed`. `None` where this is not implemented.
    fn competing_tasks(
        &self,
        reviewed: &ReviewedTask<'_>,
        item: &ItemIdentity,
    ) -> impl Future<Output = Result<Option<CompetingTasks>, ClusterReadError>> + Send {
        let _ = (reviewed, item);
        std::future::ready(Ok(None))
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
            kueue: self.kueue,
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
    };
    let namespace = request.namespace;
    // Without a policy nothing is governed, but a Task may have been cancelled manually.
    if inputs.policies.is_empty() {
        if let Some(owner) = Job::of(request.object).task().filter(|_| request.kind == Kind::Job) {
            inputs.owner_task = cluster.owner_task(namespace, &owner).await?;
        }
        return Ok(inputs);
    }
    let task = match request.kind {
        Kind::Task => Some(request.object),
        Kind::Job => {
            if let Some(owner) = Job::of(request.object).task() {
                inputs.owner_task = cluster.owner_task(namespace, &owner).await?;
            }
            inputs.owner_task.as_ref()
        }
        Kind::TaskPolicy | Kind::ClusterTaskPolicy | Kind::WorkItem | Kind::WorkItemStatus => None,
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
        let job = Job::of(request.object);
        let names = job.queue().filter(|_| request.phase == Phase::Validating);
        inputs.kueue = cluster
            .kueue(QueueLookup {
                namespace,
                namespace_labels: &inputs.namespace_labels,
                names: names.map(|queue| (queue, job.priority_class())),
            })
            .await;
    }
    Ok(inputs)
}

/// The stored state of the item that a request is about, owned.
#[derive(Debug, Default)]
pub(super) struct ItemState {
    status: Option<Arc<WorkItemStatus>>,
    active: Option<u32>,
}

impl ItemState {
    /// The state as the policy crate takes it.
    pub(super) fn memory(&self) -> ItemSnapshot<'_> {
        ItemSnapshot {
            status: self.status.as_deref(),
            active: self.active,
        }
    }
}

/// Loads the state of the item that the decision on `governed` depends on; empty if it depends on none.
///
/// Lists the competing Tasks before it reads the WorkItem: a Task that ends in between is counted twice rather than never.
pub(super) async fn load_item<C: ClusterContext>(
    cluster: &C,
    reviewed: &ReviewedTask<'_>,
    governed: &Governed<'_>,
) -> Result<ItemState, ClusterReadError> {
    let Some(item) = governed.item() else {
        return Ok(ItemState::default());
    };
    let consistent = governed.needs_consistent_read();
    let competing = if consistent {
        cluster.competing_tasks(reviewed, item).await?
    } else {
        None
    };
    let status = cluster.work_item_status(reviewed.namespace, item, consistent).await?;
    let active = competing.map(|competing| competing.count(status.as_deref()));
    Ok(ItemState { status, active })
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
        assert_eq!(CompetingTasks::later(&stored, &reviewed(true)), ["c", "d"]);
        assert!(
            CompetingTasks::later(&stored, &reviewed(false)).is_empty(),
            "the review is about a Task"
        );
        let count = |for_job, running: &[&str]| {
            let running = running.iter().map(ToString::to_string).collect();
            CompetingTasks::among(stored.clone(), &reviewed(for_job), &running).count(None)
        };
        assert_eq!(count(false, &[]), 3);
        assert_eq!(count(true, &[]), 1);
        assert_eq!(count(true, &["uid-d"]), 2);
        assert_eq!(count(true, &["uid-a", "uid-b"]), 1, "neither twice nor itself");
    }
}
