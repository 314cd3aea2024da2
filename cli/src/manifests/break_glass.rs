//! The objects that disable and enable taskgate, as files for kubectl: for users without the `taskgate` binary.

use anyhow::Result;
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

/// Enables: removes the conditions. The user deletes the `ConfigMap`.
pub(crate) fn enable(registration: &Registration) -> Result<String> {
    let namespace = &registration.namespace;
    let then = format!("# Then: kubectl -n {namespace} delete configmap taskgate-disabled\n");
    Ok(HOW.to_owned() + &then + &patches(registration, false)?)
}

fn patches(registration: &Registration, off: bool) -> Result<String> {
    let (mutating, validating) = registration.configurations();
    [serde_json::to_value(mutating)?, serde_json::to_value(validating)?]
        .iter()
        .map(|configuration| {
            let kind = configuration["kind"].as_str().unwrap_or_default();
            let webhooks = webhooks(configuration).filter(|_| off).map(|(webhook, _)| webhook);
            document(&patch(kind, registration.name.as_str(), webhooks))
        })
        .collect()
}
