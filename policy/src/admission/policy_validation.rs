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
    if !written || Metadata::of(request.old).is_terminating() {
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
        Ok(Ok(policy)) => {
            let doubts = policy.doubts().iter().cloned();
            let finding = |doubt| Finding::own(Detail::TemplateFailsOnSample(doubt), Effect::Warn);
            return doubts.map(finding).collect();
        }
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use serde_json::{Value, json};
    use taskgate_api::kelos_fields::KelosFields;

    use super::*;
    use crate::{
        admission::{decide, govern},
        decision::{AdmissionContext, Decision, KueueInfo, Phase},
        fixtures,
        issue_source::Workspace,
    };

    fn written(policies: &PolicySet, operation: Operation, namespace: &str, object: &Value) -> Decision {
        let request = Request {
            phase: Phase::Validating,
            kind: Kind::TaskPolicy,
            operation,
            namespace,
            object,
            sent: object,
            old: &Value::Null,
            user: "me",
            own: false,
            dry_run: false,
        };
        let context = AdmissionContext {
            policies,
            namespace_labels: &BTreeMap::new(),
            owner_task: None,
            spawner: None,
            workspace: &Workspace::Absent,
            kueue: &KueueInfo::default(),
            kelos_fields: &KelosFields::new(),
        };
        decide(&govern(&request, &context), None, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_template_that_does_not_suit_a_sample_is_a_warning() {
        let templates = json!({"a": "{{slice .task.spec.model 0 3}}", "b": "{{index .task.spec.dependsOn 7}}"});
        let spec = json!({"metadata": {"engine": "GoTemplate", "labels": templates}});
        let object = json!({"metadata": {"namespace": "team", "name": "p"}, "spec": spec});
        let decision = written(&PolicySet::default(), Operation::Create, "team", &object);
        assert_eq!(decision.denial, None);
        assert_eq!(
            decision.warnings,
            [
                "taskgate: a template fails for a sample Task, and a Task for which it fails gets nothing: \
              spec.metadata.labels[b]: line 1, column 3: index out of range: 7"
            ]
        );
    }

    #[test]
    fn a_namespace_has_room_for_so_many_policies() {
        let refused = |count: usize, operation: Operation, namespace: &str, name: &str| {
            let policies = fixtures::policies((0..count).map(|_| json!({"queueName": "q"})));
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"queueName": "q"}});
            let decision = written(&policies, operation, namespace, &object);
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
