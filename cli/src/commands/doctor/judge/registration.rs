//! Both webhook configurations against those that this release generates for the same settings.

use serde_json::Value;
use taskgate_api::switch::CONDITION;
use taskgate_webhook::{ClientTarget, ConfigurationName, FailurePolicy, Registration, TimeoutSeconds};

use super::{difference, list, name_of, some, text, unseen};
use crate::commands::doctor::{
    facts::{Facts, Unseen},
    finding::{Check, Finding},
};

/// Whose failure policy is that of all that is not ours, and which timeouts are those of all.
const MUTATING: &str = "mutate.tasks.taskgate.dev";
const VALIDATING: &str = "validate.tasks.taskgate.dev";
const APPLY: &str = "apply the manifests of this release again; `taskgate manifests registration` prints these";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let [mutating, validating] = ours(facts);
    let wanted = wanted(facts, mutating, validating);
    for ((kind, found), wanted) in [
        (("MutatingWebhookConfiguration", &facts.mutating), wanted.0),
        (("ValidatingWebhookConfiguration", &facts.validating), wanted.1),
    ] {
        let name = &facts.installation.configuration;
        let title = format!("{kind} {name}");
        let found = match found {
            Ok(found) => found.iter().find(|found| name_of(found) == name),
            Err(refused) => {
                findings.push(unseen(Check::Registration, &title, refused));
                continue;
            }
        };
        match found {
            None => findings.push(Finding::failure(
                Check::Registration,
                format!("there is no {title}: nothing is sent to taskgate"),
                APPLY,
            )),
            Some(found) => findings.extend(compare(&title, &wanted, found)),
        }
    }
    findings.extend(way(facts, mutating.or(validating)));
    findings
}

/// Both configurations of this installation, mutating first.
pub(super) fn ours(facts: &Facts) -> [Option<&Value>; 2] {
    [&facts.mutating, &facts.validating].map(|found| {
        let mut found = found.iter().flatten();
        found.find(|found| name_of(found) == facts.installation.configuration)
    })
}

/// What is generated for the settings that are found: failure policy, timeouts, and the way to taskgate.
fn wanted(facts: &Facts, mutating: Option<&Value>, validating: Option<&Value>) -> (Vec<Value>, Vec<Value>) {
    let installation = &facts.installation;
    let mut wanted = Registration::of_service(&installation.service, &installation.namespace);
    if let Ok(name) = installation.configuration.parse::<ConfigurationName>() {
        wanted.name = name;
    }
    let first = mutating.and_then(|found| webhook(found, MUTATING));
    if let Some(first) = first {
        if first["failurePolicy"] == "Fail" {
            wanted.foreign_failure = FailurePolicy::Fail;
        }
        if let Some(url) = base(first) {
            wanted.client = ClientTarget::Url(url);
        } else if let (ClientTarget::Service { port, .. }, Some(found)) = (&mut wanted.client, port(first)) {
            *port = found;
        }
    }
    let timeout = |webhook: Option<&Value>, usual: TimeoutSeconds| {
        let seconds = webhook.and_then(|webhook| webhook["timeoutSeconds"].as_u64());
        let seconds = seconds.and_then(|seconds| TimeoutSeconds::new(u8::try_from(seconds).ok()?).ok());
        seconds.unwrap_or(usual)
    };
    wanted.mutating_timeout = timeout(first, TimeoutSeconds::MUTATING);
    let first = validating.and_then(|found| webhook(found, VALIDATING));
    wanted.validating_timeout = timeout(first, TimeoutSeconds::VALIDATING);
    let (mutating, validating) = wanted.configurations();
    let json = |webhooks: Result<Value, _>| match webhooks {
        Ok(Value::Array(webhooks)) => webhooks,
        // What is generated is written as JSON elsewhere.
        _ => Vec::new(),
    };
    (
        json(serde_json::to_value(mutating.webhooks)),
        json(serde_json::to_value(validating.webhooks)),
    )
}

fn webhook<'a>(configuration: &'a Value, name: &str) -> Option<&'a Value> {
    list(configuration, "/webhooks")
        .iter()
        .find(|webhook| webhook["name"] == name)
}

/// The URL that a webhook is called at, without its path.
pub(super) fn base(webhook: &Value) -> Option<String> {
    let url = webhook.pointer("/clientConfig/url")?.as_str()?;
    let authority = url.strip_prefix("https://")?.split('/').next()?;
    Some(format!("https://{authority}"))
}

fn port(webhook: &Value) -> Option<u16> {
    u16::try_from(webhook.pointer("/clientConfig/service/port")?.as_u64()?).ok()
}

fn compare(title: &str, wanted: &[Value], found: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for wanted in wanted {
        let name = text(wanted, "/name");
        let Some(found) = webhook(found, name) else {
            findings.push(Finding::failure(
                Check::Registration,
                format!("{title}: there is no webhook {name}"),
                APPLY,
            ));
            continue;
        };
        let (selectors, mut rest): (Vec<_>, Vec<_>) = difference::between(&normal(wanted), &normal(found))
            .into_iter()
            .partition(|path| path.starts_with("namespaceSelector") || path.starts_with("objectSelector"));
        let lenient = |path: &String| path == "failurePolicy" || path == "timeoutSeconds";
        let settings: Vec<_> = rest.extract_if(.., |path| lenient(path)).collect();
        if !rest.is_empty() {
            findings.push(Finding::failure(
                Check::Registration,
                format!("{title}: {name} is not as it is generated: {}", some(&rest)),
                APPLY,
            ));
        }
        if !selectors.is_empty() {
            findings.push(Finding::warning(
                Check::Registration,
                format!(
                    "{title}: {name} is sent other objects than it is meant for: {}",
                    some(&selectors)
                ),
                format!("nothing, if you have narrowed it; else {APPLY}"),
            ));
        }
        if !settings.is_empty() {
            let told: Vec<_> = settings
                .iter()
                .map(|field| format!("{field} is {}, not {}", found[field], wanted[field]))
                .collect();
            findings.push(Finding::warning(
                Check::Registration,
                format!("{title}: {name}: {}", told.join(", ")),
                APPLY,
            ));
        }
    }
    let known = |name: &str| wanted.iter().any(|wanted| wanted["name"] == name);
    let names = list(found, "/webhooks").iter().map(|webhook| text(webhook, "/name"));
    let unknown: Vec<_> = names.filter(|name| !known(name)).map(ToOwned::to_owned).collect();
    if !unknown.is_empty() {
        findings.push(Finding::warning(
            Check::Registration,
            format!("{title}: this release knows no webhook {}", some(&unknown)),
            APPLY,
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::Registration,
            format!("{title}: {} webhooks, as they are generated", wanted.len()),
        ));
    }
    findings
}

/// A webhook without what belongs to somebody else: the bundle, and the switch.
fn normal(webhook: &Value) -> Value {
    let mut normal = webhook.clone();
    if let Some(client) = normal.get_mut("clientConfig").and_then(Value::as_object_mut) {
        client.remove("caBundle");
    }
    if let Some(conditions) = normal.get_mut("matchConditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["name"] != CONDITION);
    }
    normal
}

/// Where the API server is sent, and what happens while nobody answers there.
fn way(facts: &Facts, found: Option<&Value>) -> Option<Finding> {
    let first = found.and_then(|found| list(found, "/webhooks").first())?;
    if let Some(url) = base(first) {
        return Some(Finding::warning(
            Check::Registration,
            format!("the API server calls {url}, not the Service"),
            "nothing, while you develop; else apply the registration without --url",
        ));
    }
    let name = text(first, "/clientConfig/service/name");
    let namespace = text(first, "/clientConfig/service/namespace");
    let installation = &facts.installation;
    if (name, namespace) != (&installation.service, &installation.namespace) {
        return Some(Finding::failure(
            Check::Registration,
            format!("the API server calls Service {namespace}/{name}"),
            format!(
                "{APPLY}; or say --namespace {namespace} --service {name}, if that is the installation that is meant"
            ),
        ));
    }
    match &facts.service {
        Err(Unseen::Absent) => Some(Finding::failure(
            Check::Registration,
            format!("there is no Service {namespace}/{name}: the API server reaches nobody"),
            "apply the manifests of this release again",
        )),
        Ok(service) => {
            let port = port(first).unwrap_or(443);
            let has = list(service, "/spec/ports").iter().any(|found| found["port"] == port);
            (!has).then(|| {
                Finding::failure(
                    Check::Registration,
                    format!("Service {namespace}/{name} has no port {port}: the API server reaches nobody"),
                    "apply the manifests of this release again",
                )
            })
        }
        Err(Unseen::Refused(_)) => None,
    }
}
