//! Live reads from the API server, where the cache does not suffice (C16).
//!
//! | What | When |
//! |---|---|
//! | the Task that owns a Job | if the cache does not have it: Kelos creates the Job right after the Task |
//! | a namespace, spawner or Workspace | likewise |
//! | the WorkItem of an item with an enforced limit | near the limit, or while the cache is not current |
//! | the Tasks of that item | then, if the cache does not have the Job's Task, or does not follow Tasks |
//! | the Jobs of later Tasks of the item | then, for a Job, when Tasks were created at the same moment |
//! | a user's rights, taskgate's own user | when a decision turns on them: `SubjectAccessReview`, `SelfSubjectReview` |
//!
//! RBAC: `create` on subjectaccessreviews; `get` on workitems and namespaces, and on `kelos.dev` tasks, taskspawners, workspaces;
//! `list` on tasks and jobs.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    batch::v1::Job,
    core::v1::Namespace,
};
use kube::{
    Api, Client, Resource as _,
    api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, PostParams},
};
use serde_json::Value;
use taskgate_api::{WorkItem, is_object_name, job, kelos, keys, metadata::Owner};
use taskgate_cache::{kelos_resource, labels, spawner_info, workspace_info};
use taskgate_policy::{Right, SpawnerInfo, TaskState, WorkspaceInfo};

use crate::admission::{AccessDecision, ClusterReadError};

/// The Jobs of how many Tasks are listed at most: the URL names the Tasks.
const MAX_NAMED_TASKS: usize = 64;

/// Checks by a SubjectAccessReview whether `user` has `right`.
///
/// RBAC: `create` on subjectaccessreviews.
pub async fn check_access(client: Client, user: &UserInfo, right: &Right) -> Result<AccessDecision, ClusterReadError> {
    LiveReader::new(client).check_access(user, right).await
}

/// Reads from the API server.
#[derive(Clone)]
pub(super) struct LiveReader {
    client: Client,
}

impl LiveReader {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The Task that `owner` refers to: same name, same UID, in the version that the reference states.
    pub(super) async fn owner_task(
        &self,
        namespace: &str,
        owner: &Owner<'_>,
    ) -> Result<Option<DynamicObject>, ClusterReadError> {
        let stated = owner.api_version.split_once('/').map(|(_, version)| version);
        let known = stated.filter(|version| kelos::TASK_VERSIONS.contains(version));
        let resource = ApiResource {
            version: known.unwrap_or(kelos::TASK_VERSIONS[0]).to_owned(),
            ..newest("Task", kelos::TASKS)
        };
        let found = self.kelos_object("Task", &resource, namespace, owner.name).await?;
        Ok(found.filter(|task| task.metadata.uid.as_deref() == Some(owner.uid)))
    }

    /// The `WorkItem` `name`, if it belongs to the item `key`. One that is being deleted counts as deleted.
    pub(super) async fn work_item(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<Option<Arc<WorkItem>>, ClusterReadError> {
        let api = Api::<WorkItem>::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await;
        let found = found.map_err(|error| read_error("WorkItem", namespace, name, error))?;
        let found = found.filter(|item| item.spec.key == key && item.metadata.deletion_timestamp.is_none());
        Ok(found.map(Arc::new))
    }

    /// The Tasks of a work item, by the label that admission sets on them.
    pub(super) async fn tasks_of(&self, namespace: &str, work_item: &str) -> Result<Vec<TaskState>, ClusterReadError> {
        let resource = newest("Task", kelos::TASKS);
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        let label = format!("{}={work_item}", keys::WORK_ITEM);
        let found = api.list(&ListParams::default().labels(&label)).await;
        let found = found.map_err(|error| read_error("Tasks of WorkItem", namespace, work_item, error))?;
        let json = |task: &DynamicObject| serde_json::to_value(task).ok();
        Ok(found
            .iter()
            .filter_map(json)
            .filter_map(|task| TaskState::of(&task))
            .collect())
    }

    /// The UIDs of the Tasks among `names` that have a Job which is not stopped.
    pub(super) async fn tasks_with_jobs(
        &self,
        namespace: &str,
        names: &[String],
    ) -> Result<HashSet<String>, ClusterReadError> {
        // Kelos labels a Job with its Task's name, so a Task with a longer name has none.
        let names = names.iter().map(String::as_str).filter(|name| name.len() <= 63);
        let names: Vec<_> = names.take(MAX_NAMED_TASKS).collect();
        let Some(first) = names.first() else {
            return Ok(HashSet::new());
        };
        let api = Api::<PartialObjectMeta<Job>>::namespaced(self.client.clone(), namespace);
        let label = format!("{} in ({})", kelos::TASK_LABEL, names.join(","));
        let found = api.list(&ListParams::default().labels(&label)).await;
        let found = found.map_err(|error| read_error("Jobs of Tasks", namespace, first, error))?;
        let json = |job: &PartialObjectMeta<Job>| serde_json::to_value(job).ok();
        Ok(found.iter().filter_map(json).filter_map(|job| runs_for(&job)).collect())
    }

    /// The labels of a namespace.
    pub(super) async fn namespace_labels(
        &self,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, ClusterReadError> {
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let found = api.get_opt(name).await;
        let found = found.map_err(|error| read_error("Namespace", "", name, error))?;
        Ok(found.map(|namespace| labels(namespace.meta())))
    }

    /// A spawner as decisions need it.
    pub(super) async fn spawner(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<SpawnerInfo>>, ClusterReadError> {
        let resource = newest("TaskSpawner", "taskspawners");
        let found = self.kelos_object("TaskSpawner", &resource, namespace, name).await?;
        Ok(found.map(|spawner| Arc::new(spawner_info(&spawner))))
    }

    /// The name of the user that taskgate itself is authenticated as.
    pub(super) async fn own_user(&self) -> Result<Option<String>, ClusterReadError> {
        let reviews = Api::<SelfSubjectReview>::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await
            .map_err(|error| read_error("SelfSubjectReview", "", "taskgate", error))?;
        Ok(review.status.and_then(|status| status.user_info?.username))
    }

    /// Checks whether `user` has `right`.
    pub(super) async fn check_access(
        &self,
        user: &UserInfo,
        right: &Right,
    ) -> Result<AccessDecision, ClusterReadError> {
        let named = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let spec = SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: named(right.group),
                resource: named(right.resource),
                verb: named(right.verb),
                namespace: named(&right.namespace),
                name: named(&right.name),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        create_access_review(&self.client, spec)
            .await
            .map_err(|error| read_error("SubjectAccessReview", &right.namespace, &right.name, error))
    }

    /// A Workspace as decisions need it.
    pub(super) async fn workspace(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<WorkspaceInfo>>, ClusterReadError> {
        let resource = newest("Workspace", "workspaces");
        let found = self.kelos_object("Workspace", &resource, namespace, name).await?;
        Ok(found.map(|workspace| Arc::new(workspace_info(&workspace))))
    }

    /// An object of Kelos. An illegal name, which a label, a field or an owner reference may contain, is not sent to the API server.
    async fn kelos_object(
        &self,
        kind: &'static str,
        resource: &ApiResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DynamicObject>, ClusterReadError> {
        if !is_object_name(name) {
            return Ok(None);
        }
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, resource);
        let found = api.get_opt(name).await;
        found.map_err(|error| read_error(kind, namespace, name, error))
    }
}

/// A kind of Kelos in the newest version that taskgate knows.
fn newest(kind: &str, plural: &str) -> ApiResource {
    kelos_resource(kelos::TASK_VERSIONS[0], kind, plural)
}

/// Creates the SubjectAccessReview `spec` and returns the API server's answer.
pub(crate) async fn create_access_review(
    client: &Client,
    spec: SubjectAccessReviewSpec,
) -> kube::Result<AccessDecision> {
    let review = SubjectAccessReview {
        spec,
        ..SubjectAccessReview::default()
    };
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    let status = answer.status.unwrap_or_default();
    Ok(AccessDecision {
        allowed: status.allowed && status.denied != Some(true),
        reason: status.reason.unwrap_or_default(),
    })
}

/// The UID of the Task that `job` runs for, unless it is stopped.
fn runs_for(job: &Value) -> Option<String> {
    let job = job::Job::of(job);
    let task = job.task().filter(|_| !job.is_stopped())?;
    Some(task.uid.to_owned())
}

fn read_error(kind: &'static str, namespace: &str, name: &str, error: kube::Error) -> ClusterReadError {
    let reason = match &error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    };
    ClusterReadError {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        reason,
        source: Some(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_runs_for_the_task_that_owns_it_unless_it_is_stopped() {
        let owner = |kind: &str| json!([{"apiVersion": "kelos.dev/v1alpha2", "kind": kind, "name": "t", "uid": "task", "controller": true}]);
        let mut job = json!({"metadata": {"name": "t", "uid": "job", "ownerReferences": owner("Task")}});
        assert_eq!(runs_for(&job).as_deref(), Some("task"));
        job["metadata"]["annotations"] = json!({keys::STOPPED: "open"});
        assert_eq!(runs_for(&job), None);
        job["metadata"] = json!({"name": "t", "uid": "job", "ownerReferences": owner("TaskSpawner")});
        assert_eq!(runs_for(&job), None);
    }
}
