//! Namespaces whose objects are not sent to taskgate, although somebody seems to count on it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use taskgate_api::keys;
use taskgate_webhook::rules::EXCLUDED_NAMESPACES;

use super::{
    list, name_of, namespace_of,
    reach::{Reach, labels, selects},
    registration, some, unseen,
};
use crate::commands::doctor::{
    facts::{Facts, Unseen},
    finding::{Check, Finding},
};

/// Why nothing of a namespace is sent to taskgate.
pub(super) enum LeftOut {
    /// It never is.
    Always,
    /// Its label says so.
    Label,
    /// The webhooks' namespaceSelector does not meet its labels.
    Selector,
}

pub(super) fn check(facts: &Facts, reach: &Reach<'_>) -> Vec<Finding> {
    let namespaces = match &facts.namespaces {
        Ok(namespaces) => namespaces,
        Err(refused) => return vec![unseen(Check::Namespaces, "namespaces", refused)],
    };
    let mut findings = Vec::new();
    let mut opted_out = Vec::new();
    for namespace in namespaces {
        let name = name_of(namespace);
        if let Some(value) = labels(namespace)
            .get(keys::ADMISSION)
            .filter(|value| *value != keys::ADMISSION_DISABLED)
        {
            findings.push(Finding::warning(
                Check::Namespaces,
                format!(
                    "namespace {name} has the label {}={value}, which means nothing",
                    keys::ADMISSION
                ),
                format!(
                    "{}={} leaves a namespace out; without the label it is governed",
                    keys::ADMISSION,
                    keys::ADMISSION_DISABLED
                ),
            ));
        }
        let Some(why) = why_left_out(facts, name) else {
            continue;
        };
        let policies = names(facts.policies.as_ref(), name);
        let governed: Vec<_> = reach
            .selected
            .iter()
            .filter(|found| found.namespace == name && !found.by.is_empty() && found.title.starts_with("TaskSpawner/"))
            .map(|found| found.title.clone())
            .collect();
        let (reason, advice) = match why {
            LeftOut::Always => (
                "taskgate never touches it",
                "move them to a namespace of their own".to_owned(),
            ),
            LeftOut::Label => (
                "its label opts it out",
                format!(
                    "remove the label, or the policies: kubectl label namespace {name} {}-",
                    keys::ADMISSION
                ),
            ),
            LeftOut::Selector => (
                "the namespaceSelector of the webhooks leaves it out",
                "change the selector, or the labels of the namespace".to_owned(),
            ),
        };
        let what = [
            policies
                .iter()
                .map(|name| format!("TaskPolicy/{name}"))
                .collect::<Vec<_>>(),
            governed,
        ]
        .concat();
        match why {
            // To opt out is how a namespace is exempted from policies for all.
            LeftOut::Label if policies.is_empty() => opted_out.push(name.to_owned()),
            _ if what.is_empty() => {}
            _ => findings.push(Finding::warning(
                Check::Namespaces,
                format!("nothing in namespace {name} is governed, {reason}: {}", some(&what)),
                advice,
            )),
        }
    }
    if findings.is_empty() {
        let besides = if opted_out.is_empty() {
            String::new()
        } else {
            format!("; opted out: {}", some(&opted_out))
        };
        findings.push(Finding::ok(
            Check::Namespaces,
            format!("none is left out by mistake{besides}"),
        ));
    }
    findings
}

fn names(objects: Result<&Vec<serde_json::Value>, &Unseen>, namespace: &str) -> Vec<String> {
    let objects = objects.into_iter().flatten();
    let own = objects.filter(|object| namespace_of(object) == namespace);
    own.map(|object| name_of(object).to_owned()).collect()
}

/// Why nothing of the namespace `name` is sent to taskgate; `None`: it is.
pub(super) fn why_left_out(facts: &Facts, name: &str) -> Option<LeftOut> {
    if EXCLUDED_NAMESPACES.contains(&name) || name == facts.installation.namespace {
        return Some(LeftOut::Always);
    }
    let namespace = facts
        .namespaces
        .iter()
        .flatten()
        .find(|namespace| name_of(namespace) == name)?;
    let labels = labels(namespace);
    if labels.get(keys::ADMISSION).map(String::as_str) == Some(keys::ADMISSION_DISABLED) {
        return Some(LeftOut::Label);
    }
    let [mutating, validating] = registration::ours(facts);
    let webhooks = mutating
        .into_iter()
        .chain(validating)
        .flat_map(|found| list(found, "/webhooks"));
    let left_out = webhooks
        .filter_map(|webhook| serde_json::from_value(webhook["namespaceSelector"].clone()).ok())
        .any(|selector: LabelSelector| !meets(selector, &labels));
    left_out.then_some(LeftOut::Selector)
}

fn meets(selector: LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selects(Some(selector), labels)
}
