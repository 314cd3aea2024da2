//! What facts mean: a pure function from what was read to a line for each thing that was looked at.

mod answers;
mod certificate;
mod companions;
mod difference;
mod kinds;
mod leader;
mod namespaces;
mod neighbours;
mod policies;
mod queues;
mod reach;
mod registration;
mod replicas;
mod rights;
mod server;
mod switch;

#[cfg(test)]
mod healthy;
#[cfg(test)]
mod tests;

use jiff::SignedDuration;
use serde_json::Value;
use taskgate_api::metadata::Metadata;

use self::reach::Reach;
use super::{
    facts::{Facts, Unseen},
    finding::{Check, Finding},
};

/// Which Kelos there is.
pub(super) const KELOS_CRD: &str = "tasks.kelos.dev";
/// Which Foreman there is.
pub(super) const FOREMAN_CRD: &str = "workloads.foreman.llmkube.dev";
/// Which Kueue there is.
pub(super) const KUEUE_CRD: &str = "workloads.kueue.x-k8s.io";
/// Which cert-manager there is.
pub(super) const CERT_MANAGER_CRD: &str = "certificates.cert-manager.io";
/// The Deployments that tell the release of others, as their own manifests call them (kelos §1).
pub(super) const COMPANIONS: [&str; 3] = [companions::KELOS, companions::KUEUE, companions::CERT_MANAGER];

/// Everything that is found.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let reach = Reach::of(facts);
    [
        server::check(facts),
        switch::check(facts),
        kinds::check(facts),
        registration::check(facts),
        neighbours::check(facts),
        certificate::check(facts),
        answers::check(facts),
        replicas::check(facts),
        leader::check(facts),
        rights::check(facts),
        companions::check(facts),
        namespaces::check(facts, &reach),
        policies::check(facts, &reach),
        queues::check(facts, &reach),
    ]
    .concat()
}

/// The namespace in which a Task is best asked for: one that is governed, and none that is left out.
pub(super) fn namespace_to_ask_in(facts: &Facts) -> Option<String> {
    if !matches!(facts.crds.get(KELOS_CRD), Some(Ok(_))) {
        return None;
    }
    let sent = |name: &str| namespaces::why_left_out(facts, name).is_none();
    let namespaces = facts.namespaces.as_ref().ok()?;
    let names = || namespaces.iter().map(name_of);
    let governed = facts.policies.iter().flatten().chain(facts.spawners.iter().flatten());
    let governed = governed
        .map(namespace_of)
        .filter(|governed| names().any(|name| name == *governed));
    let usual = names().filter(|name| *name == "default");
    let mut candidates = governed.chain(usual).chain(names());
    candidates.find(|name| sent(name)).map(ToOwned::to_owned)
}

/// That something could not be looked at.
fn unseen(check: Check, what: &str, unseen: &Unseen) -> Finding {
    match unseen {
        Unseen::Absent => Finding::warning(check, format!("there is no {what}"), "install it again"),
        Unseen::Refused(why) => Finding::warning(
            check,
            format!("{what}: cannot be read: {why}"),
            "ask as somebody who may, such as a cluster administrator",
        ),
    }
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
    object
        .pointer(path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A length of time for people, in its largest whole unit.
fn spoken(length: SignedDuration) -> String {
    let seconds = length.abs().as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The first few of `names`, and how many there are besides.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
