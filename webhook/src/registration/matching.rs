//! Which requests the API server sends us: rules, selectors and CEL conditions.

use k8s_openapi::{
    api::admissionregistration::v1::{MatchCondition, RuleWithOperations},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use taskgate_api::{kelos, keys};
use taskgate_policy::Operation;

use crate::rules::{Endpoint, Guard};

/// Labels that an object must have to be sent.
pub(super) fn object_selector(guard: Guard) -> LabelSelector {
    let labelled = LabelSelectorRequirement {
        key: kelos::TASK_LABEL.to_owned(),
        operator: "Exists".to_owned(),
        values: None,
    };
    LabelSelector {
        match_expressions: (guard == Guard::JobOfTask).then(|| vec![labelled]),
        match_labels: None,
    }
}

/// What a request must be like to be sent. Absent fields are asked for before they are read: an expression that fails counts as
/// a failure of the webhook.
pub(super) fn match_conditions(guard: Guard) -> Vec<MatchCondition> {
    let condition = |name: &str, expression: String| MatchCondition {
        name: name.to_owned(),
        expression,
    };
    let alive = condition(
        "not-being-deleted",
        "object == null || !has(object.metadata.deletionTimestamp)".to_owned(),
    );
    let of_task = condition(
        "controlled-by-a-kelos-task",
        format!(
            "object != null && has(object.metadata.ownerReferences) && object.metadata.ownerReferences.exists(owner, \
             has(owner.controller) && owner.controller && owner.kind == 'Task' && \
             owner.apiVersion.startsWith('{}/'))",
            kelos::GROUP
        ),
    );
    match guard {
        Guard::Alive => vec![alive],
        Guard::Cancellation => vec![
            alive,
            condition("changes-a-cancellation", changes("annotations", &keys::CANCELLATION)),
        ],
        Guard::OwnKeys => {
            let annotations = [keys::CANCELLATION.as_slice(), keys::PROTECTED_ANNOTATIONS.as_slice()].concat();
            let annotations = changes("annotations", &annotations);
            let labels = changes("labels", &keys::PROTECTED_LABELS);
            vec![
                alive,
                condition("changes-own-keys", format!("{annotations} || {labels}")),
            ]
        }
        Guard::Requests => {
            let requests = keys::REQUESTS.map(|(request, by)| [request, by]).concat();
            vec![alive, condition("changes-a-request", changes("annotations", &requests))]
        }
        Guard::JobOfTask => vec![alive, of_task],
    }
}

/// Whether one of these keys of `map` has another value than before, or is there on a new object. A value is compared behind a
/// sign of its own, so that an empty one differs from none.
fn changes(map: &str, keys: &[&str]) -> String {
    let value = |object: &str| {
        format!(
            "({object} != null && has({object}.metadata.{map}) && key in {object}.metadata.{map} ? \
             '=' + {object}.metadata.{map}[key] : '')"
        )
    };
    let keys: Vec<_> = keys.iter().map(|key| format!("'{key}'")).collect();
    format!(
        "[{}].exists(key, {} != {})",
        keys.join(", "),
        value("object"),
        value("oldObject")
    )
}

/// What is done to which resources.
pub(super) fn rules(endpoint: &Endpoint) -> Vec<RuleWithOperations> {
    let operation = |operation: &Operation| {
        match operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
        .to_owned()
    };
    endpoint
        .admitted
        .iter()
        .map(|admitted| RuleWithOperations {
            api_groups: Some(vec![admitted.group.to_owned()]),
            api_versions: Some(admitted.versions.iter().map(ToString::to_string).collect()),
            operations: Some(endpoint.operations.iter().map(operation).collect()),
            resources: Some(vec![admitted.resource.to_owned()]),
            scope: Some(if admitted.namespaced { "Namespaced" } else { "Cluster" }.to_owned()),
        })
        .collect()
}
