//! The webhook configurations, generated from the endpoints that the router serves.
//!
//! Imports nothing of this crate. Called by the binary, which installs and checks the configurations, by `admission` and by
//! `taskgate-offline`, which evaluates them.

mod matching;
pub mod rules;
mod settings;

use k8s_openapi::{
    api::admissionregistration::v1::{
        MutatingWebhook, MutatingWebhookConfiguration, ServiceReference, ValidatingWebhook,
        ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
};
use taskgate_api::{kelos_fields::KelosWriters, keys};
use taskgate_policy::Phase;

use matching::{match_conditions, object_selector, rules_of};
use rules::{ENDPOINTS, EXCLUDED_NAMESPACES, Endpoint, ObjectOwner};

pub use settings::{ClientTarget, ConfigurationName, FailurePolicy, InvalidName, InvalidTimeout, TimeoutSeconds};

/// The annotation that asks cert-manager's CA injector for a certificate's CA.
const INJECT_CA_FROM: &str = "cert-manager.io/inject-ca-from";

/// The webhook configurations of one installation.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The name of both configurations.
    pub name: ConfigurationName,
    /// The namespace that taskgate runs in; its objects are never sent to taskgate.
    pub namespace: String,
    /// How the API server reaches taskgate.
    pub client: ClientTarget,
    /// The cert-manager Certificate, `namespace/name`, whose CA the injector writes into the configurations.
    pub inject_ca_from: Option<String>,
    /// The failure policy for Tasks and Jobs.
    pub foreign_failure: FailurePolicy,
    /// The failure policy for policies, `WorkItem`s, cancellations and the policy fields of TaskSpawners.
    pub own_failure: FailurePolicy,
    /// The service accounts of Kelos, whose writes get back the fields that they drop.
    pub kelos_writers: KelosWriters,
    /// How long the API server waits for a mutating answer.
    pub mutating_timeout: TimeoutSeconds,
    /// How long the API server waits for a validating answer.
    pub validating_timeout: TimeoutSeconds,
}

impl Registration {
    /// The default registration of a Service called `service`: while taskgate is unavailable, Tasks and Jobs are admitted and
    /// policies are not.
    pub fn of_service(service: &str, namespace: &str) -> Self {
        let client = ClientTarget::Service {
            name: service.to_owned(),
            namespace: namespace.to_owned(),
            port: 443,
        };
        Self::new(namespace, client)
    }

    /// The default registration, reached through `client`.
    pub fn new(namespace: &str, client: ClientTarget) -> Self {
        Self {
            name: ConfigurationName::default(),
            namespace: namespace.to_owned(),
            client,
            inject_ca_from: None,
            foreign_failure: FailurePolicy::Ignore,
            own_failure: FailurePolicy::Fail,
            kelos_writers: KelosWriters::default(),
            mutating_timeout: TimeoutSeconds::MUTATING,
            validating_timeout: TimeoutSeconds::VALIDATING,
        }
    }

    /// The configurations to apply. They carry no `caBundle`: that field belongs to the provider of the certificate.
    pub fn configurations(&self) -> (MutatingWebhookConfiguration, ValidatingWebhookConfiguration) {
        let of = |phase| ENDPOINTS.iter().filter(move |endpoint| endpoint.phase == phase);
        let mutating = MutatingWebhookConfiguration {
            metadata: self.metadata(),
            webhooks: Some(of(Phase::Mutating).map(|endpoint| self.webhook(endpoint)).collect()),
        };
        let validating = ValidatingWebhookConfiguration {
            metadata: self.metadata(),
            webhooks: Some(
                of(Phase::Validating)
                    .map(|endpoint| validating(self.webhook(endpoint)))
                    .collect(),
            ),
        };
        (mutating, validating)
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.as_str().to_owned()),
            labels: Some([(keys::PART_OF.to_owned(), keys::PART_OF_TASKGATE.to_owned())].into()),
            annotations: self
                .inject_ca_from
                .clone()
                .map(|certificate| [(INJECT_CA_FROM.to_owned(), certificate)].into()),
            ..ObjectMeta::default()
        }
    }

    /// The webhook of `endpoint`, in the form of the mutating ones.
    fn webhook(&self, endpoint: &Endpoint) -> MutatingWebhook {
        let is_mutating = endpoint.phase == Phase::Mutating;
        let timeout = if is_mutating {
            self.mutating_timeout
        } else {
            self.validating_timeout
        };
        MutatingWebhook {
            name: endpoint.webhook.to_owned(),
            admission_review_versions: vec!["v1".to_owned()],
            client_config: self.client_config(endpoint),
            failure_policy: Some(self.failure_policy(endpoint)),
            match_conditions: Some(match_conditions(endpoint, &self.kelos_writers))
                .filter(|conditions| !conditions.is_empty()),
            match_policy: Some("Equivalent".to_owned()),
            namespace_selector: Some(self.namespace_selector()),
            object_selector: Some(object_selector(endpoint.filter)),
            // A later webhook may add labels that a policy selects by.
            reinvocation_policy: is_mutating.then(|| "IfNeeded".to_owned()),
            rules: Some(rules_of(endpoint)),
            side_effects: "None".to_owned(),
            timeout_seconds: Some(timeout.get().into()),
        }
    }

    fn client_config(&self, endpoint: &Endpoint) -> WebhookClientConfig {
        match &self.client {
            ClientTarget::Service { name, namespace, port } => WebhookClientConfig {
                service: Some(ServiceReference {
                    name: name.clone(),
                    namespace: namespace.clone(),
                    path: Some(endpoint.path.to_owned()),
                    port: Some(i32::from(*port)),
                }),
                ..WebhookClientConfig::default()
            },
            ClientTarget::Url(base) => WebhookClientConfig {
                url: Some(format!("{}{}", base.trim_end_matches('/'), endpoint.path)),
                ..WebhookClientConfig::default()
            },
        }
    }

    fn failure_policy(&self, endpoint: &Endpoint) -> String {
        let policy = match endpoint.owner {
            ObjectOwner::Foreign => self.foreign_failure,
            ObjectOwner::Taskgate => self.own_failure,
            ObjectOwner::Kelos => FailurePolicy::Ignore,
        };
        match policy {
            FailurePolicy::Ignore => "Ignore",
            FailurePolicy::Fail => "Fail",
        }
        .to_owned()
    }

    fn namespace_selector(&self) -> LabelSelector {
        let excluded = EXCLUDED_NAMESPACES.into_iter().chain([self.namespace.as_str()]);
        let not_in = |key: &str, values: Vec<String>| LabelSelectorRequirement {
            key: key.to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(values),
        };
        LabelSelector {
            match_expressions: Some(vec![
                not_in("kubernetes.io/metadata.name", excluded.map(ToOwned::to_owned).collect()),
                not_in(keys::ADMISSION, vec![keys::ADMISSION_DISABLED.to_owned()]),
            ]),
            match_labels: None,
        }
    }
}

/// The same webhook as a validating one, which has every field but the reinvocation policy.
fn validating(webhook: MutatingWebhook) -> ValidatingWebhook {
    ValidatingWebhook {
        name: webhook.name,
        admission_review_versions: webhook.admission_review_versions,
        client_config: webhook.client_config,
        failure_policy: webhook.failure_policy,
        match_conditions: webhook.match_conditions,
        match_policy: webhook.match_policy,
        namespace_selector: webhook.namespace_selector,
        object_selector: webhook.object_selector,
        rules: webhook.rules,
        side_effects: webhook.side_effects,
        timeout_seconds: webhook.timeout_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_have_every_path_and_no_bundle() {
        for client in [
            ClientTarget::Url("https://127.0.0.1:8443/".to_owned()),
            Registration::of_service("taskgate", "taskgate-system").client,
        ] {
            let (mutating, validating) = Registration::new("taskgate-system", client).configurations();
            let mutating = mutating
                .webhooks
                .into_iter()
                .flatten()
                .map(|webhook| webhook.client_config);
            let validating = validating
                .webhooks
                .into_iter()
                .flatten()
                .map(|webhook| webhook.client_config);
            let configs: Vec<_> = mutating.chain(validating).collect();
            assert!(configs.iter().all(|config| config.ca_bundle.is_none()));
            let mut paths: Vec<_> = configs
                .into_iter()
                .map(|config| match (config.url, config.service) {
                    (Some(url), None) => url.strip_prefix("https://127.0.0.1:8443").unwrap().to_owned(),
                    (None, Some(service)) => service.path.unwrap(),
                    odd => panic!("{odd:?}"),
                })
                .collect();
            let mut wanted: Vec<_> = ENDPOINTS.iter().map(|endpoint| endpoint.path.to_owned()).collect();
            paths.sort();
            wanted.sort();
            assert_eq!(paths, wanted);
        }
    }
}
