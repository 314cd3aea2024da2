//! The schemas of Kelos: extended on demand, again after an upgrade, and restored to the letter.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kelos_standin::{CRDS, CrdCapability, crds::yaml};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Gate, KelosNamespace, PATIENCE, eventually, eventually_that, never};

use crate::support::{await_spawner, await_stored, copy, crd, enable, kelos_fields, policy, spawner, start, stored};

const NAMES: [&str; 2] = ["taskspawners.kelos.dev", "tasks.kelos.dev"];
/// How soon the schemas are extended again.
const SOON: Duration = Duration::from_secs(5);

/// Whether both versions have the fields.
fn is_extended(crd: &Value) -> bool {
    let versions = crd["spec"]["versions"].as_array();
    let has = |version: &Value| {
        let spec = version.pointer("/schema/openAPIV3Schema/properties/spec/properties");
        spec.is_some_and(|spec| spec.get("failurePolicy").is_some() || spec.get("queueName").is_some())
    };
    versions.is_some_and(|versions| versions.len() == 2 && versions.iter().all(has))
}

/// Applies CRDs as an administrator does who upgrades Kelos.
async fn upgrade(cp: &ControlPlane, yaml: &str) -> anyhow::Result<()> {
    let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    cp.kubectl_with_input(args, yaml).await?.stdout_ok().map(drop)
}

async fn await_extended(cp: &ControlPlane) -> anyhow::Result<()> {
    for name in NAMES {
        eventually_that(
            format!("{name} is extended"),
            PATIENCE,
            async || crd(cp, name).await,
            is_extended,
        )
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn enabled_disabled_and_as_before() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let _gate = Gate::builder().without_leader_election().start(&cp).await?;
    let specs = async || -> anyhow::Result<Vec<Value>> {
        let mut found = Vec::new();
        for name in NAMES {
            found.push(crd(&cp, name).await?["spec"].clone());
        }
        Ok(found)
    };
    let before = specs().await?;
    // By default nothing is extended, and taskgate has no right to.
    let patch = [
        "auth",
        "can-i",
        "patch",
        "crd/taskspawners.kelos.dev",
        "--as=system:serviceaccount:taskgate-system:taskgate",
    ];
    ensure!(cp.kubectl(patch).await?.stdout_ok().is_err(), "no right by default");
    let status = kelos_fields(&cp, &["status"]).await?;
    ensure!(status.starts_with("disabled") && status.contains("missing"), "{status}");
    let ns = cp.namespace("schema").await?;
    let unknown = ns.create(&spawner("unknown", &policy(3))).await?.stderr_failed()?;
    ensure!(unknown.contains("unknown field \"spec.failurePolicy\""), "{unknown}");

    enable(&cp).await?;
    let status = kelos_fields(&cp, &["status"]).await?;
    ensure!(status.starts_with("enabled") && !status.contains("missing"), "{status}");
    let explained = eventually("kubectl explains the field", PATIENCE, async || {
        cp.kubectl(["explain", "taskspawner.spec.failurePolicy.maxRetriesPerItem"])
            .await?
            .stdout_ok()
    })
    .await?;
    ensure!(
        explained.contains("How many Tasks may fail in a row for one item"),
        "{explained}"
    );
    let wrong = ns.create(&spawner("wrong", &policy(2000))).await?.stderr_failed()?;
    ensure!(wrong.contains("spec.failurePolicy.maxRetriesPerItem"), "{wrong}");
    ns.created(&spawner("fixer", &policy(3))).await?;

    kelos_fields(&cp, &["disable", "--dry-run"]).await?;
    ensure!(is_extended(&crd(&cp, NAMES[0]).await?), "a dry run changes nothing");
    kelos_fields(&cp, &["disable"]).await?;
    ensure!(specs().await? == before, "exactly what was added is removed");
    ensure!(cp.kubectl(patch).await?.stdout_ok().is_err(), "the right is gone");
    await_stored(&cp, false).await?;
    let now = stored(&ns, "fixer").await?;
    ensure!(copy(&now).is_none() && now["spec"]["failurePolicy"].is_null(), "{now}");
    never("the leader extends again", Duration::from_secs(3), async || {
        Ok(is_extended(&crd(&cp, NAMES[0]).await?).then_some(()))
    })
    .await?;
    kelos_fields(&cp, &["disable"]).await.map(drop)
}

#[tokio::test]
async fn extended_again_after_an_upgrade_and_no_policy_is_lost() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = Gate::builder().without_leader_election().start(&cp).await?;
    enable(&cp).await?;
    let ns = cp.namespace("upgraded").await?;
    let kelos = KelosNamespace::builder().service_accounts().start(ns).await?;
    kelos.created(&spawner("fixer", &policy(3))).await?;
    for round in 0..3 {
        upgrade(&cp, CRDS).await?;
        let began = Instant::now();
        await_extended(&cp).await?;
        ensure!(
            began.elapsed() < SOON,
            "round {round}: extended again after {:?}",
            began.elapsed()
        );
        await_spawner(&kelos, "fixer", "has its policy", |found| {
            found["spec"]["failurePolicy"]["maxRetriesPerItem"] == 3
        })
        .await?;
    }
    // Kelos wrote the TaskSpawner while the schema lacked the field.
    let log = gate.process().log()?;
    ensure!(
        log.contains("extended the schema of Kelos"),
        "{}",
        gate.process().log_tail(20)
    );
    Ok(())
}

#[tokio::test]
async fn a_field_that_kelos_defines_is_kelos_own() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = Gate::builder().without_leader_election().start(&cp).await?;
    enable(&cp).await?;
    // An upgrade to a Kelos that has adopted the proposals on cancellation and queues.
    upgrade(&cp, &yaml(CrdCapability::Cancellation)?).await?;
    let status = eventually("both fields of Task are Kelos' own", PATIENCE, async || {
        let status = kelos_fields(&cp, &["status"]).await?;
        let own = status
            .lines()
            .filter(|line| line.contains("defined by Kelos itself"))
            .count();
        ensure!(own == 4 && !status.contains("missing"), "{status}");
        Ok(status)
    })
    .await?;
    ensure!(
        status
            .lines()
            .any(|line| line.contains("spec.failurePolicy") && line.ends_with("added")),
        "{status}"
    );
    ensure!(
        gate.process().log()?.contains("a field is not added to Kelos' schema"),
        "it is reported"
    );
    let native = crd(&cp, NAMES[1]).await?;
    let queue = native.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/queueName");
    ensure!(queue.context("it stays")?.get("description").is_none(), "{queue:?}");
    // And back to the older Kelos.
    upgrade(&cp, CRDS).await?;
    await_extended(&cp).await?;
    kelos_fields(&cp, &["disable"]).await?;
    for name in NAMES {
        ensure!(!is_extended(&crd(&cp, name).await?), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn the_rights_are_for_schemas_and_fields_only() -> anyhow::Result<()> {
    let fixture = start("rights").await?;
    fixture.created(&spawner("fixer", &policy(3))).await?;
    let sent = async |kind: &str, name: &str, patch: Value| {
        let patch = patch.to_string();
        let identity = [
            "--as=system:serviceaccount:taskgate-system:taskgate",
            "--as-group=system:authenticated",
        ];
        let args = ["patch", kind, name, "--type=merge", "--dry-run=server", "-p", &patch];
        fixture.kubectl([&args[..], &identity].concat()).await
    };
    for (kind, name, patch) in [
        ("crd", NAMES[0], json!({"metadata": {"labels": {"a": "b"}}})),
        (
            "crd",
            NAMES[1],
            json!({"spec": {"conversion": {"strategy": "None"}, "names": {"shortNames": ["t"]}}}),
        ),
        ("taskspawner", "fixer", json!({"spec": {"suspend": true}})),
        (
            "taskspawner",
            "fixer",
            json!({"spec": {"taskTemplate": {"promptTemplate": "other"}}}),
        ),
        ("taskspawner", "fixer", json!({"metadata": {"labels": {"a": "b"}}})),
    ] {
        let refused = sent(kind, name, patch.clone()).await?.stderr_failed()?;
        ensure!(
            refused.contains("taskgate's own service account is refused unless"),
            "{patch}: {refused}"
        );
    }
    let patch = json!({"spec": {"cancellationPolicy": {}, "taskTemplate": {"queueName": "agents"}}});
    sent("taskspawner", "fixer", patch).await?.stdout_ok()?;
    let other = sent(
        "crd",
        "workspaces.kelos.dev",
        json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await?
    .stderr_failed()?;
    ensure!(other.contains("cannot"), "{other}");
    Ok(())
}
