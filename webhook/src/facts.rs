//! What a decision needs to know besides the request, and where it is gathered.

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

use crate::kueue::QueueQuestion;

use crate::{cancellation::Permission, review::UserInfo};

/// The labels of a namespace.
pub type Labels = Arc<BTreeMap<String, String>>;

/// The Task that an item's other Tasks are counted for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its object: the Task that is to be made, or the one whose Job is to be made.
    pub task: &'a Value,
    /// Whether it is about the Task's Job. Then only Tasks count that came before.
    pub for_job: bool,
}

/// The other stored Tasks of an item.
#[derive(Clone, Debug, Default)]
pub struct Rivals(Vec<TaskState>);

impl Rivals {
    /// What counts for `ask` of the Tasks that are stored: not the one that it is about, and for a Job only those that came
    /// before, or whose UID is one of `running`: their Jobs are there already.
    ///
    /// Tasks that are created at the same moment are admitted together, because none is stored when the others are looked for.
    /// Their Jobs are not: each sees all Tasks that have a Job. A Task that was stored after the Job of a later one was
    /// admitted gives way to that Job.
    pub fn among(mut stored: Vec<TaskState>, ask: &Ask<'_>, running: &HashSet<String>) -> Self {
        let own = Metadata::of(ask.task).name().unwrap_or_default();
        let asking = TaskState::of(ask.task);
        stored.retain(|task| {
            let came_before = asking.as_ref().is_none_or(|asking| task.is_before(asking));
            task.name != own && (!ask.for_job || came_before || running.contains(&task.uid))
        });
        Self(stored)
    }

    /// Of Tasks that are under way and came after the one whose Job `ask` is about, the names.
    pub(crate) fn after(stored: &[TaskState], ask: &Ask<'_>) -> Vec<String> {
        let Some(asking) = TaskState::of(ask.task).filter(|_| ask.for_job) else {
            return Vec::new();
        };
        let later = stored
            .iter()
            .filter(|task| task.is_under_way() && asking.is_before(task));
        later.map(|task| task.name.clone()).collect()
    }

    /// How many of them may still add a failure to `status`.
    pub(crate) fn count(&self, status: Option<&WorkItemStatus>) -> u32 {
        let counted = self.0.iter().filter(|task| task.may_still_count(status)).count();
        u32::try_from(counted).unwrap_or(u32::MAX)
    }
}

/// What surrounds a request. The cluster is one such thing ([`crate::Cluster`]); tests and tools bring their own.
pub trait Surroundings: Send + Sync + 'static {
    /// Whether everything is known that will be asked for. Until then nothing is decided.
    fn is_ready(&self) -> bool;

    /// The policies of the moment.
    fn policies(&self) -> Arc<PolicySet>;

    /// The labels of `namespace`; none if there is no such namespace.
    fn namespace_labels(&self, namespace: &str) -> impl Future<Output = Result<Labels, FactError>> + Send;

    /// The Task that `owner` refers to, whole. `None` if it is gone, or if its uid is another one: then `owner` names a
    /// Task that is gone, and the one there now has nothing to do with the Job.
    fn owner_task(
        &self,
        namespace: &str,
        owner: &Owner<'_>,
    ) -> impl Future<Output = Result<Option<Value>, FactError>> + Send;

    /// What is known of a spawner; `None` if there is none of that name.
    fn spawner(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Arc<SpawnerInfo>>, FactError>> + Send;

    /// What is known of a Workspace. That it cannot be read is never worth an error.
    fn workspace(&self, namespace: &str, name: &str) -> impl Future<Output = Workspace> + Send;

    /// What is known of Kueue for a Job. What cannot be told is not; a Job does not have to wait for that.
    fn kueue(&self, question: QueueQuestion<'_>) -> impl Future<Output = KueueInfo> + Send {
        let _ = question;
        std::future::ready(KueueInfo::default())
    }

    /// What is remembered of an item; `fresh`: of this moment, whatever a cache says.
    fn memory(
        &self,
        namespace: &str,
        item: &ItemIdentity,
        fresh: bool,
    ) -> impl Future<Output = Result<Option<Arc<WorkItemStatus>>, FactError>> + Send;

    /// The other Tasks of the item, as far as they count for `ask`. `None` where nobody looks.
    fn rivals(
        &self,
        ask: &Ask<'_>,
        item: &ItemIdentity,
    ) -> impl Future<Output = Result<Option<Rivals>, FactError>> + Send {
        let _ = (ask, item);
        std::future::ready(Ok(None))
    }

    /// The name under which taskgate itself is known to the API server, if that is known.
    fn own_user(&self) -> impl Future<Output = Result<Option<String>, FactError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Whether `user` has `right`.
    fn may(&self, user: &UserInfo, right: &Right) -> impl Future<Output = Result<Permission, FactError>> + Send {
        let _ = (user, right);
        std::future::ready(Ok(Permission::default()))
    }
}

/// Something that a decision needs cannot be read. The request is answered with an error, never with a guess: the
/// webhook's `failurePolicy` decides.
#[derive(Debug, thiserror::Error)]
#[error("taskgate cannot read {kind} {}: {reason}", coordinates(namespace, name))]
pub struct FactError {
    /// The kind of the object.
    pub kind: &'static str,
    /// Its namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the API server said.
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

/// The facts about one request, owned.
#[derive(Debug)]
pub(crate) struct Gathered {
    policies: Arc<PolicySet>,
    namespace_labels: Labels,
    owner_task: Option<Value>,
    spawner: Option<Arc<SpawnerInfo>>,
    workspace: Workspace,
    kueue: KueueInfo,
}

impl Gathered {
    /// The Task that owns the Job.
    pub(crate) fn owner_task(&self) -> Option<&Value> {
        self.owner_task.as_ref()
    }

    /// The facts as the decision core takes them.
    pub(crate) fn facts(&self) -> AdmissionContext<'_> {
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

/// Gathers what is needed to govern `request`: of the namespace, of the Task (the object itself or a Job's owner), and of
/// the spawner and the Workspace that the Task names.
pub(crate) async fn gather<S: Surroundings>(surroundings: &S, request: &Request<'_>) -> Result<Gathered, FactError> {
    let mut gathered = Gathered {
        policies: surroundings.policies(),
        namespace_labels: Labels::default(),
        owner_task: None,
        spawner: None,
        workspace: Workspace::Unknown,
        kueue: KueueInfo::default(),
    };
    let namespace = request.namespace;
    // Without a policy nothing is governed, but a Task may have been cancelled by hand.
    if gathered.policies.is_empty() {
        if let Some(owner) = Job::of(request.object).task().filter(|_| request.kind == Kind::Job) {
            gathered.owner_task = surroundings.owner_task(namespace, &owner).await?;
        }
        return Ok(gathered);
    }
    let task = match request.kind {
        Kind::Task => Some(request.object),
        Kind::Job => {
            if let Some(owner) = Job::of(request.object).task() {
                gathered.owner_task = surroundings.owner_task(namespace, &owner).await?;
            }
            gathered.owner_task.as_ref()
        }
        Kind::TaskPolicy | Kind::ClusterTaskPolicy | Kind::WorkItem | Kind::WorkItemStatus => None,
    };
    if let Some(task) = task.map(kelos::Task::of) {
        gathered.namespace_labels = surroundings.namespace_labels(namespace).await?;
        if let Some(spawner) = task.spawner() {
            gathered.spawner = surroundings.spawner(namespace, spawner).await?;
        }
        if let Some(workspace) = task.workspace() {
            gathered.workspace = surroundings.workspace(namespace, workspace).await;
        }
    }
    if let (Kind::Job, Some(task)) = (request.kind, &gathered.owner_task)
        && (gathered.policies.queues() || requests_queue(task))
    {
        let job = Job::of(request.object);
        let names = job.queue().filter(|_| request.phase == Phase::Validating);
        gathered.kueue = surroundings
            .kueue(QueueQuestion {
                namespace,
                namespace_labels: &gathered.namespace_labels,
                names: names.map(|queue| (queue, job.priority_class())),
            })
            .await;
    }
    Ok(gathered)
}

/// What is remembered of the item that a request is about, owned.
#[derive(Debug, Default)]
pub(crate) struct Recalled {
    status: Option<Arc<WorkItemStatus>>,
    active: Option<u32>,
}

impl Recalled {
    /// The memory as the decision core takes it.
    pub(crate) fn memory(&self) -> ItemSnapshot<'_> {
        ItemSnapshot {
            status: self.status.as_deref(),
            active: self.active,
        }
    }
}

/// Recalls what the verdict on `governed` needs of its item, which is nothing where no item is to be looked up.
///
/// First who else is there, then the memory: a Task that ends in between is counted twice rather than never.
pub(crate) async fn recall<S: Surroundings>(
    surroundings: &S,
    ask: &Ask<'_>,
    governed: &Governed<'_>,
) -> Result<Recalled, FactError> {
    let Some(item) = governed.item() else {
        return Ok(Recalled::default());
    };
    let fresh = governed.needs_consistent_read();
    let rivals = if fresh {
        surroundings.rivals(ask, item).await?
    } else {
        None
    };
    let status = surroundings.memory(ask.namespace, item, fresh).await?;
    let active = rivals.map(|rivals| rivals.count(status.as_deref()));
    Ok(Recalled { status, active })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(name: &str, created: &str) -> Value {
        json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": created}})
    }

    #[test]
    fn a_job_gives_way_to_earlier_tasks_and_to_jobs_that_are_there() {
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
        let ask = |for_job| Ask {
            namespace: "team",
            task: &own,
            for_job,
        };
        assert_eq!(Rivals::after(&stored, &ask(true)), ["c", "d"]);
        assert!(Rivals::after(&stored, &ask(false)).is_empty(), "no Job is asked about");
        let count = |for_job, running: &[&str]| {
            let running = running.iter().map(ToString::to_string).collect();
            Rivals::among(stored.clone(), &ask(for_job), &running).count(None)
        };
        assert_eq!(count(false, &[]), 3);
        assert_eq!(count(true, &[]), 1);
        assert_eq!(count(true, &["uid-d"]), 2);
        assert_eq!(count(true, &["uid-a", "uid-b"]), 1, "neither twice nor itself");
    }
}
