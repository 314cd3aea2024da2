//! Writes to policies: what the schema cannot check is checked here, so that a policy that is stored can
//! be applied.

use serde::de::DeserializeOwned;
use serde_json::Value;
use taskgate_api::{ClusterTaskPolicySpec, TaskPolicySpec, metadata::Metadata};

use crate::{
    Detail, Kind, MAX_POLICIES, Operation, Policy, PolicySet, Problem, Request,
    decision::{Effect, Finding},
};

/// What is wrong with the object of `request`, a policy. How many policies there are is known from `policies`: those of a cache,
/// so that a burst may store a few too many, which then are not in force.
pub(crate) fn findings(request: &Request<'_>, policies: &PolicySet) -> Vec<Finding<'static>> {
    let metadata = Metadata::of(request.object);
    let written = matches!(request.operation, Operation::Create | Operation::Update);
    if !written || metadata.is_terminating() {
        return Vec::new();
    }
    // A generated name is not known yet; any legal one does for checking the rest.
    let name = metadata.name().unwrap_or("generated");
    match request.kind {
        Kind::TaskPolicy => match spec::<TaskPolicySpec>(request.object) {
            Ok(spec) => policy(request, policies, Policy::namespaced(request.namespace, name, &spec)),
            Err(error) => unreadable(&error),
        },
        Kind::ClusterTaskPolicy => match spec::<ClusterTaskPolicySpec>(request.object) {
            Ok(spec) => policy(request, policies, Policy::cluster(name, &spec)),
            Err(error) => unreadable(&error),
        },
        _ => Vec::new(),
    }
}

fn spec<T: DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(object.get("spec").unwrap_or(&Value::Null))
}

fn unreadable(error: &serde_json::Error) -> Vec<Finding<'static>> {
    let message = format!("spec: {error}");
    vec![Finding::own(Detail::Unreadable { message }, Effect::Reject)]
}

fn policy(
    request: &Request<'_>,
    policies: &PolicySet,
    compiled: Result<Policy, Vec<Problem>>,
) -> Vec<Finding<'static>> {
    match compiled {
        Ok(policy) if request.operation == Operation::Create && !policies.has_room_for(policy.name()) => {
            let message = format!(
                "there are {MAX_POLICIES} {} already, and no more may be in force: delete one first",
                policy.name().group()
            );
            let problem = Problem {
                field: "metadata.name".to_owned(),
                message,
            };
            let problems = vec![problem];
            vec![Finding::own(Detail::PolicyInvalid { problems }, Effect::Reject)]
        }
        Ok(policy) if policy.has_sections() => Vec::new(),
        Ok(_) => vec![Finding::own(Detail::PolicyEmpty, Effect::Tell)],
        Err(problems) => vec![Finding::own(Detail::PolicyInvalid { problems }, Effect::Reject)],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::{Facts, KueueFacts, Phase, Workspace, decide, fixtures, govern};

    #[test]
    fn a_namespace_has_room_for_so_many_policies() {
        let refused = |count: usize, operation: Operation, namespace: &str, name: &str| {
            let policies = fixtures::policies((0..count).map(|_| json!({"queueName": "q"})));
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"queueName": "q"}});
            let request = Request {
                phase: Phase::Validating,
                kind: Kind::TaskPolicy,
                operation,
                namespace,
                object: &object,
                sent: &object,
                old: &Value::Null,
                user: "me",
                own: false,
                dry_run: false,
            };
            let facts = Facts {
                policies: &policies,
                namespace_labels: &BTreeMap::new(),
                owner_task: None,
                spawner: None,
                workspace: &Workspace::Absent,
                kueue: KueueFacts::default(),
            };
            let governed = govern(&request, &facts);
            let decision = decide(&governed, None, Timestamp::UNIX_EPOCH);
            decision.denial.map(|denial| denial.message)
        };
        assert_eq!(refused(MAX_POLICIES - 1, Operation::Create, "team", "new"), None);
        let message = refused(MAX_POLICIES, Operation::Create, "team", "new").unwrap();
        assert!(
            message.contains("there are 64 TaskPolicies in namespace team already"),
            "{message}"
        );
        // Others have their own room, and what is there may be changed.
        assert_eq!(refused(MAX_POLICIES, Operation::Create, "elsewhere", "new"), None);
        assert_eq!(refused(MAX_POLICIES, Operation::Update, "team", "p0"), None);
        assert_eq!(refused(MAX_POLICIES + 1, Operation::Update, "team", "new"), None);
    }
}
