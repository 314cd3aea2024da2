//! Probes of admission: dry-run requests that only taskgate answers in a certain way, whatever policies there are. They prove
//! that the API server calls taskgate and gets its answers.
//!
//! The validating probe is a ClusterTaskPolicy with a template that does not compile: the schema accepts it, taskgate denies it,
//! and it is in no namespace that could be excluded. The mutating probe is a Task with a request to be cancelled: taskgate
//! removes that from every new Task.

use anyhow::Result;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use taskgate_api::{GROUP, VERSION, keys};

use crate::{
    cluster::api_error,
    commands::snapshot::{Collection, SnapshotReader},
    flags::DryRun,
};

const NAME: &str = "taskgate-doctor";
/// The API server's words before the name of a webhook that denied a request, and of one that failed.
const DENIED: &str = "admission webhook \"";
const FAILED: &str = "failed calling webhook \"";
/// The end of the names of taskgate's webhooks.
const OWN_WEBHOOK: &str = ".taskgate.dev\"";

/// The results of both probes.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes {
    pub(super) validating: ProbeResult,
    /// With the namespace of the Task. `None`: there is no Kelos, or no namespace for it.
    pub(super) mutating: Option<(String, ProbeResult)>,
}

/// The result of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ProbeResult {
    /// taskgate answered.
    Answered,
    /// The request was admitted unchanged, or was not sent yet.
    #[default]
    NotCalled,
    /// The API server called taskgate and got no answer.
    CallFailed(String),
    /// The request was refused before.
    Refused(String),
}

/// Sends both probes, with the Task in `namespace`. RBAC: `create` on clustertaskpolicies and, in that namespace, on Tasks.
pub(super) async fn run(reader: &SnapshotReader, namespace: Option<String>) -> Probes {
    let policy = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "ClusterTaskPolicy", "metadata": {"name": NAME},
        "spec": {"mode": "Off", "metadata": {"labels": {"doctor": "{{ no template"}}},
    });
    let validating = async {
        let answer = create(reader, Collection::ClusterPolicies, None, policy).await;
        result_of(answer, |_| false)
    };
    let mutating = async {
        let namespace = namespace?;
        let resource = reader.resource(Collection::Tasks);
        let task = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": NAME, "annotations": {keys::CANCEL: "probe of taskgate doctor"}},
            "spec": {"type": "claude-code", "prompt": "nothing", "credentials": {"type": "none"}},
        });
        let answer = create(reader, Collection::Tasks, Some(&namespace), task).await;
        let is_changed = |task: &Value| task["metadata"]["annotations"].get(keys::CANCEL).is_none();
        Some((namespace, result_of(answer, is_changed)))
    };
    let (validating, mutating) = futures::join!(validating, mutating);
    Probes { validating, mutating }
}

async fn create(
    reader: &SnapshotReader,
    collection: Collection,
    namespace: Option<&str>,
    object: Value,
) -> Result<Value> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let objects = reader.api_in(collection, namespace);
    let created = objects.create(&DryRun::SERVER.post(), &object).await;
    Ok(serde_json::to_value(created.map_err(api_error)?)?)
}

/// What the answer to a probe proves.
fn result_of(answer: Result<Value>, is_changed: impl Fn(&Value) -> bool) -> ProbeResult {
    let is_own = |message: &str, before: &str| {
        let name = message
            .split_once(before)
            .and_then(|(_, rest)| rest.split_inclusive('"').next());
        name.is_some_and(|name| name.ends_with(OWN_WEBHOOK))
    };
    match answer {
        Ok(created) if is_changed(&created) => ProbeResult::Answered,
        Ok(_) => ProbeResult::NotCalled,
        Err(error) => match error.to_string() {
            message if is_own(&message, FAILED) => ProbeResult::CallFailed(message),
            message if is_own(&message, DENIED) => ProbeResult::Answered,
            message => ProbeResult::Refused(message),
        },
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_answer_shows_whether_taskgate_was_called() {
        let refused = |message: &str| result_of(Err(anyhow!("{message}")), |_| true);
        let denied = "admission webhook \"validate.policies.taskgate.dev\" denied the request: taskgate: spec";
        assert_eq!(refused(denied), ProbeResult::Answered);
        let broken = "Internal error occurred: failed calling webhook \"validate.policies.taskgate.dev\": failed to call webhook: \
                      Post \"https://…\": x509: certificate signed by unknown authority";
        assert_eq!(refused(broken), ProbeResult::CallFailed(broken.to_owned()));
        for other in [
            "clustertaskpolicies.taskgate.dev is forbidden: User \"ann\" cannot create resource",
            "admission webhook \"vpolicy.example.com\" denied the request: no",
            "failed calling webhook \"vpolicy.example.com\": no",
        ] {
            assert_eq!(refused(other), ProbeResult::Refused(other.to_owned()));
        }
        assert_eq!(result_of(Ok(Value::Null), |_| true), ProbeResult::Answered);
        assert_eq!(result_of(Ok(Value::Null), |_| false), ProbeResult::NotCalled);
    }
}
