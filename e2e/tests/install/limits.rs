//! What the roles of taskgate allow and the admission policies of its service account refuse: each forbidden write by
//! impersonation, and beside it the one that the product makes.

use anyhow::{Context as _, ensure};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, GATE_NAMESPACE, Gate, Namespace, Output, PATIENCE, SharedGate, eventually};

static SHARED: SharedGate = SharedGate::new(|| {
    ControlPlane::builder()
        .crds(kelos_standin::CRDS)
        .crds(foreman_standin::CRDS)
});

const IDENTITY: [&str; 3] = [
    "--as=system:serviceaccount:taskgate-system:taskgate",
    "--as-group=system:serviceaccounts",
    "--as-group=system:authenticated",
];
/// What every refusal begins with.
const REFUSED: &str = "taskgate's own service account is refused unless ";

/// Sends something as taskgate's service account; nothing is stored.
async fn sent(ns: &Namespace, args: &[&str]) -> anyhow::Result<Output> {
    ns.kubectl(args.iter().chain(&IDENTITY).chain(&["--dry-run=server"]))
        .await
}

async fn patched(ns: &Namespace, object: &[&str], kind: &str, patch: &Value) -> anyhow::Result<Output> {
    let (kind, patch) = (format!("--type={kind}"), format!("--patch={patch}"));
    let args: Vec<_> = ["patch"]
        .iter()
        .chain(object)
        .copied()
        .chain([kind.as_str(), &patch])
        .collect();
    sent(ns, &args).await
}

async fn created(cp: &ControlPlane, namespace: &str, object: &Value) -> anyhow::Result<Output> {
    let args = ["create", "-n", namespace, "-f-", "--dry-run=server"];
    cp.kubectl_with_input(args.iter().chain(&IDENTITY), &object.to_string())
        .await
}

/// The write is refused by the policy that says `why`; `None`: it passes.
fn is(output: Output, why: Option<&str>) -> anyhow::Result<()> {
    match why {
        None => output.stdout_ok().map(drop),
        Some(why) => {
            let told = output.stderr_failed()?;
            ensure!(told.contains(REFUSED) && told.contains(why), "{told}");
            Ok(())
        }
    }
}

/// What comes of a write of a status: kubectl would read it first, which taskgate may not.
async fn is_status(
    cp: &ControlPlane,
    ns: &Namespace,
    resource: &ApiResource,
    name: &str,
    patch: &Value,
    why: Option<&str>,
) -> anyhow::Result<()> {
    let client = cp.client_as_service_account(GATE_NAMESPACE, "taskgate");
    let api = Api::<DynamicObject>::namespaced_with(client, ns.name(), resource);
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let sent = api.patch_status(name, &params, &Patch::Merge(patch)).await;
    match (sent, why) {
        (Ok(_), None) => Ok(()),
        (Err(kube::Error::Api(status)), Some(why)) => {
            ensure!(
                status.message.contains(REFUSED) && status.message.contains(why),
                "{status:?}"
            );
            Ok(())
        }
        (sent, why) => anyhow::bail!("{name}: {sent:?}, {why:?}"),
    }
}

fn task(name: &str) -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name, "finalizers": ["example.com/own"]},
        "spec": {"type": "claude-code", "prompt": "p", "credentials": {"type": "none"}},
    })
}

fn job(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
        }}},
    })
}

fn workload(name: &str) -> Value {
    json!({
        "apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "Workload", "metadata": {"name": name},
        "spec": {"intent": "x", "repo": "https://github.com/o/r"},
    })
}

async fn with_status(ns: &Namespace, object: &Value, resource: &str, phase: &str) -> anyhow::Result<()> {
    ns.apply_yaml(&object.to_string()).await?;
    let name = object["metadata"]["name"].as_str().context("a name")?;
    let patch = json!({"status": {"phase": phase}}).to_string();
    let args = [
        "patch",
        resource,
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    ns.kubectl(args).await?.stdout_ok().map(drop)
}

/// A control plane on which the admission policies are in force, and a namespace of it.
async fn limited(hint: &str) -> anyhow::Result<(&'static ControlPlane, Namespace)> {
    let (cp, _) = SHARED.get(Gate::builder()).await?;
    let ns = cp.namespace(hint).await?;
    eventually("the admission policies are in force", PATIENCE, || async {
        is(
            created(cp, ns.name(), &task("probe")).await?,
            Some("it creates only successors"),
        )
    })
    .await?;
    Ok((cp, ns))
}

#[tokio::test]
async fn every_expression_has_a_type_and_taskgate_may_not_touch_the_policies() -> anyhow::Result<()> {
    let (cp, _ns) = limited("types").await?;
    let read = [
        "get",
        "validatingadmissionpolicies",
        "-l",
        "app.kubernetes.io/part-of=taskgate",
        "-ojson",
    ];
    eventually("the expressions are checked", PATIENCE, || async {
        let list: Value = serde_json::from_str(&cp.kubectl(read).await?.stdout_ok()?)?;
        let policies = list["items"].as_array().context("policies")?;
        ensure!(policies.len() == 9, "{} policies", policies.len());
        for policy in policies {
            let status = &policy["status"];
            ensure!(
                status["observedGeneration"] == policy["metadata"]["generation"],
                "not checked yet"
            );
            let warnings = status.pointer("/typeChecking/expressionWarnings");
            ensure!(warnings.is_none(), "{}: {warnings:#?}", policy["metadata"]["name"]);
            ensure!(policy["spec"]["failurePolicy"] == "Fail");
        }
        Ok(())
    })
    .await?;
    for resource in ["validatingadmissionpolicies", "validatingadmissionpolicybindings"] {
        for verb in ["create", "update", "patch", "delete", "deletecollection"] {
            let args = ["auth", "can-i", verb, resource];
            let told = cp.kubectl(args.iter().chain(&IDENTITY)).await?;
            ensure!(told.stderr_failed().is_ok(), "taskgate may {verb} {resource}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn of_its_webhooks_it_changes_the_bundle_alone() -> anyhow::Result<()> {
    let (_, ns) = limited("webhooks").await?;
    let only = Some("of its own webhooks only the caBundle changes");
    let disabled = json!({"name": "taskgate.dev/disabled", "expression": "false"});
    let always = json!({"name": "never", "expression": "false"});
    let foreign = json!({
        "name": "spy.example.com", "clientConfig": {"url": "https://example.com"}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    });
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        for (change, why) in [
            (
                json!({"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}),
                None,
            ),
            (
                json!({"op": "add", "path": "/webhooks/3/matchConditions/-", "value": disabled}),
                None,
            ),
            (
                json!({"op": "add", "path": "/webhooks/3/matchConditions/-", "value": always}),
                only,
            ),
            (json!({"op": "remove", "path": "/webhooks/3/matchConditions"}), only),
            (
                json!({"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": "https://example.com"}),
                only,
            ),
            (
                json!({"op": "replace", "path": "/webhooks/0/rules/0/resources", "value": ["secrets"]}),
                only,
            ),
            (
                json!({"op": "replace", "path": "/webhooks/0/matchPolicy", "value": "Exact"}),
                only,
            ),
            (
                json!({"op": "replace", "path": "/webhooks/0/namespaceSelector", "value": {}}),
                only,
            ),
            (
                json!({"op": "replace", "path": "/webhooks/0/objectSelector", "value": {"matchLabels": {"a": "b"}}}),
                only,
            ),
            (
                json!({"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 30}),
                only,
            ),
            (
                json!({"op": "replace", "path": "/webhooks/0/name", "value": "other.taskgate.dev"}),
                only,
            ),
            (json!({"op": "remove", "path": "/webhooks/0"}), only),
            (json!({"op": "add", "path": "/webhooks/-", "value": foreign}), only),
            (
                json!({"op": "add", "path": "/metadata/labels/a", "value": "b"}),
                Some("labels, annotations and owners stay"),
            ),
        ] {
            let output = patched(&ns, &[kind, "admission.taskgate.dev"], "json", &json!([change])).await?;
            is(output, why).with_context(|| format!("{kind}: {change}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn of_pods_it_writes_two_annotations() -> anyhow::Result<()> {
    let (_, ns) = limited("pods").await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runner", "annotations": {"kept": "yes"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    ns.apply_yaml(&pod.to_string()).await?;
    let only = Some("only the annotations taskgate.dev/cancel-deadline and kelos.dev/cancel-task change");
    for (change, why) in [
        (
            json!({"metadata": {"annotations": {"taskgate.dev/cancel-deadline": "2026-11-30T00:00:00Z"}}}),
            None,
        ),
        (
            json!({"metadata": {"annotations": {"kelos.dev/cancel-task": "t"}}}),
            None,
        ),
        (
            json!({"metadata": {"annotations": {"kelos.dev/assigned-task": "t"}}}),
            only,
        ),
        (json!({"metadata": {"annotations": {"kept": "no"}}}), only),
        (json!({"metadata": {"annotations": {"kept": null}}}), only),
        (json!({"metadata": {"labels": {"app": "other"}}}), only),
        (json!({"metadata": {"finalizers": ["example.com/own"]}}), only),
        (json!({"spec": {"activeDeadlineSeconds": 5}}), only),
    ] {
        is(patched(&ns, &["pod", "runner"], "merge", &change).await?, why).with_context(|| change.to_string())?;
    }
    Ok(())
}

#[tokio::test]
async fn of_jobs_it_touches_those_of_tasks() -> anyhow::Result<()> {
    let (cp, ns) = limited("jobs").await?;
    with_status(&ns, &task("t"), "task.kelos.dev", "Running").await?;
    let told = ns
        .kubectl(["get", "task.kelos.dev", "t", "-ojsonpath={.metadata.uid}"])
        .await?;
    let mut owned = job("t");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": "t", "uid": told.stdout_ok()?, "controller": true,
    }]);
    ns.apply_yaml(&owned.to_string()).await?;
    ns.apply_yaml(&job("backup").to_string()).await?;
    let (foreign, stays) = (Some("a Kelos Task owns the Job"), Some("what the Job runs"));
    let annotated = json!({"metadata": {"annotations": {"taskgate.dev/cancel-deadline": "2026-11-30T00:00:00Z"}}});
    let failed = json!({"status": {"startTime": "2026-11-30T00:00:00Z", "conditions": [{
        "type": "FailureTarget", "status": "True", "reason": "TaskCancelled", "message": "x",
        "lastTransitionTime": "2026-11-30T00:00:00Z", "lastProbeTime": "2026-11-30T00:00:00Z",
    }]}});
    let resource = ApiResource::erase::<k8s_openapi::api::batch::v1::Job>(&());
    is_status(cp, &ns, &resource, "t", &failed, None).await?;
    is_status(cp, &ns, &resource, "backup", &failed, foreign).await?;
    for (name, change, why) in [
        ("t", &annotated, None),
        (
            "t",
            &json!({"spec": {"template": {"metadata": {"labels": {"team": "blue"}}}}}),
            None,
        ),
        ("t", &json!({"spec": {"suspend": false}}), stays),
        ("t", &json!({"metadata": {"ownerReferences": []}}), stays),
        ("backup", &annotated, foreign),
    ] {
        let output = patched(&ns, &["job", name], "merge", change).await?;
        is(output, why).with_context(|| format!("{name}: {change}"))?;
    }
    is(sent(&ns, &["delete", "job", "t"]).await?, None)?;
    is(sent(&ns, &["delete", "job", "backup"]).await?, foreign)
}

#[tokio::test]
async fn of_tasks_and_workloads_it_creates_successors_and_deletes_what_has_ended() -> anyhow::Result<()> {
    let (cp, ns) = limited("tasks").await?;
    let opted_out = cp
        .namespace_with_labels("out", &[("taskgate.dev/admission", "disabled")])
        .await?;
    let (only, reach) = (
        Some("it creates only successors"),
        Some("the namespace is not a system's"),
    );
    for mut object in [task("new"), workload("new")] {
        is(created(cp, ns.name(), &object).await?, only)?;
        object["metadata"]["annotations"] = json!({"taskgate.dev/retry-of": "uid"});
        for (namespace, why) in [
            (ns.name(), None),
            ("kube-system", reach),
            (GATE_NAMESPACE, reach),
            (opted_out.name(), reach),
        ] {
            let output = created(cp, namespace, &object).await?;
            is(output, why).with_context(|| format!("{} in {namespace}", object["kind"]))?;
        }
    }
    for (resource, object) in [
        ("task.kelos.dev", task("x")),
        ("workload.foreman.llmkube.dev", workload("x")),
    ] {
        let mut object = object;
        for (name, phase, why) in [("live", "Running", Some("it deletes only")), ("ended", "Failed", None)] {
            object["metadata"]["name"] = name.into();
            let phase = if phase == "Running" && resource.starts_with("workload") {
                "Dispatched"
            } else {
                phase
            };
            with_status(&ns, &object, resource, phase).await?;
            let output = sent(&ns, &["delete", resource, name, "--wait=false"]).await?;
            is(output, why).with_context(|| format!("{resource} {name}"))?;
        }
    }
    let stays = Some("spec, owners and the finalizers of others stay");
    for (change, why) in [
        (
            json!({"metadata": {"finalizers": ["example.com/own", "taskgate.dev/accounting"]}}),
            None,
        ),
        (
            json!({"metadata": {"annotations": {"taskgate.dev/recorded": "uid"}, "labels": {"team": "blue"}}}),
            None,
        ),
        (json!({"metadata": {"finalizers": ["taskgate.dev/accounting"]}}), stays),
        (
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}}),
            stays,
        ),
    ] {
        let output = patched(&ns, &["task.kelos.dev", "live"], "merge", &change).await?;
        is(output, why).with_context(|| change.to_string())?;
    }
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kelos.dev", "v1alpha2", "Task"));
    for (phase, why) in [
        ("Failed", None),
        ("Running", None),
        ("Succeeded", Some("no other phase than Failed")),
    ] {
        let change = json!({"status": {"phase": phase}});
        is_status(cp, &ns, &resource, "live", &change, why).await?;
    }
    Ok(())
}
