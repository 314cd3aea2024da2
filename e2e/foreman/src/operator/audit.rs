//! The record of a task that has ended: a ConfigMap without an owner, overwritten by the next task of the name (F18).

use super::Operator;
use crate::error::{Error, tolerate_gone};
use crate::keys;
use crate::types::AgenticTask;
use k8s_openapi::api::core::v1::ConfigMap;
use kelos_standin::Key;
use kelos_standin::queue::Next;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

impl Operator {
    /// Once per task: an annotation on it says that it is done, and wakes the Workload once more.
    pub(super) async fn audit(&self, key: &Key, task: &AgenticTask) -> Result<Next, Error> {
        if task.annotations().get(keys::AUDITED).is_some_and(|done| done == "true") {
            return Ok(Next::Wait);
        }
        let name = format!("foreman-audit-{}", key.name);
        let record = json!({"task": {"name": key.name, "uid": task.uid()}, "verdict": task.verdict()});
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"audit.json": record.to_string()},
        });
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams::apply("foreman-standin").force();
        maps.patch(&name, &params, &Patch::Apply(&map))
            .await
            .map_err(Error::kube("recording AgenticTask", key))?;
        let tasks: Api<AgenticTask> = Api::namespaced(self.client.clone(), &key.namespace);
        let mark = Patch::Merge(json!({"metadata": {"annotations": {keys::AUDITED: "true"}}}));
        let marked = tasks.patch(&key.name, &PatchParams::default(), &mark).await;
        tolerate_gone(marked).map_err(Error::kube("marking AgenticTask", key))?;
        Ok(Next::Wait)
    }
}
