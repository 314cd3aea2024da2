//! The rules, selectors and CEL match conditions of an endpoint.

use k8s_openapi::{
    api::admissionregistration::v1::{MatchCondition, RuleWithOperations},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use taskgate_api::{kelos, keys};
use taskgate_policy::Operation;

use super::rules::{Endpoint, RequestFilter};

/// The labels that an object must have.
pub(super) fn object_selector(filter: RequestFilter) -> LabelSelector {
    let labelled = LabelSelectorRequirement {
        key: kelos::TASK_LABEL.to_owned(),
        operator: "Exists".to_owned(),
        values: None,
    };
    LabelSelector {
        match_expressions: (filter == RequestFilter::JobOfTask).then(|| vec![labelled]),
        match_labels: None,
    }
}

/// The CEL conditions that a request must meet. They test that fields exist before they read them: an expression that fails
/// counts as a failure of the webhook.
///
/// The API server evaluates conditions twice where it changes the object, and converts it for that: they cost a create more than
/// taskgate's decision. Hence the webhooks that are sent only creates have none.
pub(super) fn match_conditions(endpoint: &Endpoint) -> Vec<MatchCondition> {
    let condition = |name: &str, expression: String| MatchCondition {
        name: name.to_owned(),
        expression,
    };
    // The stored object: who creates one by server-side apply may send any time of deletion, and Kubernetes 1.37 drops it, but
    // after admission.
    let not_being_deleted = condition(
        "not-being-deleted",
        "oldObject == null || !has(oldObject.metadata.deletionTimestamp)".to_owned(),
    );
    let updates = endpoint.operations.contains(&Operation::Update);
    let specific = match endpoint.filter {
        RequestFilter::NotBeingDeleted | RequestFilter::JobOfTask => None,
        RequestFilter::Cancellation => {
            let expression = changes("annotations", &keys::CANCELLATION);
            Some(condition("changes-a-cancellation", expression))
        }
        RequestFilter::OwnKeys => {
            let annotations = [keys::CANCELLATION.as_slice(), keys::PROTECTED_ANNOTATIONS.as_slice()].concat();
            let annotations = changes("annotations", &annotations);
            let labels = changes("labels", &keys::PROTECTED_LABELS);
            Some(condition("changes-own-keys", format!("{annotations} || {labels}")))
        }
        RequestFilter::WorkItemRequests => {
            let requests = keys::REQUESTS.map(|(request, by)| [request, by]).concat();
            Some(condition("changes-a-request", changes("annotations", &requests)))
        }
    };
    updates
        .then_some(not_being_deleted)
        .into_iter()
        .chain(specific)
        .collect()
}

/// A CEL expression: whether one of `keys` in `map` changes, or exists on a new object. Values are compared behind a `=`, so that an
/// empty value differs from none.
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

/// The rules: which operations on which resources.
pub(super) fn rules_of(endpoint: &Endpoint) -> Vec<RuleWithOperations> {
    let operation = |operation: &Operation| operation.as_str().to_uppercase();
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
