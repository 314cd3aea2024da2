//! The Deployment and its pods: whether they run, and the same.

use std::collections::BTreeSet;

use serde_json::Value;
use taskgate_api::condition::Condition;

use super::{list, name_of, registration, some, text, unseen};
use crate::commands::doctor::{
    facts::{Facts, Unseen},
    finding::{Check, Finding},
};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let installation = &facts.installation;
    let title = format!("Deployment {}/{}", installation.namespace, installation.service);
    let deployment = match &facts.deployment {
        Ok(deployment) => deployment,
        Err(Unseen::Absent) => return vec![none(facts, &title)],
        Err(refused) => return vec![unseen(Check::Replicas, &title, refused)],
    };
    let mut findings = vec![replicas(&title, deployment)];
    if let Some(problem) = &installation.problem {
        findings.push(Finding::warning(
            Check::Versions,
            format!("the flags of {title} are not understood: {problem}"),
            "use the command of the release that is installed; the usual settings are assumed",
        ));
    }
    match &facts.pods {
        Ok(pods) => findings.extend(versions(facts, deployment, pods)),
        Err(Unseen::Absent) => {}
        Err(refused) => findings.push(unseen(Check::Versions, "the pods of taskgate", refused)),
    }
    findings
}

/// Without a Deployment taskgate may still run somewhere, where the API server is told a URL.
fn none(facts: &Facts, title: &str) -> Finding {
    let by_url = registration::ours(facts)
        .into_iter()
        .flatten()
        .flat_map(|found| list(found, "/webhooks"))
        .any(|webhook| registration::base(webhook).is_some());
    let message = format!("there is no {title}");
    if by_url {
        return Finding::warning(
            Check::Replicas,
            message,
            "nothing, while taskgate runs outside of the cluster",
        );
    }
    Finding::failure(
        Check::Replicas,
        message,
        "install taskgate; or say where it is: --namespace NAME --service NAME",
    )
}

fn replicas(title: &str, deployment: &Value) -> Finding {
    let count = |path: &str| deployment.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let wanted = deployment
        .pointer("/spec/replicas")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    let ready = count("/status/readyReplicas");
    let why = ["ReplicaFailure", "Progressing", "Available"]
        .into_iter()
        .find_map(|kind| {
            let condition = Condition::find(deployment, kind)?;
            let bad = if kind == "ReplicaFailure" {
                condition.is_true()
            } else {
                condition.is_false()
            };
            bad.then(|| format!(": {}", condition.message()))
        });
    let message = format!("{title}: {ready} of {wanted} ready{}", why.unwrap_or_default());
    let look = "kubectl describe the Deployment and its pods; their readiness says what they wait for";
    match ready {
        0 => Finding::failure(Check::Replicas, message, look),
        ready if ready < wanted => Finding::warning(Check::Replicas, message, look),
        1 => Finding::warning(
            Check::Replicas,
            message,
            "have two or more: with one, each restart is a gap",
        ),
        _ => Finding::ok(Check::Replicas, message),
    }
}

fn versions(facts: &Facts, deployment: &Value, pods: &[Value]) -> Vec<Finding> {
    const IMAGE: &str = "/spec/containers/0/image";
    let alive = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let images: BTreeSet<_> = alive
        .clone()
        .map(|pod| text(pod, IMAGE))
        .filter(|image| !image.is_empty())
        .collect();
    let images: Vec<_> = images.into_iter().map(ToOwned::to_owned).collect();
    let mut findings = Vec::new();
    if images.len() > 1 {
        let old: Vec<_> = alive
            .filter(|pod| text(pod, IMAGE) != text(deployment, &format!("/spec/template{IMAGE}")))
            .map(|pod| name_of(pod).to_owned())
            .collect();
        findings.push(Finding::warning(
            Check::Versions,
            format!("the pods run {}", images.join(" and ")),
            format!(
                "wait for the rollout; if it does not go on, see why {} stays",
                some(&old)
            ),
        ));
        return findings;
    }
    let Some(image) = images.first() else {
        return findings;
    };
    let own = facts.installation.version;
    match tag(image).filter(|tag| is_release(tag) && tag.trim_start_matches('v') != own) {
        Some(tag) => findings.push(Finding::warning(
            Check::Versions,
            format!("the pods run {tag}, this command is {own}: what it compares with may differ"),
            format!("use the command of release {tag}"),
        )),
        None => findings.push(Finding::ok(
            Check::Versions,
            format!("all pods run {image}, this command is {own}"),
        )),
    }
    findings
}

/// The tag of an image.
pub(super) fn tag(image: &str) -> Option<&str> {
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
            .all(|number| number.chars().next().is_some_and(|c| c.is_ascii_digit()))
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
