//! `examples/kueue/`, applied as it is.

use anyhow::ensure;
use kelos_standin::Outcome;
use kube::api::ListParams;
use serde_json::json;
use taskgate_e2e::{KelosNamespace, Namespace, PATIENCE, condition, eventually, merged};

use crate::support::{A_WHILE, await_policies, shared, task};

const CLUSTER: &str = include_str!("../../../examples/kueue/cluster.yaml");
const QUEUES: &str = include_str!("../../../examples/kueue/queues.yaml");
const POLICY: &str = include_str!("../../../examples/kueue/policy.yaml");
const PROPOSAL: &str = include_str!("../../../examples/proposals/002/kueue.yaml");
const BY_MODEL: &str = include_str!("../../../examples/kueue/by-model.yaml");

async fn namespace(name: &str) -> anyhow::Result<KelosNamespace> {
    let (cp, _) = shared().await?;
    KelosNamespace::start(cp.namespace_named(name).await?).await
}

/// Waits until the policies of the namespace are accepted, and admission has them.
async fn await_accepted(ns: &Namespace) -> anyhow::Result<()> {
    let args = [
        "wait",
        "taskpolicies",
        "--all",
        "--for=condition=Accepted",
        "--timeout=60s",
    ];
    ns.kubectl(args).await?.stdout_ok()?;
    await_policies(ns).await
}

#[tokio::test]
async fn the_proposals_queues_are_accepted() -> anyhow::Result<()> {
    let (cp, _) = shared().await?;
    let ns = cp.namespace("proposal").await?;
    let queues = PROPOSAL.replace("namespace: kelos-system", &format!("namespace: {}", ns.name()));
    let args = ["apply", "--dry-run=server", "-f", "-"];
    cp.kubectl_with_input(args, &queues).await?.stdout_ok().map(drop)
}

#[tokio::test]
async fn hotfix_goes_before_triage_and_no_failure_is_counted() -> anyhow::Result<()> {
    const NS: &str = "kelos-system";
    let (cp, _) = shared().await?;
    let kelos = namespace(NS).await?;
    for manifests in [CLUSTER, QUEUES, POLICY] {
        cp.apply_yaml(manifests).await?;
    }
    await_accepted(&kelos).await?;
    let create = async |name: &str, spawner: &str| {
        let requests = json!({"cpu": "8", "memory": "4Gi"});
        let more = json!({
            "metadata": {"labels": {"kelos.dev/taskspawner": spawner}},
            "spec": {"podOverrides": {"resources": {"requests": requests}}},
        });
        kelos.created(&merged(task(name), &more)).await
    };
    for name in ["kelos-triage-1", "kelos-triage-2"] {
        create(name, "kelos-triage").await?;
        kelos.await_queued(name, "Admitted").await?;
    }
    create("kelos-hotfix-1", "kelos-hotfix").await?;
    kelos.await_queued("kelos-hotfix-1", "Admitted").await?;
    let preempted = eventually("one of triage is preempted", PATIENCE, || async {
        let all = kelos.tasks().list(&ListParams::default()).await?;
        let told = |task: &kelos_standin::types::Task| {
            condition(task, "Queued").is_some_and(|told| told["reason"] == "Preempted" && told["status"] == "True")
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
    let told = kelos.await_queued(&preempted, "Preempted").await?;
    ensure!(
        told["message"]
            .as_str()
            .is_some_and(|message| message.contains("Preempted to accommodate")),
        "{told}"
    );
    kelos.finish("kelos-hotfix-1", Outcome::succeeded()).await?;
    let again = kelos.await_queued(&preempted, "Admitted").await?;
    ensure!(again["status"] == "False", "{again}");
    for name in ["kelos-triage-1", "kelos-triage-2"] {
        kelos.succeed(name).await?;
    }
    let items = kelos.work_items().list(&ListParams::default()).await?;
    let blamed = items
        .iter()
        .filter_map(|item| item.status.as_ref())
        .any(|status| status.consecutive_failures > 0);
    ensure!(!blamed, "{items:?}");
    Ok(())
}

#[tokio::test]
async fn two_of_the_expensive_model_whatever_they_request_and_none_of_an_unknown_one() -> anyhow::Result<()> {
    const NS: &str = "kelos-models";
    let (cp, _) = shared().await?;
    let kelos = namespace(NS).await?;
    cp.apply_yaml(BY_MODEL).await?;
    await_accepted(&kelos).await?;
    for (name, model) in [
        ("opus-1", "claude-opus-4-6"),
        ("opus-2", "claude-opus-4-6"),
        ("opus-3", "claude-opus-4-6"),
        ("haiku-1", "claude-haiku-4-5"),
        ("new-1", "claude-next-9"),
    ] {
        let requestless = taskgate_e2e::task(name);
        kelos
            .created(&merged(requestless, &json!({"spec": {"model": model}})))
            .await?;
        let expected = match name {
            "opus-3" => "WaitingForAdmission",
            "new-1" => "NoSuchLocalQueue",
            _ => "Admitted",
        };
        kelos.await_queued(name, expected).await?;
    }
    taskgate_e2e::never("a third one runs", A_WHILE, || async {
        Ok((kelos.agents.running(NS, "opus-3") > 0).then_some("opus-3"))
    })
    .await?;
    kelos.finish("opus-1", Outcome::succeeded()).await?;
    kelos.await_queued("opus-3", "Admitted").await.map(drop)
}
