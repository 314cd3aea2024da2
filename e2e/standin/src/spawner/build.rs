//! A Task out of a template and an item (kelos S15, §3).

use super::{Item, names, template};
use crate::keys;
use crate::types::{
    Credentials, GitHubIssues, GitHubPullRequests, Reporting, Task, TaskSpawner, TaskSpec, TaskTemplate,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

/// The name that an item's Task gets.
///
/// # Errors
/// When the name template does not render to a name: that fails the whole cycle.
pub(super) fn name(default: String, template: &TaskTemplate, item: &Item) -> Result<String, String> {
    if template.name_template.is_empty() {
        return Ok(default);
    }
    let rendered = template::render(&template.name_template, item)
        .map_err(|error| format!("failed to render name template: {error}"))?;
    let name = names::sanitised(&rendered);
    if name.is_empty() {
        return Err(format!(
            "nameTemplate rendered to an empty name after sanitization: {rendered:?}"
        ));
    }
    Ok(name)
}

/// Builds the Task.
///
/// # Errors
/// What could not be rendered: an error of this item only.
pub(super) fn task(spawner: &TaskSpawner, default_name: String, item: &Item) -> Result<Task, String> {
    let from = &spawner.spec.task_template;
    let render = |what: &str, text: &str| {
        let failed = |error| format!("failed to render {what} template: {error}");
        template::render(text, item).map_err(failed)
    };
    let prompt = match from.prompt_template.as_str() {
        "" => "{{.Title}}",
        template => template,
    };
    let spec = TaskSpec {
        worker: from.worker.clone(),
        worker_pool_ref: from.worker_pool_ref.clone(),
        r#type: from.r#type.clone(),
        prompt: render("prompt", prompt)?,
        credentials: from.credentials.clone(),
        model: from.model.clone(),
        effort: from.effort.clone(),
        image: from.image.clone(),
        workspace_ref: from.workspace_ref.clone(),
        agent_config_refs: from.agent_config_refs.clone(),
        depends_on: from.depends_on.clone(),
        branch: render("branch", &from.branch)?,
        upstream_repo: upstream(spawner),
        ttl_seconds: from.ttl_seconds,
        pod_failure_policy: from.pod_failure_policy.clone(),
        pod_overrides: from.pod_overrides.clone(),
        queue_name: String::new(),
    };
    let mut task = Task::new(&name(default_name, from, item)?, spec);
    task.metadata.namespace = spawner.namespace();
    if let Some(metadata) = &from.metadata {
        for (key, text) in &metadata.labels {
            let value = render(&format!("label {key}"), text)?;
            task.labels_mut().insert(key.clone(), value);
        }
        for (key, text) in &metadata.annotations {
            let value = render(&format!("annotation {key}"), text)?;
            task.annotations_mut().insert(key.clone(), value);
        }
    }
    let spawner_name = spawner.name_any();
    task.labels_mut().insert(keys::SPAWNER.to_owned(), spawner_name.clone());
    task.owner_references_mut().push(OwnerReference {
        api_version: keys::API_VERSION.to_owned(),
        kind: "TaskSpawner".to_owned(),
        name: spawner_name,
        uid: spawner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    });
    pick_credentials(spawner, &mut task);
    Ok(task)
}

/// One entry of the pool, at random.
fn pick_credentials(spawner: &TaskSpawner, task: &mut Task) {
    let pool = &spawner.spec.credentials;
    let Ok(size) = u64::try_from(pool.len()) else {
        return;
    };
    if size == 0 {
        return;
    }
    let index = usize::try_from(RandomState::new().hash_one(0) % size).unwrap_or(0);
    let picked = &pool[index];
    let credentials = Some(Credentials {
        r#type: picked.r#type.clone(),
        secret_ref: picked.secret_ref.clone(),
    });
    match &mut task.spec.worker {
        Some(worker) => worker.credentials = credentials,
        None => task.spec.credentials = credentials,
    }
    task.labels_mut()
        .insert(keys::CREDENTIAL.to_owned(), picked.name.clone());
}

/// The template's value, else the source's repository override.
fn upstream(spawner: &TaskSpawner) -> String {
    let template = &spawner.spec.task_template.upstream_repo;
    if !template.is_empty() {
        return template.clone();
    }
    let when = &spawner.spec.when;
    let issues = when.github_issues.as_ref().map(|s| &s.repo);
    let pulls = when.github_pull_requests.as_ref().map(|s| &s.repo);
    issues.or(pulls).cloned().unwrap_or_default()
}

/// What a polling GitHub source stamps on its Tasks: kind and number, never the URL, the title or the
/// labels. Other sources stamp nothing here.
pub(super) fn polled_annotations(spawner: &TaskSpawner, item: &Item) -> BTreeMap<String, String> {
    let when = &spawner.spec.when;
    let reporting = match (&when.github_issues, &when.github_pull_requests) {
        (Some(GitHubIssues { reporting, .. }), _) | (None, Some(GitHubPullRequests { reporting, .. })) => {
            reporting.as_ref()
        }
        (None, None) => return BTreeMap::new(),
    };
    let kind = if item.kind == "PR" { "pull-request" } else { "issue" };
    let mut annotations = BTreeMap::from([
        (keys::SOURCE_KIND.to_owned(), kind.to_owned()),
        (keys::SOURCE_NUMBER.to_owned(), item.number.to_string()),
    ]);
    report(&mut annotations, reporting);
    annotations
}

/// The annotations that make Kelos' reporter comment.
pub(super) fn report(annotations: &mut BTreeMap<String, String>, reporting: Option<&Reporting>) {
    let Some(reporting) = reporting.filter(|reporting| reporting.comments_on()) else {
        return;
    };
    let mode = reporting.comments.as_ref().map(|c| c.mode.clone());
    let mode = mode.filter(|m| !m.is_empty()).unwrap_or("PerTask".to_owned());
    annotations.insert(keys::GITHUB_REPORTING.to_owned(), "enabled".to_owned());
    annotations.insert(keys::GITHUB_COMMENT_MODE.to_owned(), mode);
}
