//! Other webhook configurations: those that stand in our way, and whether Kueue comes after us.

use serde_json::Value;

use super::{list, name_of, registration, text};
use crate::commands::doctor::{
    facts::Facts,
    finding::{Check, Finding},
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let (Ok(mutating), Ok(validating)) = (&facts.mutating, &facts.validating) else {
        // That they cannot be read is told of the registration.
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (kind, found) in [
        ("MutatingWebhookConfiguration", mutating),
        ("ValidatingWebhookConfiguration", validating),
    ] {
        let others = found
            .iter()
            .filter(|found| name_of(found) != facts.installation.configuration);
        for other in others {
            findings.extend(in_the_way(facts, kind, other));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::Neighbours,
            "no other configuration leads to taskgate, or comes between it and its objects",
        ));
    }
    findings.extend(order(facts, mutating));
    findings
}

fn in_the_way(facts: &Facts, kind: &str, other: &Value) -> Option<Finding> {
    let name = name_of(other);
    let webhooks = list(other, "/webhooks");
    let [ours, ..] = registration::ours(facts);
    let url = ours.and_then(|ours| registration::base(list(ours, "/webhooks").first()?));
    let leads_here = |webhook: &&Value| {
        let service = text(webhook, "/clientConfig/service/name");
        let namespace = text(webhook, "/clientConfig/service/namespace");
        let by_url = url.is_some() && registration::base(webhook) == url;
        by_url || (service, namespace) == (&facts.installation.service, &facts.installation.namespace)
    };
    if let Some(webhook) = webhooks.iter().find(leads_here) {
        return Some(Finding::failure(
            Check::Neighbours,
            format!("{kind} {name} leads to taskgate as well ({})", text(webhook, "/name")),
            format!(
                "delete it, if it is left from an earlier installation; everything is asked twice: kubectl delete {kind} {name}"
            ),
        ));
    }
    let about_ours = |webhook: &&Value| {
        let groups = list(webhook, "/rules").iter().flat_map(|rule| list(rule, "/apiGroups"));
        groups.into_iter().any(|group| group == taskgate_api::GROUP)
    };
    let webhook = webhooks.iter().find(about_ours)?;
    Some(Finding::warning(
        Check::Neighbours,
        format!(
            "{kind} {name} is about {} too ({})",
            taskgate_api::GROUP,
            text(webhook, "/name")
        ),
        "nothing, if it is yours; policies and WorkItems can be changed or refused there",
    ))
}

/// Configurations run in the order of their names, and Kueue has to see what we set (C14).
fn order(facts: &Facts, mutating: &[Value]) -> Option<Finding> {
    let own = &facts.installation.configuration;
    let kueue: Vec<_> = mutating
        .iter()
        .filter(|found| {
            let paths = list(found, "/webhooks")
                .iter()
                .map(|webhook| text(webhook, "/clientConfig/service/path"));
            name_of(found).contains("kueue") || paths.into_iter().any(|path| path == "/mutate-batch-v1-job")
        })
        .map(name_of)
        .collect();
    let early = kueue.iter().find(|name| **name < own.as_str());
    match (early, kueue.first()) {
        (Some(name), _) => Some(Finding::failure(
            Check::Order,
            format!("Kueue's {name} runs before {own}: it does not see the queue that taskgate gives a Job"),
            format!("give taskgate's configurations a name that sorts before {name}: registration.name of the chart"),
        )),
        (None, Some(name)) => Some(Finding::ok(Check::Order, format!("{own} runs before Kueue's {name}"))),
        (None, None) => None,
    }
}
