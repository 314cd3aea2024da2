//! Who answers: dry-runs of what taskgate answers like nobody else, whatever policies there are. So it is proven that this
//! API server calls taskgate by now, and gets its answers.
//!
//! For the validating side a ClusterTaskPolicy with a template that does not compile: the schema takes it, taskgate refuses it,
//! and it is in no namespace that could be left out. For the mutating side a Task that carries a request to be cancelled:
//! taskgate takes that off whatever is made anew.

use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use taskgate_api::{GROUP, VERSION, kelos, keys};

use super::{
    super::{
        facts::{Answer, Facts, Probes},
        judge,
    },
    CLUSTER_POLICIES,
    reader::Reader,
};

const NAME: &str = "taskgate-doctor";
/// What the names of our webhooks end with, and what the API server puts before them.
const REFUSED: &str = "admission webhook \"";
const FAILED: &str = "failed calling webhook \"";
const OURS: &str = ".taskgate.dev\"";

/// Asks both. RBAC: `create` on clustertaskpolicies and, in one namespace, on Tasks.
pub(super) async fn ask(reader: &Reader, kelos_version: &'static str, facts: &Facts) -> Probes {
    let policy = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "ClusterTaskPolicy", "metadata": {"name": NAME},
        "spec": {"mode": "Off", "metadata": {"labels": {"doctor": "{{ no template"}}},
    });
    let validating = async {
        let answer = create(reader, CLUSTER_POLICIES, None, policy).await;
        answer_of(answer, |_| false)
    };
    let mutating = async {
        let namespace = judge::namespace_to_ask_in(facts)?;
        let task = json!({
            "apiVersion": format!("{}/{kelos_version}", kelos::GROUP), "kind": "Task",
            "metadata": {"name": NAME, "annotations": {keys::CANCEL: "asked by taskgate doctor"}},
            "spec": {"type": "claude-code", "prompt": "nothing", "credentials": {"type": "none"}},
        });
        let kind = (kelos::GROUP, kelos_version, "Task", kelos::TASKS);
        let answer = create(reader, kind, Some(&namespace), task).await;
        let is_changed = |task: &Value| task["metadata"]["annotations"].get(keys::CANCEL).is_none();
        Some((namespace, answer_of(answer, is_changed)))
    };
    let (validating, mutating) = futures::join!(validating, mutating);
    Probes { validating, mutating }
}

async fn create(reader: &Reader, kind: super::Kind, namespace: Option<&str>, object: Value) -> Result<Value, String> {
    let object: DynamicObject = serde_json::from_value(object).map_err(|error| error.to_string())?;
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match reader.api(kind, namespace).create(&params, &object).await {
        Ok(created) => serde_json::to_value(created).map_err(|error| error.to_string()),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => Err(error.to_string()),
    }
}

/// What an answer says of who gave it.
fn answer_of(answer: Result<Value, String>, is_changed: impl Fn(&Value) -> bool) -> Answer {
    let of_ours = |message: &str, before: &str| {
        let name = message
            .split_once(before)
            .and_then(|(_, rest)| rest.split_inclusive('"').next());
        name.is_some_and(|name| name.ends_with(OURS))
    };
    match answer {
        Ok(created) if is_changed(&created) => Answer::Taskgate,
        Ok(_) => Answer::Nobody,
        Err(message) if of_ours(&message, FAILED) => Answer::Failed(message),
        Err(message) if of_ours(&message, REFUSED) => Answer::Taskgate,
        Err(message) => Answer::Refused(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answered_is_told_from_the_answer() {
        let refused = |message: &str| answer_of(Err(message.to_owned()), |_| true);
        let denied = "admission webhook \"validate.policies.taskgate.dev\" denied the request: taskgate: spec";
        assert_eq!(refused(denied), Answer::Taskgate);
        let broken = "Internal error occurred: failed calling webhook \"validate.policies.taskgate.dev\": failed to call webhook: \
                      Post \"https://…\": x509: certificate signed by unknown authority";
        assert_eq!(refused(broken), Answer::Failed(broken.to_owned()));
        for other in [
            "clustertaskpolicies.taskgate.dev is forbidden: User \"ann\" cannot create resource",
            "admission webhook \"vpolicy.example.com\" denied the request: no",
            "failed calling webhook \"vpolicy.example.com\": no",
        ] {
            assert_eq!(refused(other), Answer::Refused(other.to_owned()));
        }
        assert_eq!(answer_of(Ok(Value::Null), |_| true), Answer::Taskgate);
        assert_eq!(answer_of(Ok(Value::Null), |_| false), Answer::Nobody);
    }
}
