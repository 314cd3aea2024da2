//! Live reads from the API server, where the cache does not suffice (C16).
//!
//! | What | When |
//! |---|---|
//! | the Task that owns a Job | if the cache does not have it: Kelos creates the Job right after the Task |
//! | a namespace, spawner or Workspace | likewise |
//! | the WorkItem of an item with an enforced limit | near the limit, or while the cache is not current |
//! | the Tasks of that item | then, if the cache does not have the Job's Task, or does not follow Tasks |
//! | the Jobs of later Tasks of the item | then, for a Job, when Tasks were created at the same moment |
//! | the Task of the name of one that is about to be denied | always: if its spawner has it, the API server says so |
//! | a user's rights, taskgate's own user | when a decision turns on them: `SubjectAccessReview`, `SelfSubjectReview` |
//!
//! RBAC: `create` on subjectaccessreviews; `get` on workitems and namespaces, and on `kelos.dev` tasks, taskspawners, workspaces;
//! `list` on tasks and jobs.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    batch::v1::Job,
    core::v1::Namespace,
};
use kube::{
    Api, Client, Resource as _,
    api::{DynamicObject, ListParams, PartialObjectMeta, PostParams},
};
use serde_json::Value;
use taskgate_api::{WorkItem, is_object_name, job, kelos, keys};
use taskgate_cache::{kelos_resource, labels};
use taskgate_policy::{Right, TaskState};

use crate::admission::{AccessDecision, ClusterReadError, NamespaceLabels};

/// The Jobs of how many Tasks are listed at most: the URL names the Tasks.
const MAX_NAMED_TASKS: usize = 64;
/// The newest version of Kelos' kinds that taskgate knows.
pub(super) const NEWEST: &str = kelos::TASK_VERSIONS[0];

/// The `WorkItem` `name`, if it belongs to the item `key`. One that is being deleted counts as deleted.
pub(super) async fn work_item(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Option<Arc<WorkItem>>, ClusterReadError> {
    let api = Api::<WorkItem>::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await;
    let found = found.map_err(|error| read_error("WorkItem", namespace, name, error))?;
    let found = found.filter(|item| item.spec.key == key && item.metadata.deletion_timestamp.is_none());
    Ok(found.map(Arc::new))
}

/// The Tasks of a work item, by the label that admission sets on them.
pub(super) async fn tasks_of(
    client: &Client,
    namespace: &str,
    work_item: &str,
) -> Result<Vec<TaskState>, ClusterReadError> {
    let resource = kelos_resource(NEWEST, "Task", kelos::TASKS);
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let label = format!("{}={work_item}", keys::WORK_ITEM);
    let found = api.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|error| read_error("Tasks of WorkItem", namespace, work_item, error))?;
    let state = |task: &DynamicObject| TaskState::of(&serde_json::to_value(task).ok()?);
    Ok(found.iter().filter_map(state).collect())
}

/// The UIDs of the Tasks among `names` that have a Job which is not stopped.
pub(super) async fn tasks_with_jobs(
    client: &Client,
    namespace: &str,
    names: &[String],
) -> Result<HashSet<String>, ClusterReadError> {
    // Kelos labels a Job with its Task's name, so a Task with a longer name has none.
    let names = names.iter().map(String::as_str);
    let names: Vec<_> = names
        .filter(|name| name.len() <= kelos::MAX_TASK_NAME)
        .take(MAX_NAMED_TASKS)
        .collect();
    let Some(first) = names.first() else {
        return Ok(HashSet::new());
    };
    let api = Api::<PartialObjectMeta<Job>>::namespaced(client.clone(), namespace);
    let label = format!("{} in ({})", kelos::TASK_LABEL, names.join(","));
    let found = api.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|error| read_error("Jobs of Tasks", namespace, first, error))?;
    let task = |job: &PartialObjectMeta<Job>| runs_for(&serde_json::to_value(job).ok()?);
    Ok(found.iter().filter_map(task).collect())
}

/// The labels of a namespace; none if it does not exist.
pub(super) async fn namespace_labels(client: &Client, name: &str) -> Result<NamespaceLabels, ClusterReadError> {
    let api = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let found = api.get_opt(name).await;
    let found = found.map_err(|error| read_error("Namespace", "", name, error))?;
    Ok(Arc::new(
        found.map(|namespace| labels(namespace.meta())).unwrap_or_default(),
    ))
}

/// An object of Kelos. An illegal name, which a label, a field or an owner reference may contain, is not sent to the API server.
pub(super) async fn kelos_object(
    client: &Client,
    version: &str,
    (kind, plural): (&'static str, &str),
    namespace: &str,
    name: &str,
) -> Result<Option<DynamicObject>, ClusterReadError> {
    if !is_object_name(name) {
        return Ok(None);
    }
    let resource = kelos_resource(version, kind, plural);
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let found = api.get_opt(name).await;
    found.map_err(|error| read_error(kind, namespace, name, error))
}

/// The name of the user that taskgate itself is authenticated as.
pub(super) async fn own_user(client: &Client) -> Result<Option<String>, ClusterReadError> {
    let reviews = Api::<SelfSubjectReview>::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(|error| read_error("SelfSubjectReview", "", "taskgate", error))?;
    Ok(review.status.and_then(|status| status.user_info?.username))
}

/// Checks by a SubjectAccessReview whether `user` has `right`.
///
/// RBAC: `create` on subjectaccessreviews.
pub async fn check_access(client: &Client, user: &UserInfo, right: &Right) -> Result<AccessDecision, ClusterReadError> {
    let named = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
    let spec = SubjectAccessReviewSpec {
        user: user.username.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.clone(),
        resource_attributes: Some(ResourceAttributes {
            group: named(right.group),
            resource: named(resource),
            subresource: named(subresource),
            verb: named(right.verb),
            namespace: named(&right.namespace),
            name: named(&right.name),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    };
    create_access_review(client, spec)
        .await
        .map_err(|error| read_error("SubjectAccessReview", &right.namespace, &right.name, error))
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
