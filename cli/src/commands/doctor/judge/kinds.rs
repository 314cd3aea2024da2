//! taskgate's own kinds: whether they are served, and of this release.

use serde_json::Value;
use taskgate_api::{GROUP, VERSION, condition::Condition};

use super::{difference, some, unseen};
use crate::commands::doctor::{
    facts::{Facts, Unseen},
    finding::{Check, Finding},
};

const INSTALL: &str = "apply manifests/crds, or install the chart with crds.install";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fine = Vec::new();
    for wanted in taskgate_api::crds::all() {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        // What was derived is written as JSON elsewhere.
        let wanted = serde_json::to_value(wanted).unwrap_or_default();
        match facts.crds.get(&name) {
            Some(Ok(found)) => match problem(&name, &wanted, found) {
                None => fine.push(name),
                Some(finding) => findings.push(finding),
            },
            Some(Err(refused @ Unseen::Refused(_))) => findings.push(unseen(Check::Kinds, &name, refused)),
            Some(Err(Unseen::Absent)) | None => {
                findings.push(Finding::failure(
                    Check::Kinds,
                    format!("{name} is not installed"),
                    INSTALL,
                ));
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::Kinds,
            format!("{} in {VERSION}, as this release has them", fine.join(", ")),
        ));
    }
    findings
}

fn problem(name: &str, wanted: &Value, found: &Value) -> Option<Finding> {
    let established = Condition::find(found, "Established").is_some_and(Condition::is_true);
    if !established {
        let why = Condition::find(found, "NamesAccepted")
            .map(Condition::message)
            .unwrap_or_default();
        return Some(Finding::failure(
            Check::Kinds,
            format!("{name} is not served {why}").trim_end().to_owned(),
            format!("`kubectl describe crd {name}` says why"),
        ));
    }
    let versions = found.pointer("/spec/versions").and_then(Value::as_array);
    let served = versions
        .into_iter()
        .flatten()
        .any(|version| version["name"] == VERSION && version["served"] == true);
    if !served {
        return Some(Finding::failure(
            Check::Kinds,
            format!("{name} is not served in {GROUP}/{VERSION}"),
            INSTALL,
        ));
    }
    let paths = difference::missing(&wanted["spec"], &found["spec"]);
    (!paths.is_empty()).then(|| {
        Finding::warning(
            Check::Kinds,
            format!("{name} is not that of this release: {}", some(&paths)),
            format!("{INSTALL}; or use the command of the release that is installed"),
        )
    })
}
