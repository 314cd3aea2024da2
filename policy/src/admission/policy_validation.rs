//! Validates policies that are written: what the schema cannot check, so that every stored policy can be applied.

use taskgate_api::metadata::Metadata;

use super::{spec_of, unreadable};
use crate::{
    decision::{Detail, Effect, Finding, Kind, Operation, Request},
    kubernetes::Problem,
    matching::{MAX_POLICIES, Policy, PolicySet},
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
    let compiled = match request.kind {
        Kind::TaskPolicy => spec_of(request.object).map(|spec| Policy::namespaced(request.namespace, name, &spec)),
        Kind::ClusterTaskPolicy => spec_of(request.object).map(|spec| Policy::cluster(name, &spec)),
        _ => return Vec::new(),
    };
    let invalid = |problems| Finding::own(Detail::PolicyInvalid(problems), Effect::Reject);
    let finding = match compiled {
        Err(error) => unreadable(&error),
        Ok(Err(problems)) => invalid(problems),
        Ok(Ok(policy)) if request.operation == Operation::Create && !policies.has_room_for(policy.name()) => {
            let message = format!(
                "there are {MAX_POLICIES} {} already, and no more may be in force: delete one first",
                policy.name().group()
            );
            let field = "metadata.name".to_owned();
            invalid(vec![Problem { field, message }])
        }
        Ok(Ok(policy)) if policy.sections().is_empty() => Finding::own(Detail::PolicyEmpty, Effect::Warn),
        Ok(Ok(_)) => return Vec::new(),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        admission::{decide, govern},
        decision::{AdmissionContext, KueueInfo, Phase},
        fixtures,
        issue_source::Workspace,
    };

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
            let context = AdmissionContext {
                policies: &policies,
                namespace_labels: &BTreeMap::new(),
                owner_task: None,
                spawner: None,
                workspace: &Workspace::Absent,
                kueue: &KueueInfo::default(),
            };
            let governed = govern(&request, &context);
            let decision = decide(&governed, None, Timestamp::UNIX_EPOCH);
            decision.denial.map(|denial| denial.message)
        };
        assert_eq!(refused(MAX_POLICIES - 1, Operation::Create, "team", "new"), None);
        let message = refused(MAX_POLICIES, Operation::Create, "team", "new").unwrap();
        assert!(
            message.contains("there are 64 TaskPolicies in namespace team already"),
            "{message}"
        );
        // Each namespace has its own limit, and an existing policy may be changed.
        assert_eq!(refused(MAX_POLICIES, Operation::Create, "elsewhere", "new"), None);
        assert_eq!(refused(MAX_POLICIES, Operation::Update, "team", "p0"), None);
        assert_eq!(refused(MAX_POLICIES + 1, Operation::Update, "team", "new"), None);
    }
}
