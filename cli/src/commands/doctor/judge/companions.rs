//! Who taskgate works with: Kelos, Foreman, Kueue, cert-manager; which of them there is, and in which release.

use serde_json::Value;
use taskgate_api::{foreman, kelos, kueue};

use super::{CERT_MANAGER_CRD, FOREMAN_CRD, KELOS_CRD, KUEUE_CRD, registration, replicas, text};
use crate::{
    args::CertMode,
    commands::doctor::{
        facts::{Facts, Unseen},
        finding::{Check, Finding},
    },
};

pub(super) const KELOS: &str = "kelos-controller-manager";
pub(super) const KUEUE: &str = "kueue-controller-manager";
pub(super) const CERT_MANAGER: &str = "cert-manager";
const CERT_MANAGER_GROUP: &str = "cert-manager.io";
/// The annotation by which cert-manager's CA injector is asked for a bundle.
const INJECT: &str = "cert-manager.io/inject-ca-from";

/// One of them.
struct Companion {
    check: Check,
    name: &'static str,
    group: &'static str,
    /// The versions of its kinds that are understood.
    versions: &'static [&'static str],
    crd: &'static str,
    deployment: Option<&'static str>,
}

const ALL: [Companion; 4] = [
    Companion {
        check: Check::Kelos,
        name: "Kelos",
        group: kelos::GROUP,
        versions: &kelos::TASK_VERSIONS,
        crd: KELOS_CRD,
        deployment: Some(KELOS),
    },
    Companion {
        check: Check::Foreman,
        name: "Foreman",
        group: foreman::GROUP,
        versions: &foreman::VERSIONS,
        crd: FOREMAN_CRD,
        deployment: None,
    },
    Companion {
        check: Check::Kueue,
        name: "Kueue",
        group: kueue::GROUP,
        versions: &kueue::VERSIONS,
        crd: KUEUE_CRD,
        deployment: Some(KUEUE),
    },
    Companion {
        check: Check::CertManager,
        name: "cert-manager",
        group: CERT_MANAGER_GROUP,
        versions: &["v1"],
        crd: CERT_MANAGER_CRD,
        deployment: Some(CERT_MANAGER),
    },
];

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let groups = match &facts.groups {
        Ok(groups) => groups,
        Err(refused) => return vec![super::unseen(Check::Kelos, "the API groups that are served", refused)],
    };
    let none_to_govern = !groups.contains_key(kelos::GROUP) && !groups.contains_key(foreman::GROUP);
    let mut findings = Vec::new();
    for companion in ALL {
        let Companion { check, name, group, .. } = companion;
        let Some(served) = groups.get(group) else {
            findings.push(match check {
                Check::CertManager if needs_cert_manager(facts) => Finding::failure(
                    check,
                    "not installed, although the certificate is to come from it",
                    "install cert-manager, or choose certificates.mode=self-signed",
                ),
                Check::Kelos if none_to_govern => Finding::warning(
                    check,
                    "neither Kelos nor Foreman is installed: there is nothing to govern",
                    "install one of them; taskgate notices",
                ),
                _ => Finding::ok(check, "not installed"),
            });
            continue;
        };
        let known: Vec<_> = companion
            .versions
            .iter()
            .filter(|known| served.iter().any(|one| one == *known))
            .collect();
        findings.push(if known.is_empty() {
            Finding::failure(
                check,
                format!("{group} is served in {} only", served.join(", ")),
                format!(
                    "taskgate understands {}: use a release of {name} that serves it",
                    companion.versions.join(", ")
                ),
            )
        } else {
            Finding::ok(check, describe(facts, &companion, served))
        });
    }
    findings
}

fn describe(facts: &Facts, companion: &Companion, served: &[String]) -> String {
    let crd = facts.crds.get(companion.crd).and_then(|crd| crd.as_ref().ok());
    let release = release(facts, companion, crd);
    let mut told = match release {
        Some(release) => format!("{} {release}, {}", companion.name, served.join(", ")),
        None => format!("{} in {}; its release is not known", companion.name, served.join(", ")),
    };
    if companion.check == Check::Kelos {
        let knows = crd.is_some_and(|crd| {
            let versions = kelos::TASK_VERSIONS.iter();
            versions
                .into_iter()
                .any(|version| taskgate_controller::knows_cancelled(crd, version))
        });
        told.push_str(if knows {
            "; it knows cancelled Tasks"
        } else {
            "; it does not know cancelled Tasks"
        });
    }
    told
}

/// The release: the tag of what runs, else what the manifests of its definitions say.
fn release(facts: &Facts, companion: &Companion, crd: Option<&Value>) -> Option<String> {
    let deployments = companion.deployment.and_then(|name| facts.companions.get(name));
    let deployments = deployments.and_then(|found| found.as_ref().ok());
    let image = deployments
        .into_iter()
        .flatten()
        .map(|deployment| text(deployment, "/spec/template/spec/containers/0/image"))
        .find_map(replicas::tag);
    let label = |key: &str| Some(crd?["metadata"]["labels"][key].as_str()?.to_owned());
    image
        .map(ToOwned::to_owned)
        .or_else(|| label("app.kubernetes.io/version"))
        .or_else(|| label("helm.sh/chart"))
}

/// Whether the certificate, or the caBundle, is to come from cert-manager.
fn needs_cert_manager(facts: &Facts) -> bool {
    let asked = |found: &Value| found["metadata"]["annotations"].get(INJECT).is_some();
    let installed =
        !matches!(facts.deployment, Err(Unseen::Absent)) && facts.installation.mode == CertMode::CertManager;
    installed || registration::ours(facts).into_iter().flatten().any(asked)
}
