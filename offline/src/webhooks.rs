//! The installed webhooks of taskgate, and whether the API server sends them a request: rules first, then the
//! namespaceSelector, the objectSelector and the matchConditions.
//!
//! The webhook configurations are those that taskgate generates, or those in files or in a cluster.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::{MutatingWebhook, RuleWithOperations},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use taskgate_api::{Selector, SelectorExt as _, metadata::Metadata};
use taskgate_policy::Phase;
use taskgate_webhook::{
    ObjectKind, Registration,
    rules::{ENDPOINTS, Endpoint},
};

use crate::{
    expression::{Expression, Variables},
    write_request::WriteRequest,
};

/// The webhooks that call taskgate, in the order in which the API server calls them.
#[derive(Debug)]
pub struct InstalledWebhooks(Vec<InstalledWebhook>);

/// A webhook configuration cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}{webhook}: {problem}")]
pub struct WebhookConfigurationError {
    kind: String,
    name: String,
    /// The webhook in it, after a comma; empty if it is not one of them.
    webhook: String,
    problem: String,
}

impl WebhookConfigurationError {
    /// Whether it is about the configuration `object`.
    pub fn is_about(&self, object: &Value) -> bool {
        object["kind"] == self.kind && Metadata::of(object).name() == Some(&self.name)
    }
}

/// A webhook that calls taskgate.
#[derive(Debug)]
pub struct InstalledWebhook {
    /// The name of its configuration.
    pub configuration: String,
    /// Its name.
    pub name: String,
    /// The endpoint that it calls.
    pub endpoint: &'static Endpoint,
    /// Whether a failed call rejects the request.
    pub fails_closed: bool,
    /// Whether it is called again when a later webhook changes the object.
    pub reinvoked: bool,
    rules: Vec<RuleWithOperations>,
    namespaces: Selector,
    objects: Selector,
    conditions: Vec<(String, Expression)>,
}

/// Whether the API server sends a request to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchOutcome {
    /// It does.
    Sent,
    /// It does not, for this reason.
    NotSent(String),
    /// A match condition cannot be evaluated: the failure policy applies.
    Failed(String),
}

impl InstalledWebhooks {
    /// The webhooks that taskgate generates for an installation in `namespace`.
    ///
    /// # Panics
    /// Never: a test evaluates the generated configurations.
    pub fn generated(service: &str, namespace: &str) -> Self {
        let (mutating, validating) = Registration::of_service(service, namespace).configurations();
        let configurations = [json!(mutating), json!(validating)];
        let generated = Self::find(&configurations).expect("generated configurations can be evaluated");
        generated.expect("generated configurations call taskgate")
    }

    /// The webhooks in the configurations among `objects`; `None` if no webhook calls taskgate. Of two configurations of one kind
    /// and name the later one counts.
    pub fn find<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Result<Option<Self>, WebhookConfigurationError> {
        let mut configurations = BTreeMap::new();
        for object in objects {
            if let Some(kind @ ("MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration")) =
                object["kind"].as_str()
            {
                let name = Metadata::of(object).name().unwrap_or_default();
                configurations.insert((kind, name), object);
            }
        }
        let mut webhooks = Vec::new();
        for ((kind, name), configuration) in configurations {
            let failed = |webhook: &str, problem: String| WebhookConfigurationError {
                kind: kind.to_owned(),
                name: name.to_owned(),
                webhook: webhook.to_owned(),
                problem,
            };
            let all = configuration["webhooks"].as_array().into_iter().flatten();
            let own: Vec<_> = all.filter_map(|webhook| Some((endpoint(webhook)?, webhook))).collect();
            if own.is_empty() {
                continue;
            }
            if configuration["apiVersion"] != "admissionregistration.k8s.io/v1" {
                return Err(failed(
                    "",
                    "its apiVersion is not admissionregistration.k8s.io/v1".to_owned(),
                ));
            }
            for (endpoint, webhook) in own {
                let installed = InstalledWebhook::new(name, endpoint, webhook);
                let called = format!(", webhook {}", endpoint.webhook);
                webhooks.push(installed.map_err(|problem| failed(&called, problem))?);
            }
        }
        // Configurations run in the order of their names, the webhooks of each in their own order.
        webhooks.sort_by(|a, b| a.configuration.cmp(&b.configuration));
        Ok((!webhooks.is_empty()).then_some(Self(webhooks)))
    }

    /// Whether a rule of any webhook names the kind of the request.
    pub fn name_kind(&self, request: &WriteRequest) -> bool {
        self.0.iter().any(|webhook| webhook.names_kind(request))
    }

    /// The webhooks of one phase, in the order of the calls.
    pub fn of_phase(&self, phase: Phase) -> impl Iterator<Item = &InstalledWebhook> {
        self.0.iter().filter(move |webhook| webhook.endpoint.phase == phase)
    }
}

/// The endpoint of taskgate that `webhook` calls. Its name and its path say so: others serve such paths too.
fn endpoint(webhook: &Value) -> Option<&'static Endpoint> {
    let endpoint = ENDPOINTS.iter().find(|endpoint| webhook["name"] == endpoint.webhook)?;
    let client = &webhook["clientConfig"];
    let path = client["service"]["path"].as_str().or_else(|| client["url"].as_str())?;
    path.ends_with(endpoint.path).then_some(endpoint)
}

impl InstalledWebhook {
    fn new(configuration: &str, endpoint: &'static Endpoint, webhook: &Value) -> Result<Self, String> {
        let mut webhook = webhook.clone();
        // Where and how it is called decides nothing, and a template may have a placeholder for the certificate.
        webhook["clientConfig"] = json!({});
        // A validating webhook has the same fields, except the reinvocation policy.
        let webhook = MutatingWebhook::deserialize(webhook).map_err(|error| error.to_string())?;
        let selector = |field: &str, selector: Option<LabelSelector>| {
            Selector::try_from(selector.unwrap_or_default()).map_err(|error| format!("{field}: {error}"))
        };
        let conditions = webhook.match_conditions.into_iter().flatten().map(|condition| {
            let compiled = Expression::compile(&condition.expression);
            let compiled = compiled.map_err(|error| format!("matchConditions[{}]: {error}", condition.name))?;
            Ok::<_, String>((condition.name, compiled))
        });
        Ok(Self {
            configuration: configuration.to_owned(),
            name: webhook.name,
            endpoint,
            fails_closed: webhook.failure_policy.as_deref() != Some("Ignore"),
            reinvoked: webhook.reinvocation_policy.as_deref() == Some("IfNeeded"),
            rules: webhook.rules.unwrap_or_default(),
            namespaces: selector("namespaceSelector", webhook.namespace_selector)?,
            objects: selector("objectSelector", webhook.object_selector)?,
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a rule names the kind of the request, for any operation.
    pub fn names_kind(&self, request: &WriteRequest) -> bool {
        self.rules.iter().any(|rule| rule_names_kind(rule, request))
    }

    /// Whether the API server sends `request`, with the object in its current form. `namespace_labels` are those of its
    /// namespace; `None` for a cluster-scoped object.
    pub fn matches(&self, request: &WriteRequest, namespace_labels: Option<&BTreeMap<String, String>>) -> MatchOutcome {
        if !self.rules.iter().any(|rule| rule_matches(rule, request)) {
            let (operation, kind) = (request.operation_name(), request.kind_name());
            return MatchOutcome::NotSent(format!("no rule of {} is about {operation} of {kind}", self.name));
        }
        if namespace_labels.is_some_and(|labels| !self.namespaces.matches(labels)) {
            let namespace = &request.review.namespace;
            return MatchOutcome::NotSent(format!("the namespaceSelector excludes namespace {namespace}"));
        }
        if !self.objects.selects_all() {
            let selected = |object: &Value| object.is_object() && self.objects.matches(&labels(object));
            if !selected(&request.review.object) && !selected(&request.review.old_object) {
                return MatchOutcome::NotSent("the objectSelector does not select its labels".to_owned());
            }
        }
        self.meets_conditions(request)
    }

    /// Evaluates the match conditions. A false one excludes the request, even if another one fails.
    fn meets_conditions(&self, request: &WriteRequest) -> MatchOutcome {
        let mentioned = |name| self.conditions.iter().any(|(_, condition)| condition.mentions(name));
        let admission_request = mentioned("request").then(|| admission_request(request));
        let review = &request.review;
        let mut values = vec![("object", &review.object), ("oldObject", &review.old_object)];
        values.extend(admission_request.as_ref().map(|request| ("request", request)));
        let variables = Variables::new(values);
        let mut failed = None;
        for (name, condition) in &self.conditions {
            match condition.is_true(&variables) {
                Ok(true) => {}
                Ok(false) => return MatchOutcome::NotSent(format!("matchCondition {name} is not met")),
                Err(error) => failed = failed.or_else(|| Some(format!("matchCondition {name}: {error}"))),
            }
        }
        failed.map_or(MatchOutcome::Sent, MatchOutcome::Failed)
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    Metadata::of(object)
        .labels()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The variable `request` of match conditions.
fn admission_request(request: &WriteRequest) -> Value {
    let review = &request.review;
    let user = &review.user_info;
    let ObjectKind { group, version, kind } = &review.kind;
    let kind = json!({"group": group, "version": version, "kind": kind});
    let resource = request.resource.as_deref().unwrap_or_default();
    let resource = json!({"group": group, "version": version, "resource": resource});
    json!({
        "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
        "subResource": request.review.sub_resource, "requestSubResource": request.review.sub_resource,
        "name": review.name, "namespace": review.namespace, "operation": review.operation,
        "userInfo": {"username": user.username, "uid": user.uid.clone().unwrap_or_default(),
            "groups": user.groups.clone().unwrap_or_default(), "extra": user.extra.clone().unwrap_or_default()},
        "dryRun": false,
    })
}

fn rule_names_kind(rule: &RuleWithOperations, request: &WriteRequest) -> bool {
    let has =
        |values: &Option<Vec<String>>, value: &str| values.iter().flatten().any(|known| known == "*" || known == value);
    let Some(resource) = &request.resource else {
        return false;
    };
    let review = &request.review;
    let resources = rule.resources.iter().flatten();
    let named = |pattern: &String| {
        let (of, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
        (of == "*" || of == resource) && (sub == "*" || sub == request.review.sub_resource)
    };
    let in_scope = match rule.scope.as_deref() {
        Some("Namespaced") => !review.namespace.is_empty(),
        Some("Cluster") => review.namespace.is_empty(),
        _ => true,
    };
    in_scope
        && has(&rule.api_groups, &review.kind.group)
        && has(&rule.api_versions, &review.kind.version)
        && resources.into_iter().any(named)
}

fn rule_matches(rule: &RuleWithOperations, request: &WriteRequest) -> bool {
    let operation = request.operation_name();
    let operations = rule.operations.iter().flatten();
    let named = operations.into_iter().any(|known| known == "*" || known == operation);
    named && rule_names_kind(rule, request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_request::RequestDefaults;

    fn sent(object: Value, namespace_labels: &[(&str, &str)]) -> Vec<(String, MatchOutcome)> {
        let webhooks = InstalledWebhooks::generated("taskgate", "taskgate-system");
        let request = WriteRequest::create(object, &RequestDefaults::default());
        let labels = namespace_labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let webhooks = webhooks
            .of_phase(Phase::Mutating)
            .filter(|webhook| webhook.names_kind(&request));
        webhooks
            .map(|webhook| (webhook.name.clone(), webhook.matches(&request, Some(&labels))))
            .collect()
    }

    fn job() -> Value {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "team",
            "labels": {"kelos.dev/task": "a"}, "ownerReferences": [{"apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
                "name": "a", "uid": "u", "controller": true}]}})
    }

    #[test]
    fn the_reason_why_a_request_is_not_sent_is_returned() {
        let no = |job: Value, labels: &[(&str, &str)]| match &sent(job, labels)[..] {
            [(_, MatchOutcome::NotSent(reason))] => reason.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            sent(job(), &[]),
            [("mutate.jobs.taskgate.dev".to_owned(), MatchOutcome::Sent)]
        );
        assert_eq!(
            no(job(), &[("taskgate.dev/admission", "disabled")]),
            "the namespaceSelector excludes namespace team"
        );
        let mut plain = job();
        plain["metadata"]["labels"] = json!({});
        assert_eq!(no(plain, &[]), "the objectSelector does not select its labels");
    }

    #[test]
    fn a_task_without_a_cancellation_is_sent_to_the_task_endpoint_only() {
        let task =
            json!({"apiVersion": "kelos.dev/v1alpha1", "kind": "Task", "metadata": {"name": "a", "namespace": "team"}});
        let calls = sent(task, &[]);
        assert_eq!(calls[0], ("mutate.tasks.taskgate.dev".to_owned(), MatchOutcome::Sent));
        let kept = MatchOutcome::NotSent("matchCondition changes-a-cancellation is not met".to_owned());
        assert_eq!(calls[2], ("mutate.cancellations.taskgate.dev".to_owned(), kept));
    }

    #[test]
    fn generated_and_installed_configurations_are_evaluated_alike() {
        let generated = InstalledWebhooks::generated("taskgate", "taskgate-system");
        let (mutating, validating) = Registration::of_service("taskgate", "taskgate-system").configurations();
        let objects = [
            serde_json::to_value(validating).unwrap(),
            serde_json::to_value(mutating).unwrap(),
        ];
        // As from a cluster and from files: the later one of a name replaces the other.
        let read = InstalledWebhooks::find(objects.iter().chain(&objects))
            .unwrap()
            .unwrap();
        for phase in [Phase::Mutating, Phase::Validating] {
            let names = |webhooks: &InstalledWebhooks| {
                webhooks
                    .of_phase(phase)
                    .map(|webhook| webhook.name.clone())
                    .collect::<Vec<_>>()
            };
            let wanted = ENDPOINTS.iter().filter(|endpoint| endpoint.phase == phase);
            let wanted: Vec<_> = wanted.map(|endpoint| endpoint.webhook.to_owned()).collect();
            assert_eq!(names(&generated), wanted);
            assert_eq!(names(&read), wanted);
        }
    }

    #[test]
    fn webhooks_of_others_are_skipped_and_invalid_ones_are_errors() {
        let of = |webhooks: Value| {
            json!({"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1",
                "metadata": {"name": "other"}, "webhooks": webhooks})
        };
        let own = |path: &str| {
            json!({"name": "mutate.tasks.taskgate.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"caBundle": "${CA_BUNDLE}", "service": {"name": "t", "namespace": "t", "path": path}}})
        };
        let named = |name: &str, mut webhook: Value| {
            webhook["name"] = json!(name);
            webhook
        };
        for others in [
            json!(null),
            json!([]),
            json!("text"),
            json!([7, {"name": "a.b.c", "clientConfig": "text"}]),
            json!([named("a.b.c", own("/mutate/tasks"))]),
            json!([named("jobs.mpi.example.com", own("/mutate/jobs"))]),
            json!([own("/mutate")]),
        ] {
            let found = InstalledWebhooks::find([&of(others.clone())]).unwrap();
            assert!(found.is_none(), "{others}");
        }
        assert!(
            InstalledWebhooks::find([&of(json!([own("/mutate/tasks")]))])
                .unwrap()
                .is_some()
        );
        let mut odd = own("/mutate/tasks");
        odd["matchConditions"] = json!([{"name": "odd", "expression": "a &&"}]);
        let error = InstalledWebhooks::find([&of(json!([odd]))]).unwrap_err();
        assert_eq!(
            (error.kind.as_str(), error.name.as_str()),
            ("MutatingWebhookConfiguration", "other")
        );
        let error = error.to_string();
        assert!(
            error.contains("webhook mutate.tasks.taskgate.dev") && error.contains("odd"),
            "{error}"
        );
    }
}
