//! Checks of admission: both webhook configurations against those that this release generates, the configurations of others,
//! and the probes.

use serde_json::Value;
use taskgate_api::{GROUP, switch::CONDITION};
use taskgate_webhook::{ClientTarget, ConfigurationName, FailurePolicy, Registration, TimeoutSeconds};

use super::{base_url, difference::differences, is_off, list, name_of, own_configurations, some, text};
use crate::commands::{
    doctor::{
        probe::ProbeResult,
        report::{DoctorCheck, Findings},
        state::{ClusterState, KELOS_CRD},
    },
    snapshot::{Collection, ReadError},
};

/// The webhooks whose settings are those of all that are not about taskgate's own kinds.
const MUTATING: &str = "mutate.tasks.taskgate.dev";
const VALIDATING: &str = "validate.tasks.taskgate.dev";
const APPLY: &str = "apply the manifests of this release again; `taskgate manifests registration` prints these";
const APPLY_SERVICE: &str = "apply the manifests of this release again";

/// Compares both configurations with the generated ones.
pub(super) fn registration(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::Registration);
    let own = own_configurations(state);
    let generated = generated(state, own);
    let configurations = Collection::CONFIGURATIONS.into_iter().zip(own).zip(&generated);
    for (((collection, kind), found), generated) in configurations {
        let title = format!("{kind} {}", state.installation.configuration);
        match (state.snapshot.error(collection), found) {
            (Some(error), _) => findings.unreadable(&title, error),
            (None, None) => findings.failure(
                format!("there is no {title}: the API server does not call taskgate"),
                APPLY,
            ),
            (None, Some(found)) => compare(&title, generated, found, findings),
        }
    }
    if let Some(configuration) = own.into_iter().flatten().next() {
        client(state, configuration, findings);
    }
}

/// The webhooks as generated with the settings that are found: failure policy, timeouts, Service or URL.
fn generated(state: &ClusterState, [mutating, validating]: [Option<&Value>; 2]) -> [Vec<Value>; 2] {
    let installation = &state.installation;
    let mut registration = Registration::of_service(&installation.service, &installation.namespace);
    if let Ok(name) = installation.configuration.parse::<ConfigurationName>() {
        registration.name = name;
    }
    registration.kelos_writers = installation.serve.kelos_writers();
    let first = mutating.and_then(|found| webhook(found, MUTATING));
    if let Some(first) = first {
        if first["failurePolicy"] == "Fail" {
            registration.foreign_failure = FailurePolicy::Fail;
        }
        if let Some(url) = base_url(first) {
            registration.client = ClientTarget::Url(url);
        } else if let (ClientTarget::Service { port, .. }, Some(found)) = (&mut registration.client, port(first)) {
            *port = found;
        }
    }
    let timeout = |webhook: Option<&Value>, default: TimeoutSeconds| {
        let seconds = webhook.and_then(|webhook| webhook["timeoutSeconds"].as_u64());
        let seconds = seconds.and_then(|seconds| TimeoutSeconds::new(u8::try_from(seconds).ok()?).ok());
        seconds.unwrap_or(default)
    };
    registration.mutating_timeout = timeout(first, TimeoutSeconds::MUTATING);
    let first = validating.and_then(|found| webhook(found, VALIDATING));
    registration.validating_timeout = timeout(first, TimeoutSeconds::VALIDATING);
    let (mutating, validating) = registration.configurations();
    [
        serde_json::to_value(mutating.webhooks),
        serde_json::to_value(validating.webhooks),
    ]
    .map(|webhooks| match webhooks {
        Ok(Value::Array(webhooks)) => webhooks,
        _ => Vec::new(),
    })
}

fn webhook<'a>(configuration: &'a Value, name: &str) -> Option<&'a Value> {
    let mut webhooks = list(configuration, "/webhooks").iter();
    webhooks.find(|webhook| webhook["name"] == name)
}

fn port(webhook: &Value) -> Option<u16> {
    u16::try_from(webhook.pointer("/clientConfig/service/port")?.as_u64()?).ok()
}

fn compare(title: &str, generated: &[Value], found: &Value, findings: &mut Findings) {
    let before = findings.len();
    for generated in generated {
        let name = text(generated, "/name");
        let Some(found) = webhook(found, name) else {
            findings.failure(format!("{title}: there is no webhook {name}"), APPLY);
            continue;
        };
        let paths = differences(&without_foreign_fields(generated), &without_foreign_fields(found));
        let (selectors, mut others): (Vec<_>, Vec<_>) = paths
            .into_iter()
            .partition(|path| path.starts_with("namespaceSelector") || path.starts_with("objectSelector"));
        let is_setting = |path: &mut String| path == "failurePolicy" || path == "timeoutSeconds";
        let settings: Vec<_> = others.extract_if(.., is_setting).collect();
        if !others.is_empty() {
            let message = format!("{title}: {name} is not as generated: {}", some(&others));
            findings.failure(message, APPLY);
        }
        if !selectors.is_empty() {
            let message = format!(
                "{title}: {name} selects other objects than generated: {}",
                some(&selectors)
            );
            findings.warning(message, format!("nothing, if you have narrowed it; else {APPLY}"));
        }
        if !settings.is_empty() {
            let setting = |field: &String| format!("{field} is {}, not {}", found[field], generated[field]);
            let settings: Vec<_> = settings.iter().map(setting).collect();
            findings.warning(format!("{title}: {name}: {}", settings.join(", ")), APPLY);
        }
    }
    let is_known = |name: &str| generated.iter().any(|generated| generated["name"] == name);
    let names = list(found, "/webhooks").iter().map(|webhook| text(webhook, "/name"));
    let unknown: Vec<_> = names.filter(|name| !is_known(name)).map(ToOwned::to_owned).collect();
    if !unknown.is_empty() {
        let message = format!("{title}: this release knows no webhook {}", some(&unknown));
        findings.warning(message, APPLY);
    }
    if findings.len() == before {
        findings.ok(format!("{title}: {} webhooks, as generated", generated.len()));
    }
}

/// A webhook without the fields that others write: the CA bundle, and the condition of `taskgate disable`.
fn without_foreign_fields(webhook: &Value) -> Value {
    let mut webhook = webhook.clone();
    if let Some(client) = webhook.get_mut("clientConfig").and_then(Value::as_object_mut) {
        client.remove("caBundle");
    }
    if let Some(conditions) = webhook.get_mut("matchConditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| condition["name"] != CONDITION);
    }
    webhook
}

/// The Service or URL that the API server calls.
fn client(state: &ClusterState, configuration: &Value, findings: &mut Findings) {
    let Some(first) = list(configuration, "/webhooks").first() else {
        return;
    };
    if let Some(url) = base_url(first) {
        return findings.warning(
            format!("the API server calls {url}, not the Service"),
            "nothing, during development; else apply the registration without --url",
        );
    }
    let name = text(first, "/clientConfig/service/name");
    let namespace = text(first, "/clientConfig/service/namespace");
    let installation = &state.installation;
    if (name, namespace) != (&installation.service, &installation.namespace) {
        return findings.failure(
            format!("the API server calls Service {namespace}/{name}"),
            format!("{APPLY}; or name that installation: --namespace {namespace} --service {name}"),
        );
    }
    let port = port(first).unwrap_or(443);
    let problem = match state.snapshot.one(Collection::Service) {
        Err(ReadError::Absent) => format!("there is no Service {namespace}/{name}"),
        Ok(service) if !list(service, "/spec/ports").iter().any(|found| found["port"] == port) => {
            format!("Service {namespace}/{name} has no port {port}")
        }
        _ => return,
    };
    findings.failure(format!("{problem}: the API server cannot call taskgate"), APPLY_SERVICE);
}

/// The configurations of others: those that interfere with taskgate, and whether Kueue's run after taskgate's.
pub(super) fn neighbours(state: &ClusterState, findings: &mut Findings) {
    let snapshot = &state.snapshot;
    let configurations = Collection::CONFIGURATIONS.map(|(collection, _)| snapshot.read(collection));
    let [Ok(mutating), Ok(validating)] = configurations else {
        // The check of the registration reports this.
        return;
    };
    findings.begin(DoctorCheck::Neighbours);
    for ((_, kind), found) in Collection::CONFIGURATIONS.into_iter().zip([mutating, validating]) {
        let is_own = |found: &Value| name_of(found) == state.installation.configuration;
        for other in found.iter().filter(|found| !is_own(found)) {
            interference(state, kind, other, findings);
        }
    }
    if findings.is_clean() {
        findings.ok("no other configuration calls taskgate, or is about its kinds");
    }
    let own = &state.installation.configuration;
    let is_kueue = |found: &Value| {
        let mut webhooks = list(found, "/webhooks").iter();
        name_of(found).contains("kueue")
            || webhooks.any(|webhook| text(webhook, "/clientConfig/service/path") == "/mutate-batch-v1-job")
    };
    let kueue = mutating.iter().filter(|found| is_kueue(found));
    let names: Vec<_> = kueue.map(|found| name_of(found)).collect();
    findings.begin(DoctorCheck::Order);
    // Configurations run in the order of their names, and Kueue has to see the labels that taskgate sets.
    if let Some(name) = names.iter().find(|name| **name < own.as_str()) {
        findings.failure(
            format!("Kueue's {name} runs before {own}: it does not see the queue that taskgate gives a Job"),
            format!("give taskgate's configurations a name that sorts before {name}: registration.name of the chart"),
        );
    } else if let Some(name) = names.first() {
        findings.ok(format!("{own} runs before Kueue's {name}"));
    }
}

fn interference(state: &ClusterState, kind: &str, other: &Value, findings: &mut Findings) {
    let name = name_of(other);
    let webhooks = list(other, "/webhooks");
    let [own, ..] = own_configurations(state);
    let url = own.and_then(|own| base_url(list(own, "/webhooks").first()?));
    let calls_taskgate = |webhook: &&Value| {
        let service = text(webhook, "/clientConfig/service/name");
        let namespace = text(webhook, "/clientConfig/service/namespace");
        let by_url = url.is_some() && base_url(webhook) == url;
        by_url || (service, namespace) == (&state.installation.service, &state.installation.namespace)
    };
    let is_about_own_kinds = |webhook: &&Value| {
        let mut groups = list(webhook, "/rules").iter().flat_map(|rule| list(rule, "/apiGroups"));
        groups.any(|group| group == GROUP)
    };
    if let Some(webhook) = webhooks.iter().find(calls_taskgate) {
        findings.failure(
            format!("{kind} {name} leads to taskgate as well ({})", text(webhook, "/name")),
            format!("delete it, if it is left from an earlier installation; every request is sent twice: kubectl delete {kind} {name}"),
        );
    } else if let Some(webhook) = webhooks.iter().find(is_about_own_kinds) {
        findings.warning(
            format!("{kind} {name} is about {GROUP} too ({})", text(webhook, "/name")),
            "nothing, if it is yours; it can change or deny policies and WorkItems",
        );
    }
}

/// The results of the probes.
pub(super) fn answers(state: &ClusterState, findings: &mut Findings) {
    if is_off(state) {
        // The check of the switch reports this.
        return;
    }
    findings.begin(DoctorCheck::Answers);
    let validating = &state.probes.validating;
    answer("a policy that cannot be applied", "validating", validating, findings);
    match &state.probes.mutating {
        Some((namespace, result)) => answer(&format!("a Task in {namespace}"), "mutating", result, findings),
        None if state.snapshot.one(Collection::Crd(KELOS_CRD)).is_ok() => findings.warning(
            "the mutating side was not checked: every namespace is excluded, or none may be read",
            "see registration and namespaces",
        ),
        // Without Kelos there are no Tasks.
        None => {}
    }
}

fn answer(object: &str, phase: &str, result: &ProbeResult, findings: &mut Findings) {
    match result {
        ProbeResult::Answered => {
            findings.ok(format!("the API server asks taskgate about {object} ({phase})"));
        }
        ProbeResult::NotCalled => findings.failure(
            format!("the API server does not ask taskgate about {object}: it was admitted ({phase})"),
            "see registration; this is also so a moment after it was written, and while taskgate is unavailable and the failure \
             policy is Ignore",
        ),
        ProbeResult::CallFailed(error) => {
            findings.failure(format!("{phase}: {error}"), call_advice(error));
        }
        ProbeResult::Refused(error) => findings.warning(
            format!("whether the API server asks taskgate could not be checked ({phase}): {error}"),
            format!("run it as a user who may create {object}; it is a dry run"),
        ),
    }
}

/// The advice for a failed call, by the words of the API server.
fn call_advice(error: &str) -> &'static str {
    const NETWORK: &str = "the network between API server and pods, a NetworkPolicy or a firewall, or a pod that hangs";
    for (words, advice) in [
        ("x509", "see certificate and ca-bundle"),
        ("certificate", "see certificate and ca-bundle"),
        ("connection refused", "no pod listens: see replicas"),
        ("no endpoints available", "no pod is ready: see replicas"),
        (
            "service \"",
            "the Service is missing: apply the manifests of this release again",
        ),
        ("deadline exceeded", NETWORK),
        ("imeout", NETWORK),
    ] {
        if error.contains(words) {
            return advice;
        }
    }
    "see replicas, and the log of taskgate's pods"
}
