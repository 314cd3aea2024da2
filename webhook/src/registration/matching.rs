//! The rules, selectors and CEL match conditions of an endpoint.

use k8s_openapi::{
    api::admissionregistration::v1::{MatchCondition, RuleWithOperations},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use taskgate_api::{
    kelos,
    kelos_fields::{KelosField, KelosWriters, SpawnerFields},
    keys,
    moved_field::{MOVED_FIELDS, MovedField},
};
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
pub(super) fn match_conditions(endpoint: &Endpoint, writers: &KelosWriters) -> Vec<MatchCondition> {
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
    let specific = match endpoint.filter {
        RequestFilter::NotBeingDeleted | RequestFilter::JobOfTask => Vec::new(),
        RequestFilter::AppliedAgain => {
            let again = MOVED_FIELDS.map(sent_again).join(" || ");
            let annotations = leaves_out("annotations", &keys::PROTECTED_ANNOTATIONS);
            let labels = leaves_out("labels", &keys::PROTECTED_LABELS);
            vec![condition(
                "applied-again",
                format!("{again} || {annotations} || {labels}"),
            )]
        }
        RequestFilter::Cancellation => {
            let expression = changes("annotations", &keys::CANCELLATION);
            vec![condition("changes-a-cancellation", expression)]
        }
        RequestFilter::OwnKeys => {
            let annotations = [keys::CANCELLATION.as_slice(), keys::PROTECTED_ANNOTATIONS.as_slice()].concat();
            let annotations = changes("annotations", &annotations);
            let labels = changes("labels", &keys::PROTECTED_LABELS);
            vec![condition("changes-own-keys", format!("{annotations} || {labels}"))]
        }
        RequestFilter::WorkItemRequests => {
            let requests = keys::REQUESTS.map(|(request, by)| [request, by]).concat();
            vec![condition("changes-a-request", changes("annotations", &requests))]
        }
        RequestFilter::KelosFields => {
            // No writer of Kelos sets the resets: one that does is an imitator, and must not be stored unseen.
            let forged = format!(
                "({IS_STATUS} && {})",
                differs(KelosField::FailedItemResets.path(), true)
            );
            let copy = changes("annotations", &[keys::KELOS_FIELDS]);
            let spec = SpawnerFields::FIELDS
                .map(|field| differs(field.path(), false))
                .join(" || ");
            let status = [KelosField::FailedItems, KelosField::FailedItemResets];
            let status = status.map(|field| differs(field.path(), false)).join(" || ");
            vec![
                condition("not-written-by-kelos", format!("!({}) || {forged}", by_kelos(writers))),
                condition(
                    "changes-fields",
                    format!("{IS_STATUS} ? ({status}) : ({spec} || {copy})"),
                ),
            ]
        }
        RequestFilter::KelosDrops => {
            let spec = SpawnerFields::FIELDS.map(|field| dropped(field.path())).join(" || ");
            let status = [
                KelosField::FailedItems,
                KelosField::FailedItemResets,
                KelosField::CancelledBy,
            ];
            let status = status.map(|field| dropped(field.path())).join(" || ");
            vec![
                condition("written-by-kelos", by_kelos(writers)),
                condition("drops-fields", format!("{IS_STATUS} ? ({status}) : ({spec})")),
            ]
        }
    };
    let updates = endpoint.operations.contains(&Operation::Update);
    updates
        .then_some(not_being_deleted)
        .into_iter()
        .chain(specific)
        .collect()
}

/// Whether the request is about the status.
const IS_STATUS: &str = "(has(request.subResource) && request.subResource == 'status')";

/// Whether the user is one of Kelos' writers.
fn by_kelos(writers: &KelosWriters) -> String {
    let KelosWriters { controller, spawner } = writers;
    format!(
        "request.userInfo.username in ['system:serviceaccount:{}:{}', 'system:serviceaccount:' + request.namespace + \
         ':{spawner}']",
        controller.namespace, controller.name
    )
}

/// Whether `object` has the field at `path`.
fn has(object: &str, path: &[&str]) -> String {
    let mut parts = vec![format!("{object} != null")];
    for depth in 1..=path.len() {
        let (path, _) = path.split_at(depth);
        parts.push(format!("has({object}.{})", path.join(".")));
    }
    format!("({})", parts.join(" && "))
}

/// Whether the stored object has the field at `path` and the new one does not.
fn dropped(path: &[&str]) -> String {
    format!("({} && !{})", has("oldObject", path), has("object", path))
}

/// Whether the field at `path` is set, removed or changed; with `set`: whether the new object has it, with another value.
fn differs(path: &[&str], set: bool) -> String {
    let (now, before, dotted) = (has("object", path), has("oldObject", path), path.join("."));
    let changed = format!("({now} && (!{before} || object.{dotted} != oldObject.{dotted}))");
    if set {
        return changed;
    }
    format!("({changed} || {})", dropped(path))
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

/// A CEL expression: whether an update sends `field` again, which admission moved out of the spec.
fn sent_again(field: MovedField) -> String {
    let MovedField { name, annotation, .. } = field;
    format!(
        "(has(oldObject.metadata.annotations) && '{annotation}' in oldObject.metadata.annotations && \
         has(object.spec) && '{name}' in object.spec && !(has(oldObject.spec) && '{name}' in oldObject.spec))"
    )
}

/// A CEL expression: whether an update leaves out one of `keys` in `map`.
fn leaves_out(map: &str, keys: &[&str]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| format!("'{key}'")).collect();
    let keys = keys.join(", ");
    format!(
        "(has(oldObject.metadata.{map}) && [{keys}].exists(key, key in oldObject.metadata.{map} && \
         !(has(object.metadata.{map}) && key in object.metadata.{map})))"
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
