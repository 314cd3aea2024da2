//! One webhook, and whether a request is sent to it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::RuleWithOperations, apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::{Value, json};
use taskgate_api::{Selector, SelectorExt as _, metadata::Metadata};
use taskgate_webhook::{ReviewOperation, rules::Endpoint};

use super::Webhook;
use crate::{
    expression::{Expression, ExpressionError, Variables},
    proposal::Proposal,
};

/// A webhook that leads to taskgate.
#[derive(Debug)]
pub struct Hook {
    /// The name of its configuration.
    pub configuration: String,
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub endpoint: &'static Endpoint,
    /// Whether a call that fails refuses the request.
    pub fails_closed: bool,
    /// Whether it is called once more when a later one changes the object.
    pub reinvoked: bool,
    rules: Vec<RuleWithOperations>,
    namespaces: Selector,
    objects: Selector,
    conditions: Vec<(String, Expression)>,
}

/// Whether the API server sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It does.
    Yes,
    /// It does not, for this reason.
    No(String),
    /// A match condition has no truth value: the failure policy decides.
    Failed(String),
}

impl Hook {
    pub(super) fn new(configuration: &str, endpoint: &'static Endpoint, webhook: &Webhook) -> Result<Self, String> {
        let selector = |field: &str, selector: &Option<LabelSelector>| {
            let selector = selector.clone().unwrap_or_default();
            Selector::try_from(selector).map_err(|error| format!("{field}: {error}"))
        };
        let conditions = webhook.match_conditions.iter().flatten().map(|condition| {
            let compiled = Expression::compile(&condition.expression);
            let compiled = compiled.map_err(|error| format!("matchConditions[{}]: {error}", condition.name))?;
            Ok::<_, String>((condition.name.clone(), compiled))
        });
        Ok(Self {
            configuration: configuration.to_owned(),
            name: webhook.name.clone(),
            endpoint,
            fails_closed: webhook.failure_policy.as_deref() != Some("Ignore"),
            reinvoked: webhook.reinvocation.as_deref() == Some("IfNeeded"),
            rules: webhook.rules.clone().unwrap_or_default(),
            namespaces: selector("namespaceSelector", &webhook.namespaces)?,
            objects: selector("objectSelector", &webhook.objects)?,
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a rule names the kind of the request, whatever the operation.
    pub fn is_about(&self, proposal: &Proposal) -> bool {
        self.rules.iter().any(|rule| names_kind(rule, proposal))
    }

    /// Whether the API server sends `proposal`, with the object as it is by now. `namespace_labels` are those of its
    /// namespace; `None` for what lives in none.
    pub fn sends(&self, proposal: &Proposal, namespace_labels: Option<&BTreeMap<String, String>>) -> Sent {
        if !self.rules.iter().any(|rule| matches(rule, proposal)) {
            let operation = proposal.operation_name();
            let kind = proposal.kind_name();
            return Sent::No(format!("no rule of {} is about {operation} of {kind}", self.name));
        }
        if namespace_labels.is_some_and(|labels| !self.namespaces.matches(labels)) {
            let namespace = &proposal.namespace;
            return Sent::No(format!("the namespaceSelector excludes namespace {namespace}"));
        }
        if !self.objects.selects_all() {
            let selected = |object: &Value| object.is_object() && self.objects.matches(&labels(object));
            if !selected(&proposal.object) && !selected(&proposal.old) {
                return Sent::No("the objectSelector does not select its labels".to_owned());
            }
        }
        self.meets_conditions(proposal)
    }

    /// One condition that is false keeps the request back, even where another fails.
    fn meets_conditions(&self, proposal: &Proposal) -> Sent {
        let mentioned = |name| self.conditions.iter().any(|(_, condition)| condition.mentions(name));
        let request = mentioned("request").then(|| request_of(proposal));
        let mut values = vec![("object", &proposal.object), ("oldObject", &proposal.old)];
        values.extend(request.as_ref().map(|request| ("request", request)));
        let variables = Variables::new(values);
        let mut failed = None;
        for (name, condition) in &self.conditions {
            match condition.is_true(&variables) {
                Ok(true) => {}
                Ok(false) => return Sent::No(format!("matchCondition {name} is not met")),
                Err(error) => {
                    let _: &mut (String, ExpressionError) = failed.get_or_insert((name.clone(), error));
                }
            }
        }
        match failed {
            None => Sent::Yes,
            Some((name, error)) => Sent::Failed(format!("matchCondition {name}: {error}")),
        }
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    Metadata::of(object)
        .labels()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The request as match conditions see it.
fn request_of(proposal: &Proposal) -> Value {
    let user = &proposal.user;
    let kind = json!({"group": proposal.kind.group, "version": proposal.kind.version, "kind": proposal.kind.kind});
    let resource = json!({"group": proposal.kind.group, "version": proposal.kind.version,
        "resource": proposal.resource.clone().unwrap_or_default()});
    json!({
        "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
        "subResource": proposal.subresource, "requestSubResource": proposal.subresource,
        "name": proposal.name, "namespace": proposal.namespace, "operation": proposal.operation,
        "userInfo": {"username": user.username, "uid": user.uid.clone().unwrap_or_default(), "groups": user.groups,
            "extra": user.extra},
        "dryRun": false,
    })
}

fn names_kind(rule: &RuleWithOperations, proposal: &Proposal) -> bool {
    let has =
        |values: &Option<Vec<String>>, value: &str| values.iter().flatten().any(|known| known == "*" || known == value);
    let Some(resource) = &proposal.resource else {
        return false;
    };
    let resources = rule.resources.iter().flatten();
    let named = |pattern: &String| {
        let (of, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
        (of == "*" || of == resource) && (sub == "*" || sub == proposal.subresource)
    };
    let in_scope = match rule.scope.as_deref() {
        Some("Namespaced") => !proposal.namespace.is_empty(),
        Some("Cluster") => proposal.namespace.is_empty(),
        _ => true,
    };
    in_scope
        && has(&rule.api_groups, &proposal.kind.group)
        && has(&rule.api_versions, &proposal.kind.version)
        && resources.into_iter().any(named)
}

fn matches(rule: &RuleWithOperations, proposal: &Proposal) -> bool {
    let operation = proposal.operation_name();
    let operations = rule.operations.iter().flatten();
    let named = operations.into_iter().any(|known| known == "*" || known == operation);
    named && names_kind(rule, proposal)
}

impl Proposal {
    /// The operation as rules spell it.
    pub fn operation_name(&self) -> &'static str {
        match self.operation {
            ReviewOperation::Create => "CREATE",
            ReviewOperation::Update => "UPDATE",
            ReviewOperation::Delete => "DELETE",
            ReviewOperation::Connect => "CONNECT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{proposal::Defaults, registration::Registration};
    use taskgate_policy::Phase;

    fn sent(object: Value, namespace_labels: &[(&str, &str)]) -> Vec<(String, Sent)> {
        let registration = Registration::generated("taskgate", "taskgate-system");
        let proposal = Proposal::create(object, &Defaults::default());
        let labels = namespace_labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let hooks = registration
            .hooks(Phase::Mutating)
            .filter(|hook| hook.is_about(&proposal));
        hooks
            .map(|hook| (hook.name.clone(), hook.sends(&proposal, Some(&labels))))
            .collect()
    }

    fn job() -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "team",
            "labels": {"kelos.dev/task": "a"}, "ownerReferences": [{"apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
                "name": "a", "uid": "u", "controller": true}]}})
    }

    #[test]
    fn what_keeps_a_request_back_is_told() {
        let no = |job: Value, labels: &[(&str, &str)]| match &sent(job, labels)[..] {
            [(_, Sent::No(reason))] => reason.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(sent(job(), &[]), [("mutate.jobs.taskgate.dev".to_owned(), Sent::Yes)]);
        assert_eq!(
            no(job(), &[("taskgate.dev/admission", "disabled")]),
            "the namespaceSelector excludes namespace team"
        );
        let mut plain = job();
        plain["metadata"]["labels"] = json!({});
        assert_eq!(no(plain, &[]), "the objectSelector does not select its labels");
        let mut orphan = job();
        orphan["metadata"]["ownerReferences"] = json!([]);
        assert_eq!(no(orphan, &[]), "matchCondition controlled-by-a-kelos-task is not met");
    }

    #[test]
    fn a_task_is_sent_and_one_without_a_cancellation_is_not_sent_there() {
        let task =
            json!({"apiVersion": "kelos.dev/v1alpha1", "kind": "Task", "metadata": {"name": "a", "namespace": "team"}});
        let calls = sent(task, &[]);
        assert_eq!(calls[0], ("mutate.tasks.taskgate.dev".to_owned(), Sent::Yes));
        let kept = Sent::No("matchCondition changes-a-cancellation is not met".to_owned());
        assert_eq!(calls[1], ("mutate.cancellations.taskgate.dev".to_owned(), kept));
    }
}
