//! `examples/kueue/`, applied as it is.

use anyhow::ensure;
use kelos_standin::Outcome;
use kube::{Api, api::ListParams};
use serde_json::json;
use taskgate_api::WorkItem;
use taskgate_e2e::{PATIENCE, await_object, eventually};

use crate::world::{A_WHILE, Kelos, plane, queued, task};

const CLUSTER: &str = include_str!("../../../examples/kueue/cluster.yaml");
const QUEUES: &str = include_str!("../../../examples/kueue/queues.yaml");
const POLICY: &str = include_str!("../../../examples/kueue/policy.yaml");
const BY_MODEL: &str = include_str!("../../../examples/kueue/by-model.yaml");

async fn namespace(name: &str) -> anyhow::Result<Kelos> {
    let (cp, _) = plane().await?;
    cp.apply_yaml(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"
    ))
    .await?;
    eventually("its service account is there", PATIENCE, || async {
        cp.kubectl(["get", "-n", name, "serviceaccount", "default"])
            .await?
            .stdout_ok()
    })
    .await?;
    Kelos::start(cp, name).await
}

/// Until a policy of the namespace is in force, and taskgate's admission knows it.
async fn in_force(namespace: &str) -> anyhow::Result<()> {
    let (cp, _) = plane().await?;
    let args = [
        "wait",
        "-n",
        namespace,
        "taskpolicies",
        "--all",
        "--for=condition=Accepted",
        "--timeout=60s",
    ];
    cp.kubectl(args).await?.stdout_ok()?;
    crate::world::govern_beside(cp, namespace).await
}

#[tokio::test]
async fn hotfix_goes_before_triage_and_nobody_is_blamed_for_that() -> anyhow::Result<()> {
    const NS: &str = "kelos-system";
    let (cp, _) = plane().await?;
    let kelos = namespace(NS).await?;
    for manifests in [CLUSTER, QUEUES, POLICY] {
        cp.apply_yaml(manifests).await?;
    }
    in_force(NS).await?;
    let tasks = Api::namespaced(cp.client(), NS);
    let make = |name: &'static str, spawner: &'static str| async move {
        let mut made = task(name);
        made["metadata"]["labels"] = json!({"kelos.dev/taskspawner": spawner});
        made["spec"]["podOverrides"]["resources"]["requests"] = json!({"cpu": "8", "memory": "4Gi"});
        let (cp, _) = plane().await?;
        cp.kubectl_with_input(["create", "-n", NS, "-f-"], &made.to_string())
            .await?
            .stdout_ok()
            .map(drop)
    };
    for name in ["kelos-triage-1", "kelos-triage-2"] {
        make(name, "kelos-triage").await?;
        queued(&tasks, name, "Admitted").await?;
    }
    make("kelos-hotfix-1", "kelos-hotfix").await?;
    queued(&tasks, "kelos-hotfix-1", "Admitted").await?;
    let preempted = eventually("one of triage is preempted", PATIENCE, || async {
        let all = tasks.list(&ListParams::default()).await?;
        let told = |task: &kelos_standin::types::Task| {
            crate::world::condition(task).is_some_and(|told| told["reason"] == "Preempted" && told["status"] == "True")
        };
        let names: Vec<_> = all
            .iter()
            .filter(|task| told(task))
            .filter_map(|task| task.metadata.name.clone())
            .collect();
        ensure!(names.len() == 1 && names[0].starts_with("kelos-triage-"), "{names:?}");
        Ok(names[0].clone())
    })
    .await?;
    let told = queued(&tasks, &preempted, "Preempted").await?;
    ensure!(
        told["message"]
            .as_str()
            .is_some_and(|message| message.contains("Preempted to accommodate")),
        "{told}"
    );
    kelos.agents.finish(NS, "kelos-hotfix-1", Outcome::succeeded()).await?;
    let again = queued(&tasks, &preempted, "Admitted").await?;
    ensure!(again["status"] == "False", "{again}");
    for name in ["kelos-triage-1", "kelos-triage-2"] {
        kelos.agents.finish(NS, name, Outcome::succeeded()).await?;
        await_object(&tasks, name, "succeeds", |task: &kelos_standin::types::Task| {
            task.phase() == "Succeeded"
        })
        .await?;
    }
    let items = Api::<WorkItem>::namespaced(cp.client(), NS)
        .list(&ListParams::default())
        .await?;
    let blamed = items
        .iter()
        .filter_map(|item| item.status.as_ref())
        .any(|status| status.consecutive_failures > 0);
    ensure!(!blamed, "{items:?}");
    Ok(())
}

#[tokio::test]
async fn two_of_the_dear_model_whatever_they_request_and_none_of_an_unknown_one() -> anyhow::Result<()> {
    const NS: &str = "kelos-models";
    let (cp, _) = plane().await?;
    let kelos = namespace(NS).await?;
    cp.apply_yaml(BY_MODEL).await?;
    in_force(NS).await?;
    let tasks = Api::<kelos_standin::types::Task>::namespaced(cp.client(), NS);
    for (name, model) in [
        ("opus-1", "claude-opus-4-6"),
        ("opus-2", "claude-opus-4-6"),
        ("opus-3", "claude-opus-4-6"),
        ("haiku-1", "claude-haiku-4-5"),
        ("new-1", "claude-next-9"),
    ] {
        let mut made = task(name);
        made["spec"]["model"] = json!(model);
        made["spec"].as_object_mut().map(|spec| spec.remove("podOverrides"));
        cp.kubectl_with_input(["create", "-n", NS, "-f-"], &made.to_string())
            .await?
            .stdout_ok()?;
        let expected = match name {
            "opus-3" => "WaitingForAdmission",
            "new-1" => "NoSuchLocalQueue",
            _ => "Admitted",
        };
        queued(&tasks, name, expected).await?;
    }
    taskgate_e2e::never("a third one runs", A_WHILE, || async {
        Ok((kelos.agents.running(NS, "opus-3") > 0).then_some("opus-3"))
    })
    .await?;
    kelos.agents.finish(NS, "opus-1", Outcome::succeeded()).await?;
    queued(&tasks, "opus-3", "Admitted").await.map(drop)
}
