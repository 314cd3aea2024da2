//! Which requests the API server sends to taskgate: the webhook configurations, evaluated as the API server evaluates them.
//! Rules first, then the namespaceSelector, the objectSelector and the matchConditions.
//!
//! The configurations are those that taskgate generates, or those that are found: in files, or in a cluster.

mod hook;

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use taskgate_api::metadata::Metadata;
use taskgate_policy::Phase;
use taskgate_webhook::rules::{ENDPOINTS, Endpoint};

pub use hook::{Hook, Sent};

/// The webhooks that lead to taskgate, in the order in which the API server calls them.
#[derive(Debug)]
pub struct Registration {
    hooks: Vec<Hook>,
}

/// A webhook configuration cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[error("{configuration}: {problem}")]
pub struct RegistrationError {
    /// Its kind and name.
    pub configuration: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What the two kinds of webhooks have in common.
struct Webhook {
    name: String,
    client: WebhookClientConfig,
    failure_policy: Option<String>,
    rules: Option<Vec<RuleWithOperations>>,
    match_conditions: Option<Vec<MatchCondition>>,
    namespaces: Option<LabelSelector>,
    objects: Option<LabelSelector>,
    reinvocation: Option<String>,
}

impl Registration {
    /// The registration that taskgate generates for an installation in `namespace`.
    ///
    /// # Panics
    /// Never: a test holds that what is generated can be evaluated.
    pub fn generated(service: &str, namespace: &str) -> Self {
        let (mutating, validating) = taskgate_webhook::Registration::of_service(service, namespace).configurations();
        let mutating = of_mutating(mutating);
        let validating = of_validating(validating);
        let hooks = [mutating, validating].map(|hooks| hooks.expect("what is generated can be evaluated"));
        Self::of_hooks(hooks.into_iter().flatten().collect())
    }

    /// The registration that is among `objects`, if any is there. Of two configurations of one kind and name the later one
    /// counts.
    pub fn among<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Result<Option<Self>, RegistrationError> {
        let mut configurations = BTreeMap::new();
        for object in objects {
            if let Some(kind @ ("MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration")) =
                object["kind"].as_str()
            {
                configurations.insert((kind, Metadata::of(object).name()), object);
            }
        }
        let mut hooks = Vec::new();
        for ((kind, _), object) in configurations {
            let unreadable = |error: serde_json::Error| RegistrationError {
                configuration: named(object),
                problem: error.to_string(),
            };
            hooks.extend(if kind == "MutatingWebhookConfiguration" {
                of_mutating(serde_json::from_value(object.clone()).map_err(unreadable)?)?
            } else {
                of_validating(serde_json::from_value(object.clone()).map_err(unreadable)?)?
            });
        }
        Ok((!hooks.is_empty()).then(|| Self::of_hooks(hooks)))
    }

    /// Configurations run in the order of their names, the webhooks of one in their own order.
    fn of_hooks(mut hooks: Vec<Hook>) -> Self {
        hooks.sort_by(|a, b| a.configuration.cmp(&b.configuration));
        Self { hooks }
    }

    /// The webhooks of one phase, in the order of the calls.
    pub fn hooks(&self, phase: Phase) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |hook| hook.endpoint.phase == phase)
    }
}

fn named(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn of_mutating(configuration: MutatingWebhookConfiguration) -> Result<Vec<Hook>, RegistrationError> {
    let name = configuration.metadata.name.unwrap_or_default();
    let webhooks = configuration.webhooks.into_iter().flatten();
    let hooks = webhooks.map(|webhook| Webhook::from(webhook).evaluable("MutatingWebhookConfiguration", &name));
    collect(hooks)
}

fn of_validating(configuration: ValidatingWebhookConfiguration) -> Result<Vec<Hook>, RegistrationError> {
    let name = configuration.metadata.name.unwrap_or_default();
    let webhooks = configuration.webhooks.into_iter().flatten();
    let hooks = webhooks.map(|webhook| Webhook::from(webhook).evaluable("ValidatingWebhookConfiguration", &name));
    collect(hooks)
}

fn collect(
    hooks: impl Iterator<Item = Result<Option<Hook>, RegistrationError>>,
) -> Result<Vec<Hook>, RegistrationError> {
    hooks.filter_map(Result::transpose).collect()
}

impl Webhook {
    /// The webhook in a form that can be evaluated; `None` if it does not lead to taskgate.
    fn evaluable(self, kind: &str, configuration: &str) -> Result<Option<Hook>, RegistrationError> {
        let Some(endpoint) = endpoint(&self.client) else {
            return Ok(None);
        };
        let failed = |problem: String| RegistrationError {
            configuration: format!("{kind} {configuration}, webhook {}", self.name),
            problem,
        };
        Hook::new(configuration, endpoint, &self).map(Some).map_err(failed)
    }
}

/// The endpoint of ours that a webhook calls: by its path.
fn endpoint(client: &WebhookClientConfig) -> Option<&'static Endpoint> {
    let path = match (&client.service, &client.url) {
        (Some(service), _) => service.path.as_deref()?,
        (None, Some(url)) => url.as_str(),
        (None, None) => return None,
    };
    ENDPOINTS
        .iter()
        .filter(|endpoint| path.ends_with(endpoint.path))
        .max_by_key(|endpoint| endpoint.path.len())
}

impl From<MutatingWebhook> for Webhook {
    fn from(webhook: MutatingWebhook) -> Self {
        Self {
            name: webhook.name,
            client: webhook.client_config,
            failure_policy: webhook.failure_policy,
            rules: webhook.rules,
            match_conditions: webhook.match_conditions,
            namespaces: webhook.namespace_selector,
            objects: webhook.object_selector,
            reinvocation: webhook.reinvocation_policy,
        }
    }
}

impl From<ValidatingWebhook> for Webhook {
    fn from(webhook: ValidatingWebhook) -> Self {
        Self {
            name: webhook.name,
            client: webhook.client_config,
            failure_policy: webhook.failure_policy,
            rules: webhook.rules,
            match_conditions: webhook.match_conditions,
            namespaces: webhook.namespace_selector,
            objects: webhook.object_selector,
            reinvocation: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_is_evaluated_as_what_is_installed() {
        let generated = Registration::generated("taskgate", "taskgate-system");
        let (mutating, validating) =
            taskgate_webhook::Registration::of_service("taskgate", "taskgate-system").configurations();
        let objects = [
            serde_json::to_value(validating).unwrap(),
            serde_json::to_value(mutating).unwrap(),
        ];
        // As from a cluster and from files: the later one of a name takes the place of the other.
        let read = Registration::among(objects.iter().chain(&objects)).unwrap().unwrap();
        for phase in [Phase::Mutating, Phase::Validating] {
            let names = |registration: &Registration| {
                registration
                    .hooks(phase)
                    .map(|hook| hook.name.clone())
                    .collect::<Vec<_>>()
            };
            let wanted = ENDPOINTS.iter().filter(|endpoint| endpoint.phase == phase);
            let wanted: Vec<_> = wanted.map(|endpoint| endpoint.webhook.to_owned()).collect();
            assert_eq!(names(&generated), wanted);
            assert_eq!(names(&read), wanted);
        }
    }

    #[test]
    fn what_leads_elsewhere_is_none_of_ours_and_what_cannot_be_evaluated_is_told() {
        let mut configuration = serde_json::json!({"kind": "MutatingWebhookConfiguration",
            "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "other"},
            "webhooks": [{"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"url": "https://elsewhere/mutate"}}]});
        assert!(Registration::among([&configuration]).unwrap().is_none());
        configuration["webhooks"][0]["clientConfig"]["url"] = "https://taskgate/mutate/tasks".into();
        configuration["webhooks"][0]["matchConditions"] = serde_json::json!([{"name": "odd", "expression": "a &&"}]);
        let error = Registration::among([&configuration]).unwrap_err().to_string();
        assert!(error.contains("webhook a.b.c") && error.contains("odd"), "{error}");
    }
}
