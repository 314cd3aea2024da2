//! The checks: pure functions from the state of the cluster to findings.

mod admission;
mod certificate;
mod difference;
mod installation;
mod policies;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::Value;
use taskgate_api::{metadata::Metadata, switch::webhooks};

use self::policies::PolicySelections;
use super::{
    report::{DoctorFinding, Findings},
    state::{ClusterState, KELOS_CRD},
};
use crate::commands::snapshot::{Collection, CompiledPolicies};

/// Runs all checks.
pub(super) fn run(state: &ClusterState) -> Vec<DoctorFinding> {
    let mut findings = Findings::new();
    let policies = CompiledPolicies::of(&state.snapshot);
    let policies = PolicySelections::of(&state.snapshot, &policies);
    installation::api_server(state, &mut findings);
    installation::switch(state, &mut findings);
    installation::kinds(state, &mut findings);
    admission::registration(state, &mut findings);
    admission::neighbours(state, &mut findings);
    admission::answers(state, &mut findings);
    certificate::certificate(state, &mut findings);
    installation::replicas(state, &mut findings);
    installation::leader(state, &mut findings);
    installation::unfit_replicas(state, &mut findings);
    installation::rights(state, &mut findings);
    installation::other_systems(state, &mut findings);
    installation::kelos_fields(state, &mut findings);
    policies::namespaces(state, &policies, &mut findings);
    policies::policies(state, &policies, &mut findings);
    policies::queues(state, &policies, &mut findings);
    findings.all
}

/// The namespace for the Task of the mutating probe: preferably one with a policy or a spawner, and none that is excluded.
pub(super) fn namespace_for_probe(state: &ClusterState) -> Option<String> {
    state.snapshot.one(Collection::Crd(KELOS_CRD)).ok()?;
    let objects = |collection| state.snapshot.objects(collection).iter();
    let names = || objects(Collection::Namespaces).map(|namespace| name_of(namespace));
    let used = objects(Collection::Policies).chain(objects(Collection::Spawners));
    let used = used
        .map(|object| namespace_of(object))
        .filter(|used| names().any(|name| name == *used));
    let default = names().filter(|name| *name == "default");
    let mut candidates = used.chain(default).chain(names());
    candidates
        .find(|name| policies::exclusion(state, name).is_none())
        .map(ToOwned::to_owned)
}

/// Both webhook configurations of this installation, mutating first.
fn own_configurations(state: &ClusterState) -> [Option<&Value>; 2] {
    Collection::CONFIGURATIONS.map(|(collection, _)| {
        let name = &state.installation.configuration;
        find(state.snapshot.objects(collection), |found| name_of(found) == name)
    })
}

/// All webhooks of this installation.
fn own_webhooks(state: &ClusterState) -> impl Iterator<Item = &Value> {
    let configurations = own_configurations(state).into_iter().flatten();
    configurations.flat_map(|configuration| list(configuration, "/webhooks"))
}

/// Whether taskgate is disabled, or its webhooks are off.
fn is_off(state: &ClusterState) -> bool {
    state.snapshot.one(Collection::DisableSwitch).is_ok() || webhooks_off(state) > 0
}

fn webhooks_off(state: &ClusterState) -> usize {
    let configurations = own_configurations(state).into_iter().flatten();
    configurations.flat_map(webhooks).filter(|(_, off)| *off).count()
}

/// The base of the URL that a webhook is called at; `None` where it is called through a Service.
fn base_url(webhook: &Value) -> Option<String> {
    let url = webhook.pointer("/clientConfig/url")?.as_str()?;
    let authority = url.strip_prefix("https://")?.split('/').next()?;
    Some(format!("https://{authority}"))
}

fn find(objects: &[Arc<Value>], predicate: impl Fn(&Value) -> bool) -> Option<&Value> {
    objects.iter().map(|object| &**object).find(|object| predicate(object))
}

fn name_of(object: &Value) -> &str {
    Metadata::of(object).name().unwrap_or_default()
}

fn namespace_of(object: &Value) -> &str {
    Metadata::of(object).namespace().unwrap_or_default()
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    let list = object.pointer(path).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// A length of time for people, in its largest whole unit.
fn length(length: SignedDuration) -> String {
    let seconds = length.abs().as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The first few of `names`, and the number of the others.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
