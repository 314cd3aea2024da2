//! What takes taskgate out of the way, and puts it back, as files for kubectl: for whoever has no `taskgate` at hand.

use anyhow::Result;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use serde_json::Value;
use taskgate_api::switch::{Disabled, patch, webhooks};
use taskgate_webhook::Registration;

use super::document;

/// How both files are applied.
const HOW: &str = "# kubectl apply --server-side --field-manager=taskgate-disable -f <this file>\n";

/// Disables: the `ConfigMap` for the controller, and a condition that no request meets for every webhook.
pub(crate) fn disable(registration: &Registration) -> Result<String> {
    let disabled = Disabled {
        reason: Some("by kubectl".to_owned()),
        ..Disabled::default()
    };
    let map = document(&disabled.config_map(&registration.namespace))?;
    Ok(HOW.to_owned() + &map + &patches(registration, true)?)
}

/// Enables: takes the conditions back. The `ConfigMap` is deleted by hand.
pub(crate) fn enable(registration: &Registration) -> Result<String> {
    let namespace = &registration.namespace;
    let then = format!("# Then: kubectl -n {namespace} delete configmap taskgate-disabled\n");
    Ok(HOW.to_owned() + &then + &patches(registration, false)?)
}

fn patches(registration: &Registration, off: bool) -> Result<String> {
    let (mutating, validating) = registration.configurations();
    let mut text = String::new();
    for (kind, configuration) in [
        (kind::<MutatingWebhookConfiguration>(), serde_json::to_value(mutating)?),
        (
            kind::<ValidatingWebhookConfiguration>(),
            serde_json::to_value(validating)?,
        ),
    ] {
        text += &document(&one(kind, registration.name.as_str(), &configuration, off))?;
    }
    Ok(text)
}

fn one(kind: &str, name: &str, configuration: &Value, off: bool) -> Value {
    patch(
        kind,
        name,
        webhooks(configuration).filter(|_| off).map(|(webhook, _)| webhook),
    )
}

fn kind<K: k8s_openapi::Resource>() -> &'static str {
    K::KIND
}
