//! From steps to AgenticTasks (F2, F12, F22).

use super::Operator;
use crate::error::{Error, has_code};
use crate::keys;
use crate::types::{AgenticTask, AgenticTaskSpec, Step, Workload};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kelos_standin::Key;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::core::Status;
use serde_json::{Value, json};

/// The name of a step's task.
fn absolute(workload: &str, step: &str) -> String {
    let prefix = format!("{workload}-");
    if step.starts_with(&prefix) {
        step.to_owned()
    } else {
        prefix + step
    }
}

fn labels(workload: &str, step: &str) -> std::collections::BTreeMap<String, String> {
    [(keys::WORKLOAD, workload), (keys::STEP, step)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// A task that is created and not seen yet: without a phase, so in flight.
pub(super) fn placeholder(key: &Key, step: &Step) -> AgenticTask {
    let mut task = AgenticTask::new(&absolute(&key.name, &step.name), AgenticTaskSpec::default());
    task.metadata.labels = Some(labels(&key.name, &step.name));
    task
}

impl Operator {
    /// Creates the tasks in order, up to the first that is refused; one that exists is used as it is, of any
    /// origin. Returns references to those before.
    pub(super) async fn render(&self, key: &Key, workload: &Workload, steps: &[Step]) -> (Vec<Value>, Option<Error>) {
        let api: Api<AgenticTask> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut references = Vec::new();
        let mut started = false;
        let mut refused = None;
        for step in steps {
            let task = task(workload, step);
            let of_task = Key::new(&key.namespace, task.name_any());
            if let Some(error) = self.missing_agent(&of_task, step) {
                refused = Some(error);
                break;
            }
            match api.create(&PostParams::default(), &task).await {
                Ok(_) => started = true,
                Err(error) if has_code(&error, 409) => {}
                Err(error) => {
                    refused = Some(Error::kube("creating AgenticTask", &of_task)(error));
                    break;
                }
            }
            references.push(json!({
                "apiVersion": keys::API_VERSION, "kind": "AgenticTask",
                "namespace": of_task.namespace, "name": of_task.name,
            }));
        }
        if started {
            self.journal.planned(key, workload);
        }
        (references, refused)
    }

    /// What Foreman's webhook for AgenticTasks answers when the Agent does not exist.
    fn missing_agent(&self, task: &Key, step: &Step) -> Option<Error> {
        let agent = &step.agent_ref.name;
        let known = agent.is_empty() || self.agents.get(&Key::new(&task.namespace, agent)).is_some();
        if known || !self.options.webhooks {
            return None;
        }
        let message = format!("admission webhook denied the request: spec.agentRef.name: no Agent {agent:?}");
        let status = Status::failure(&message, "Invalid").with_code(422);
        Some(Error::kube("creating AgenticTask", task)(kube::Error::Api(
            status.boxed(),
        )))
    }
}

fn task(workload: &Workload, step: &Step) -> AgenticTask {
    let name = workload.name_any();
    let spec = AgenticTaskSpec {
        kind: step.kind.clone(),
        agent_ref: Some(step.agent_ref.clone()),
        payload: step.payload.clone(),
        depends_on: step.depends_on.iter().map(|step| absolute(&name, step)).collect(),
        timeout_seconds: step.timeout_seconds,
        priority: step.priority,
        gate_profile: step.gate_profile.clone().or_else(|| workload.spec.gate_profile.clone()),
        mcp_enabled: workload.spec.mcp_enabled,
        verdict_policy: workload.spec.verdict_policy.clone(),
    };
    let mut task = AgenticTask::new(&absolute(&name, &step.name), spec);
    let lingers = workload.annotations().contains_key(keys::LINGERS);
    task.metadata = ObjectMeta {
        labels: Some(labels(&name, &step.name)),
        owner_references: Some(vec![OwnerReference {
            api_version: keys::API_VERSION.to_owned(),
            kind: "Workload".to_owned(),
            name,
            uid: workload.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        finalizers: lingers.then(|| vec![keys::LINGERING.to_owned()]),
        ..task.metadata
    };
    task
}
