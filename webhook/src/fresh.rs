//! Reads from the API server where a cache does not suffice, because it may be behind (C16).
//!
//! - The Task that owns a Job: always. Kelos creates the Job right after the Task, and a decision needs all of it.
//! - A namespace, a spawner, a Workspace that the cache does not have: it may be younger than the cache. One that the
//!   cache has is taken from there; its labels may be a moment old.
//!
//! - The memory of an item with a limit, and its Tasks: always. The limit holds only on what is stored. For a Job also the
//!   Jobs of Tasks that came after its own, which there are only when Tasks are created at the same moment.
//!
//! - What a user may do, and who we are: `SubjectAccessReview`, `SelfSubjectReview`, which the API server answers and stores
//!   nowhere.
//!
//! All but these and the last before are single `GET`s by name. RBAC: `create` on subjectaccessreviews; `get` on workitems, `list` on tasks and jobs; `get` on namespaces, and on `kelos.dev` tasks, taskspawners, workspaces.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{
    authentication::v1::SelfSubjectReview,
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    batch::v1::Job,
    core::v1::Namespace,
};
use kube::{
    Api, Client, Resource as _,
    api::{ApiResource, DynamicObject, GetParams, ListParams, PartialObjectMeta, PostParams},
    core::Request,
};
use serde_json::Value;
use taskgate_api::{
    WorkItem, WorkItemStatus, is_object_name, job, kelos, keys,
    metadata::{Metadata, Owner},
};
use taskgate_policy::{Right, SpawnerInfo, TaskState, WorkspaceInfo};

use crate::{
    caches::{kelos_resource, labels, spawner_facts, workspace_facts},
    cancellation::Permission,
    facts::FactError,
    review::UserInfo,
};

/// Of how many Tasks of an item the Jobs are looked for at most; the URL names them.
const ASKED_FOR: usize = 64;

/// Whether `user` has `right`, asked of the API server.
///
/// RBAC: `create` on subjectaccessreviews.
pub async fn may(client: Client, user: &UserInfo, right: &Right) -> Result<Permission, FactError> {
    Fresh::new(client).may(user, right).await
}

/// Reads by name.
#[derive(Clone)]
pub(crate) struct Fresh {
    client: Client,
}

impl Fresh {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The Task that `owner` refers to: same name, same uid, in the version that the reference states.
    pub(crate) async fn owner_task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Value>, FactError> {
        let version = owner.api_version.split_once('/').map(|(_, version)| version);
        let known = version.filter(|version| kelos::TASK_VERSIONS.contains(version));
        let resource = ApiResource {
            version: known.unwrap_or(kelos::TASK_VERSIONS[0]).to_owned(),
            ..kelos_resource("Task", kelos::TASKS)
        };
        // The owner reference is whatever the Job's creator wrote.
        if !is_object_name(owner.name) {
            return Ok(None);
        }
        let path = DynamicObject::url_path(&resource, Some(namespace));
        let failed = |error| fact_error("Task", namespace, owner.name, error);
        let request = Request::new(path)
            .get(owner.name, &GetParams::default())
            .map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        // As JSON: a typed read would drop what the type does not know.
        match self.client.request::<Value>(request).await {
            Ok(task) => Ok(Some(task).filter(|task| Metadata::of(task).uid() == Some(owner.uid))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The memory of the item `key`, if the `WorkItem` of that name is about that item. One that is being deleted is
    /// forgotten already.
    pub(crate) async fn memory(
        &self,
        namespace: &str,
        name: &str,
        key: &str,
    ) -> Result<Option<Arc<WorkItemStatus>>, FactError> {
        let api = Api::<WorkItem>::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await;
        let found = found.map_err(|error| fact_error("WorkItem", namespace, name, error))?;
        let found = found.filter(|item| item.spec.key == key && item.metadata.deletion_timestamp.is_none());
        Ok(found.map(|item| Arc::new(item.status.unwrap_or_default())))
    }

    /// The Tasks of a work item, by the label that accounting puts on them.
    pub(crate) async fn tasks_of(&self, namespace: &str, work_item: &str) -> Result<Vec<TaskState>, FactError> {
        let resource = kelos_resource("Task", kelos::TASKS);
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        let label = format!("{}={work_item}", keys::WORK_ITEM);
        let found = api.list(&ListParams::default().labels(&label)).await;
        let found = found.map_err(|error| fact_error("Tasks of WorkItem", namespace, work_item, error))?;
        let json = |task: &DynamicObject| serde_json::to_value(task).ok();
        Ok(found
            .iter()
            .filter_map(json)
            .filter_map(|task| TaskState::of(&task))
            .collect())
    }

    /// The UIDs of those among the Tasks called `names` that have a Job which is not stopped.
    pub(crate) async fn tasks_with_jobs(
        &self,
        namespace: &str,
        names: &[String],
    ) -> Result<HashSet<String>, FactError> {
        // Kelos labels a Job with its Task's name, so one with a longer name has none.
        let some = names.iter().map(String::as_str).filter(|name| name.len() <= 63);
        let some: Vec<_> = some.take(ASKED_FOR).collect();
        let Some(first) = some.first() else {
            return Ok(HashSet::new());
        };
        let api = Api::<PartialObjectMeta<Job>>::namespaced(self.client.clone(), namespace);
        let label = format!("{} in ({})", kelos::TASK_LABEL, some.join(","));
        let found = api.list(&ListParams::default().labels(&label)).await;
        let found = found.map_err(|error| fact_error("Jobs of Tasks", namespace, first, error))?;
        let json = |job: &PartialObjectMeta<Job>| serde_json::to_value(job).ok();
        Ok(found.iter().filter_map(json).filter_map(|job| runs_for(&job)).collect())
    }

    /// The labels of a namespace.
    pub(crate) async fn namespace_labels(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, FactError> {
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let found = api.get_opt(name).await;
        let found = found.map_err(|error| fact_error("Namespace", "", name, error))?;
        Ok(found.map(|namespace| labels(namespace.meta())))
    }

    /// What is known of a spawner.
    pub(crate) async fn spawner(&self, namespace: &str, name: &str) -> Result<Option<Arc<SpawnerInfo>>, FactError> {
        let found = self
            .kelos_object("TaskSpawner", "taskspawners", namespace, name)
            .await?;
        Ok(found.map(|spawner| Arc::new(spawner_facts(spawner))))
    }

    /// The name that the API server knows us by.
    pub(crate) async fn own_user(&self) -> Result<Option<String>, FactError> {
        let reviews = Api::<SelfSubjectReview>::all(self.client.clone());
        let asked = reviews
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await;
        let told = asked.map_err(|error| fact_error("SelfSubjectReview", "", "taskgate", error))?;
        Ok(told.status.and_then(|status| status.user_info?.username))
    }

    /// Whether `user` has `right`.
    pub(crate) async fn may(&self, user: &UserInfo, right: &Right) -> Result<Permission, FactError> {
        let named = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let spec = SubjectAccessReviewSpec {
            user: Some(user.username.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
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
        permission(&self.client, spec)
            .await
            .map_err(|error| fact_error("SubjectAccessReview", &right.namespace, &right.name, error))
    }

    /// What is known of a Workspace.
    pub(crate) async fn workspace(&self, namespace: &str, name: &str) -> Result<Option<Arc<WorkspaceInfo>>, FactError> {
        let found = self.kelos_object("Workspace", "workspaces", namespace, name).await?;
        Ok(found.map(|workspace| Arc::new(workspace_facts(workspace))))
    }

    /// An object of Kelos. A name that nothing can have is not asked for: it comes from a label or a
    /// field that anybody may fill.
    async fn kelos_object(
        &self,
        kind: &'static str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DynamicObject>, FactError> {
        if !is_object_name(name) {
            return Ok(None);
        }
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &kelos_resource(kind, plural));
        let found = api.get_opt(name).await;
        found.map_err(|error| fact_error(kind, namespace, name, error))
    }
}

/// What the API server answers to the SubjectAccessReview `spec`.
pub(crate) async fn permission(client: &Client, spec: SubjectAccessReviewSpec) -> kube::Result<Permission> {
    let review = SubjectAccessReview {
        spec,
        ..SubjectAccessReview::default()
    };
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let told = reviews.create(&PostParams::default(), &review).await?;
    let status = told.status.unwrap_or_default();
    Ok(Permission {
        allowed: status.allowed && status.denied != Some(true),
        why: status.reason.unwrap_or_default(),
    })
}

/// The UID of the Task that `job` runs for, unless it is stopped.
fn runs_for(job: &Value) -> Option<String> {
    let job = job::Job::of(job);
    let task = job.task().filter(|_| !job.is_stopped())?;
    Some(task.uid.to_owned())
}

fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn fact_error(kind: &'static str, namespace: &str, name: &str, error: kube::Error) -> FactError {
    let reason = match &error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    };
    FactError {
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
