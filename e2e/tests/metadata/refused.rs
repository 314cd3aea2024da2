//! A cluster's own admission policy protects pod templates: labels that are added later are on the Job alone.

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::{PATIENCE, eventually, job_of};

use crate::{
    issue_source::{IssueSource, titled},
    support::{labels, start, task},
};

/// Refuses, with the HTTP status of `reason`, every change of a pod template's labels in the namespace.
fn guard(namespace: &str, reason: &str) -> String {
    let same = "object.spec.template.metadata.labels == oldObject.spec.template.metadata.labels";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["jobs"]},
            ]},
            "validations": [{"expression": same, "message": "templates stay", "reason": reason}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {
            "policyName": namespace, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    });
    format!("{policy}\n---\n{binding}")
}

#[tokio::test]
async fn labels_that_a_pod_template_may_not_get_are_on_the_job_alone() -> anyhow::Result<()> {
    for (reason, code) in [("Invalid", 422), ("Forbidden", 403)] {
        let section = json!({"metadata": titled(&json!(["Job", "Pod"]))});
        let source = IssueSource::of(start("guarded").await?, section).await?;
        let fixture = &source.fixture;
        source.fails();
        let stored = fixture.created(&task("fixer-42")).await?;
        let mut job = job_of(&stored);
        job["spec"]["suspend"] = true.into();
        fixture.created(&job).await?;
        fixture.cp.apply_yaml(&guard(fixture.ns.name(), reason)).await?;
        eventually("templates are guarded", PATIENCE, || async {
            let change = r#"{"spec":{"template":{"metadata":{"labels":{"a":"b"}}}}}"#;
            let patch = [
                "patch",
                "job",
                "fixer-42",
                "--dry-run=server",
                "--type=merge",
                "-p",
                change,
            ];
            let refused = fixture.kubectl(patch).await?.stderr_failed()?;
            ensure!(refused.contains("templates stay"), "{refused}");
            Ok(())
        })
        .await?;

        let mark = fixture.cp.audit().mark()?;
        source.heals();
        let task = source.settled().await?;
        let title = &labels(&task)["title"];
        let job = source.get("job").await?;
        ensure!(!title.is_null() && labels(&job)["title"] == *title, "{job}");
        ensure!(labels(&job["spec"]["template"])["title"].is_null(), "{job}");
        let events = fixture.cp.audit().since(mark).await?.into_iter();
        let ours = events.filter(|event| {
            let object = &event.object_ref;
            let of_job = object.resource == "jobs" && object.namespace == fixture.ns.name();
            of_job && event.is_write() && event.user_agent.starts_with("taskgate")
        });
        let codes: Vec<_> = ours.map(|event| event.code()).collect();
        ensure!(codes == [code, 200], "asked once, then without the template: {codes:?}");
    }
    Ok(())
}
