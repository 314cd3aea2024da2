//! The Job of a Task (kelos S18, §6.3).

use crate::keys;
use crate::types::{PodOverrides, Task, WorkspaceSpec};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, PodSecurityContext, PodSpec, PodTemplateSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Group of the agent's user, so that it can write the workspace.
const AGENT_GROUP: i64 = 61100;
/// Where the clone is mounted.
const WORKSPACE: &str = "/workspace";

/// Builds the Job. It has no annotations, none of the Task's labels, and two attempts
/// (`backoffLimit` 1); nothing is set that the API server defaults.
pub(super) fn build(task: &Task, workspace: Option<&WorkspaceSpec>) -> Job {
    let none = PodOverrides::default();
    let overrides = task.spec.overrides().unwrap_or(&none);
    let labels = labels(task, overrides);
    let mut volumes = Vec::new();
    let mut init = Vec::new();
    if workspace.is_some() {
        volumes.push(Volume {
            name: "workspace".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
        init.push(container(task, "git-clone", workspace));
    }
    volumes.extend(overrides.volumes.iter().cloned());
    init.extend(overrides.extra_init_containers.iter().cloned());
    let mut containers = vec![agent(task, workspace, overrides)];
    containers.extend(overrides.extra_containers.iter().cloned());
    let mut security = overrides.pod_security_context.clone().unwrap_or_default();
    if workspace.is_some() {
        security.fs_group.get_or_insert(AGENT_GROUP);
    }
    let pod = PodSpec {
        restart_policy: Some("Never".to_owned()),
        security_context: (security != PodSecurityContext::default()).then_some(security),
        service_account_name: text(&overrides.service_account_name),
        init_containers: filled(init),
        volumes: filled(volumes),
        containers,
        node_selector: (!overrides.node_selector.is_empty()).then(|| overrides.node_selector.clone()),
        tolerations: filled(overrides.tolerations.clone()),
        affinity: overrides.affinity.clone(),
        image_pull_secrets: filled(overrides.image_pull_secrets.clone()),
        ..PodSpec::default()
    };
    Job {
        metadata: ObjectMeta {
            name: Some(task.name_any()),
            namespace: task.namespace(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner(task)]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(1),
            pod_failure_policy: task.spec.pod_failure_policy.clone(),
            active_deadline_seconds: overrides.active_deadline_seconds,
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn owner(task: &Task) -> OwnerReference {
    OwnerReference {
        api_version: keys::API_VERSION.to_owned(),
        kind: "Task".to_owned(),
        name: task.name_any(),
        uid: task.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn labels(task: &Task, overrides: &PodOverrides) -> BTreeMap<String, String> {
    let mut labels = overrides.labels.clone();
    labels.extend([
        (keys::NAME.to_owned(), "kelos".to_owned()),
        (keys::COMPONENT.to_owned(), "task".to_owned()),
        (keys::MANAGED_BY.to_owned(), "kelos-controller".to_owned()),
        (keys::TASK.to_owned(), task.name_any()),
    ]);
    labels
}

fn agent(task: &Task, workspace: Option<&WorkspaceSpec>, overrides: &PodOverrides) -> Container {
    let mut agent = container(task, keys::AGENT_CONTAINER, workspace);
    agent.command = Some(vec!["/kelos_entrypoint.sh".to_owned()]);
    agent.args = Some(vec![task.spec.prompt.clone()]);
    agent.resources.clone_from(&overrides.resources);
    agent.security_context.clone_from(&overrides.container_security_context);
    let mut env = environment(task, workspace);
    let user = overrides.env.iter();
    let user = user.filter(|own| !env.iter().any(|builtin| builtin.name == own.name));
    let user: Vec<EnvVar> = user.cloned().collect();
    env.extend(user);
    agent.env = Some(env);
    let mounts = agent.volume_mounts.take().into_iter().flatten();
    agent.volume_mounts = filled(mounts.chain(overrides.volume_mounts.clone()).collect());
    agent
}

fn container(task: &Task, name: &str, workspace: Option<&WorkspaceSpec>) -> Container {
    let image = text(task.spec.agent_image());
    let image = image.unwrap_or_else(|| format!("kelos/{}:standin", task.spec.agent_type()));
    Container {
        name: name.to_owned(),
        image: Some(image),
        volume_mounts: workspace.map(|_| {
            vec![VolumeMount {
                name: "workspace".to_owned(),
                mount_path: WORKSPACE.to_owned(),
                ..VolumeMount::default()
            }]
        }),
        ..Container::default()
    }
}

fn environment(task: &Task, workspace: Option<&WorkspaceSpec>) -> Vec<EnvVar> {
    let spawner = task.labels().get(keys::SPAWNER).map(String::as_str);
    let upstream = workspace.map(|_| task.spec.upstream_repo.as_str());
    let variables = [
        ("KELOS_MODEL", Some(task.spec.agent_model())),
        ("KELOS_BRANCH", Some(task.spec.branch.as_str())),
        ("KELOS_AGENT_TYPE", Some(task.spec.agent_type())),
        ("KELOS_TASKSPAWNER", spawner),
        ("KELOS_BASE_BRANCH", workspace.map(|w| w.r#ref.as_str())),
        ("KELOS_UPSTREAM_REPO", upstream),
    ];
    let set = variables.into_iter().filter_map(|(name, value)| {
        Some(EnvVar {
            name: name.to_owned(),
            value: Some(text(value?)?),
            value_from: None,
        })
    });
    set.collect()
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn filled<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}
