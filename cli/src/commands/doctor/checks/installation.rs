//! Checks of the cluster and the installation: API server, switch, kinds, replicas, leader, rights, and the other systems.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::{GROUP, VERSION, condition::Condition, foreman, kelos, switch::CONFIG_MAP};
use taskgate_controller::{CancelledFields, cancelled_fields};

use super::{
    base_url, difference::missing, length, list, name_of, own_configurations, own_webhooks, some, text, webhooks_off,
};
use crate::{
    commands::{
        disable::describe,
        doctor::{
            installation::Installation,
            report::{DoctorCheck, Findings, Level},
            state::{ClusterState, KELOS_CRD, OTHER_SYSTEMS, OWN_CRDS, OtherSystem, SPAWNER_CRD},
        },
        kelos_fields,
        snapshot::{Collection, ReadError},
    },
    rights::review::missing_rights,
    serve::args::CertMode,
};

/// The oldest API server: match conditions of webhooks are stable from here on.
const OLDEST: (u32, u32) = (1, 30);
/// How far clocks may differ. The API server's time is rounded to seconds.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(5);
/// Beyond that a replica's timestamps are rejected by the others.
const CLOCK_SKEW_OF_LEADER: SignedDuration = SignedDuration::from_mins(1);
const INSTALL_CRDS: &str = "apply manifests/crds, or install the chart with crds.install";
/// The annotation that asks cert-manager's CA injector for a CA bundle.
const INJECT: &str = "cert-manager.io/inject-ca-from";

/// The API server's version, and its clock against this machine's.
pub(super) fn api_server(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::ApiServer);
    let (major, minor, version) = &state.server.version;
    if (*major, *minor) < OLDEST {
        let (major, minor) = OLDEST;
        findings.failure(
            format!("{version} is too old"),
            format!("upgrade Kubernetes to {major}.{minor} or later: taskgate's webhooks need match conditions"),
        );
    } else {
        findings.ok(format!("{version} answers"));
    }
    let Some((there, here)) = state.server.clock else {
        return;
    };
    findings.begin(DoctorCheck::Clock);
    let ahead = here.duration_since(there);
    if ahead.abs() > CLOCK_SKEW {
        findings.warning(
            format!("this machine is {} the API server", skew(ahead)),
            "synchronize the clocks by NTP: ages and deadlines are printed wrongly here",
        );
    } else {
        findings.ok("this machine and the API server agree");
    }
}

/// As `97 s ahead of`.
fn skew(ahead: SignedDuration) -> String {
    let direction = if ahead.is_positive() { "ahead of" } else { "behind" };
    format!("{} {direction}", length(ahead))
}

/// Whether taskgate is disabled.
pub(super) fn switch(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::Switch);
    match state.snapshot.one(Collection::DisableSwitch) {
        Ok(map) => {
            let (disabled, message) = describe(map);
            let over = disabled.until.is_some_and(|until| until <= state.now);
            let advice = if over {
                "its period is over and taskgate is still disabled: run `taskgate enable`, and see whether a controller runs"
            } else {
                "run `taskgate enable` when the incident is over"
            };
            findings.failure(message, advice);
        }
        Err(ReadError::Absent) => match webhooks_off(state) {
            0 => findings.ok("enabled"),
            off => findings.failure(
                format!("{off} webhooks are off, although taskgate is not disabled"),
                "run `taskgate enable`",
            ),
        },
        Err(error) => findings.unreadable(&format!("ConfigMap {CONFIG_MAP}"), error),
    }
}

/// Whether taskgate's own kinds are served, and are those of this release.
pub(super) fn kinds(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::Kinds);
    for crd in taskgate_api::crds::all() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let Some(own) = OWN_CRDS.into_iter().find(|own| *own == name) else {
            continue;
        };
        match state.snapshot.one(Collection::Crd(own)) {
            Ok(found) => kind(own, &serde_json::to_value(crd).unwrap_or_default(), found, findings),
            Err(ReadError::Absent) => {
                findings.failure(format!("{name} is not installed"), INSTALL_CRDS);
            }
            Err(error) => findings.unreadable(&name, error),
        }
    }
    if findings.is_clean() {
        let message = format!("{} in {VERSION}, as in this release", OWN_CRDS.join(", "));
        findings.ok(message);
    }
}

fn kind(name: &str, wanted: &Value, found: &Value, findings: &mut Findings) {
    if !Condition::find(found, "Established").is_some_and(Condition::is_true) {
        let reason = Condition::find(found, "NamesAccepted").map(Condition::message);
        let message = format!("{name} is not served {}", reason.unwrap_or_default());
        let advice = format!("`kubectl describe crd {name}` shows the reason");
        return findings.failure(message.trim_end(), advice);
    }
    let is_served = |version: &Value| version["name"] == VERSION && version["served"] == true;
    if !list(found, "/spec/versions").iter().any(is_served) {
        let message = format!("{name} is not served in {GROUP}/{VERSION}");
        return findings.failure(message, INSTALL_CRDS);
    }
    let paths = missing(&wanted["spec"], &found["spec"]);
    if !paths.is_empty() {
        findings.warning(
            format!("{name} is not that of this release: {}", some(&paths)),
            format!("{INSTALL_CRDS}; or use the command of the release that is installed"),
        );
    }
}

/// The Deployment and its pods: whether they are ready, and run one release.
pub(super) fn replicas(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::Replicas);
    let installation = &state.installation;
    let title = format!("Deployment {}/{}", installation.namespace, installation.service);
    let deployment = match state.snapshot.one(Collection::Deployment) {
        Ok(deployment) => deployment,
        // taskgate may run elsewhere, where the API server calls a URL.
        Err(ReadError::Absent) if own_webhooks(state).any(|webhook| base_url(webhook).is_some()) => {
            let advice = "nothing, while taskgate runs outside of the cluster";
            return findings.warning(format!("there is no {title}"), advice);
        }
        Err(ReadError::Absent) => {
            let advice = "install taskgate; or name its installation: --namespace NAME --service NAME";
            return findings.failure(format!("there is no {title}"), advice);
        }
        Err(error) => return findings.unreadable(&title, error),
    };
    ready(&title, deployment, findings);
    findings.begin(DoctorCheck::Versions);
    if let Some(problem) = &installation.problem {
        findings.warning(
            format!("the flags of {title} are not understood: {problem}"),
            "use the command of the release that is installed; the defaults are assumed",
        );
    }
    match state.snapshot.error(Collection::Pods) {
        None => versions(state, deployment, findings),
        Some(ReadError::Absent) => {}
        Some(error) => findings.unreadable("the pods of taskgate", error),
    }
}

fn ready(title: &str, deployment: &Value, findings: &mut Findings) {
    let count = |path: &str| deployment.pointer(path).and_then(Value::as_u64);
    let wanted = count("/spec/replicas").unwrap_or(1);
    let ready = count("/status/readyReplicas").unwrap_or_default();
    let mut bad = [
        ("ReplicaFailure", "True"),
        ("Progressing", "False"),
        ("Available", "False"),
    ]
    .into_iter();
    let problem = bad.find_map(|(kind, bad)| {
        let condition = Condition::find(deployment, kind).filter(|condition| condition.status() == bad)?;
        Some(format!(": {}", condition.message()))
    });
    let message = format!("{title}: {ready} of {wanted} ready{}", problem.unwrap_or_default());
    let advice = "kubectl describe the Deployment and its pods; their readiness shows what they wait for";
    match ready {
        0 => findings.failure(message, advice),
        ready if ready < wanted => findings.warning(message, advice),
        1 => findings.warning(message, "run two or more: with one, each restart is a gap"),
        _ => findings.ok(message),
    }
}

fn versions(state: &ClusterState, deployment: &Value, findings: &mut Findings) {
    const IMAGE: &str = "/spec/containers/0/image";
    let pods = state.snapshot.objects(Collection::Pods).iter();
    let alive: Vec<_> = pods
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect();
    let images = alive
        .iter()
        .map(|pod| text(pod, IMAGE))
        .filter(|image| !image.is_empty());
    let images: Vec<_> = images.collect::<BTreeSet<_>>().into_iter().collect();
    let image = match images[..] {
        [] => return,
        [image] => image,
        _ => {
            let wanted = text(deployment, &format!("/spec/template{IMAGE}"));
            let old = alive.iter().filter(|pod| text(pod, IMAGE) != wanted);
            let old = some(&old.map(|pod| name_of(pod).to_owned()).collect::<Vec<_>>());
            let advice = format!("wait for the rollout; if it does not continue, see why {old} stays");
            return findings.warning(format!("the pods run {}", images.join(" and ")), advice);
        }
    };
    let own = env!("CARGO_PKG_VERSION");
    match tag(image).filter(|tag| is_release(tag) && tag.trim_start_matches('v') != own) {
        Some(tag) => findings.warning(
            format!("the pods run {tag}, this command is {own}: their manifests may differ"),
            format!("use the command of release {tag}"),
        ),
        None => findings.ok(format!("all pods run {image}, this command is {own}")),
    }
}

/// The tag of an image.
fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next().unwrap_or(image);
    let (_, last) = name.rsplit_once('/').unwrap_or(("", name));
    last.split_once(':').map(|(_, tag)| tag)
}

/// Whether a tag is a release and not a branch or a commit.
fn is_release(tag: &str) -> bool {
    let numbers: Vec<_> = tag.trim_start_matches('v').split('.').collect();
    numbers.len() == 3
        && numbers
            .iter()
            .all(|number| number.starts_with(|c: char| c.is_ascii_digit()))
}

/// The replica that runs the controller, and its clock.
pub(super) fn leader(state: &ClusterState, findings: &mut Findings) {
    const ADVICE: &str = "see replicas, and rights: without a leader no failure is counted and no finalizer is removed";
    findings.begin(DoctorCheck::Leader);
    if state.installation.serve.no_leader_election {
        return findings.ok("no leader election: the one replica runs the controller");
    }
    let Installation { namespace, names, .. } = &state.installation;
    let title = format!("Lease {namespace}/{}", names.lease);
    let lease = match state.snapshot.one(Collection::Lease) {
        Ok(lease) => lease,
        Err(ReadError::Absent) => {
            return findings.failure(format!("no leader: there is no {title}"), ADVICE);
        }
        Err(error) => return findings.unreadable(&title, error),
    };
    let holder = text(lease, "/spec/holderIdentity");
    let renewed: Option<Timestamp> = text(lease, "/spec/renewTime").parse().ok();
    let Some(renewed) = renewed.filter(|_| !holder.is_empty()) else {
        return findings.failure(format!("no leader: {title} has no holder"), ADVICE);
    };
    // The time of the write by the API server's clock.
    let written: Option<Timestamp> = list(lease, "/metadata/managedFields")
        .iter()
        .filter(|entry| entry["fieldsV1"].to_string().contains("\"f:renewTime\""))
        .filter_map(|entry| text(entry, "/time").parse().ok())
        .max();
    let now = state.server.clock.map_or(state.now, |(there, _)| there);
    let duration = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_i64);
    let age = now.duration_since(written.unwrap_or(renewed));
    if age > SignedDuration::from_secs(duration.unwrap_or(15)) + CLOCK_SKEW {
        let message = format!("no leader: {holder} renewed {title} {} ago", length(age));
        return findings.failure(message, ADVICE);
    }
    // The identity of a replica is its pod's name and its process ID.
    let pods = state.snapshot.objects(Collection::Pods);
    let is_holder = |pod: &Value| holder.starts_with(&format!("{}-", name_of(pod)));
    if pods.is_empty() || pods.iter().any(|pod| is_holder(pod)) {
        findings.ok(format!("{holder} leads, renewed {} ago", length(age)));
    } else {
        findings.warning(
            format!("{holder} leads, and is none of the pods of this Deployment"),
            "is there another installation, or a replica outside of the cluster? Two of them share one Lease",
        );
    }
    let ahead = written
        .map(|written| renewed.duration_since(written))
        .unwrap_or_default();
    let level = match ahead.abs() {
        ahead if ahead > CLOCK_SKEW_OF_LEADER => Level::Failure,
        ahead if ahead > CLOCK_SKEW => Level::Warning,
        _ => return,
    };
    findings.begin(DoctorCheck::Clock);
    let message = format!("the clock of {holder} is {} the API server's", skew(ahead));
    let advice = "synchronize the clocks of the nodes by NTP: backoffs, TTLs and cancellations depend on them";
    findings.add(level, message, advice);
}

/// The rights that taskgate's service account lacks.
pub(super) fn rights(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::Rights);
    let installation = &state.installation;
    let account = format!("ServiceAccount {}/{}", installation.namespace, installation.account);
    let denied = match &state.denied {
        Ok(denied) => denied,
        Err(error) => return findings.unreadable(&format!("the rights of {account}"), error),
    };
    let missing = missing_rights(&installation.names, |permission| !denied.contains(permission));
    if missing.is_empty() {
        findings.ok(format!("{account} has all rights that it needs"));
    }
    for right in missing {
        findings.failure(
            format!("{account} lacks a right: {}", right.why),
            format!("add to its {}: {}", right.role, right.rule),
        );
    }
}

/// The other systems: which are installed, in which release, and whether taskgate knows their versions.
pub(super) fn other_systems(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::Kelos);
    let groups = match &state.groups {
        Ok(groups) => groups,
        Err(error) => return findings.unreadable("the served API groups", error),
    };
    let nothing_to_govern = !groups.contains_key(kelos::GROUP) && !groups.contains_key(foreman::GROUP);
    for system in OTHER_SYSTEMS {
        let OtherSystem {
            check,
            name,
            group,
            versions,
            ..
        } = system;
        let is_known = |version: &String| versions.contains(&version.as_str());
        findings.begin(check);
        match groups.get(group) {
            None if check == DoctorCheck::CertManager && needs_cert_manager(state) => findings.failure(
                "not installed, although it is to issue the certificate",
                "install cert-manager, or choose certificates.mode=self-signed",
            ),
            None if check == DoctorCheck::Kelos && nothing_to_govern => findings.warning(
                "neither Kelos nor Foreman is installed: there is nothing to govern",
                "install one of them; taskgate detects it without a restart",
            ),
            None => findings.ok("not installed"),
            Some(served) if served.iter().any(is_known) => {
                findings.ok(describe_system(state, &system, &served.join(", ")));
            }
            Some(served) => findings.failure(
                format!("{group} is served in {} only", served.join(", ")),
                format!(
                    "taskgate knows {}: use a release of {name} that serves it",
                    versions.join(", ")
                ),
            ),
        }
    }
}

/// Whether the schemas of Kelos are extended as the setting says.
pub(super) fn kelos_fields(state: &ClusterState, findings: &mut Findings) {
    findings.begin(DoctorCheck::KelosFields);
    let crds = [SPAWNER_CRD, KELOS_CRD].map(|name| state.snapshot.one(Collection::Crd(name)).ok());
    let summary = kelos_fields::findings(crds.into_iter().flatten());
    match state.snapshot.one(Collection::KelosFields) {
        Ok(_) if summary.is_incomplete => findings.failure(
            "Kelos' CRDs lack fields although they are enabled",
            "see whether a controller runs and may patch both CRDs: taskgate kelos-fields enable writes the rights",
        ),
        Ok(_) => {
            findings.ok("Kelos' CRDs have the fields of the proposals");
            for kept in summary.kept {
                findings.warning(
                    kept,
                    "this field is no policy of taskgate: use a TaskPolicy, or Kelos' own field",
                );
            }
        }
        Err(ReadError::Absent) if summary.is_extended => findings.warning(
            "Kelos' CRDs have fields of taskgate, which are not enabled: they have no effect",
            "run taskgate kelos-fields disable, or enable",
        ),
        Err(ReadError::Absent) => findings.ok("not enabled: policies are TaskPolicies only"),
        Err(error) => findings.unreadable(&format!("ConfigMap {}", taskgate_api::kelos_fields::CONFIG_MAP), error),
    }
}

fn describe_system(state: &ClusterState, system: &OtherSystem, served: &str) -> String {
    let crd = state.snapshot.one(Collection::Crd(system.crd)).ok();
    let text = match release(state, system, crd) {
        Some(release) => format!("{} {release}, {served}", system.name),
        None => format!("{} in {served}; its release is unknown", system.name),
    };
    if system.check != DoctorCheck::Kelos {
        return text;
    }
    let supports_cancellation = crd.is_some_and(|crd| {
        let mut versions = kelos::TASK_VERSIONS.iter();
        versions.any(|version| cancelled_fields(crd, version) == CancelledFields::Phase)
    });
    let supports = if supports_cancellation {
        "supports"
    } else {
        "does not support"
    };
    format!("{text}; it {supports} cancelled Tasks")
}

/// The release: the image tag of its Deployment, else a label of its CustomResourceDefinition.
fn release(state: &ClusterState, system: &OtherSystem, crd: Option<&Value>) -> Option<String> {
    let deployments = system.deployment.map(Collection::Deployments);
    let deployments = deployments.map(|name| state.snapshot.objects(name)).unwrap_or_default();
    let mut images = deployments
        .iter()
        .map(|deployment| text(deployment, "/spec/template/spec/containers/0/image"));
    let label = |key: &str| Some(crd?["metadata"]["labels"][key].as_str()?.to_owned());
    images
        .find_map(tag)
        .map(ToOwned::to_owned)
        .or_else(|| label("app.kubernetes.io/version"))
        .or_else(|| label("helm.sh/chart"))
}

/// Whether the certificate, or the CA bundle, is to come from cert-manager.
fn needs_cert_manager(state: &ClusterState) -> bool {
    let is_installed = state.snapshot.error(Collection::Deployment) != Some(&ReadError::Absent);
    let injects = |found: &Value| found["metadata"]["annotations"].get(INJECT).is_some();
    (is_installed && state.installation.serve.cert_mode == CertMode::CertManager)
        || own_configurations(state).into_iter().flatten().any(injects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_behind_the_last_colon_of_the_last_part() {
        assert_eq!(tag("ghcr.io/taskgate/taskgate:0.1.0"), Some("0.1.0"));
        assert_eq!(tag("localhost:5000/taskgate"), None);
        assert_eq!(tag("localhost:5000/taskgate:v1@sha256:00"), Some("v1"));
        assert!(is_release("v0.1.0") && !is_release("1.2.3-rc.1") && !is_release("main"));
    }
}
