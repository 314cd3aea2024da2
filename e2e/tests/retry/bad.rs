//! Malformed, foreign and forged objects: reported, and without effect on others.

use std::time::Duration;

use anyhow::ensure;
use foreman_standin::{
    CRDS, Outcome,
    types::{AgenticTask, Workload},
};
use kelos_standin::types::Task;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, attempt_number, await_gone, await_object, eventually, never, stuck};
use taskgate_policy::ItemIdentity;

use crate::support::{
    QUIET, await_reason, fail_new, quick, retry_condition, start, start_on, three, work_item_of, workload,
    workload_with,
};

/// Foreman plans it over and over, and its phase is Failed half of the time (F5).
#[tokio::test]
async fn a_workload_that_was_never_planned_is_reported_once_and_never_changed() -> anyhow::Result<()> {
    let fixture = start("unplanned", three(json!({}))).await?;
    let agentless = workload_with("flaps", &json!({"coderAgentRef": {"name": "missing"}}));
    fixture.created(&agentless).await?;
    fixture.created(&workload_with("idle", &json!({"issues": []}))).await?;
    for name in ["flaps", "idle"] {
        let item = await_reason(&fixture, name, "NeedsHuman").await?;
        assert_eq!(item.status.map(|status| status.attempts.len()), Some(1), "{name}");
    }
    let (flaps, idle) = (
        fixture.workloads().get("flaps").await?,
        fixture.workloads().get("idle").await?,
    );
    let item = work_item_of(&fixture, "flaps").await?;
    never("something is deleted, or recorded again", QUIET, async || {
        let now = fixture.workloads().get("flaps").await?;
        let same = now.uid() == flaps.uid() && now.metadata.deletion_timestamp.is_none();
        let remembered = work_item_of(&fixture, "flaps").await?;
        Ok((!same || remembered.resource_version() != item.resource_version()).then_some((now, remembered)))
    })
    .await?;
    assert_eq!(
        fixture.workloads().get("idle").await?.resource_version(),
        idle.resource_version()
    );
    assert_eq!(fixture.events_with_reason("flaps", "RetryGivenUp").await?.len(), 1);
    // Others are retried as before.
    let first = fail_new(&fixture, "wl").await?;
    fixture.await_successor(&first).await?;
    Ok(())
}

#[tokio::test]
async fn a_failed_workload_that_lost_its_children_runs_again_without_a_retry() -> anyhow::Result<()> {
    let fixture = start(
        "childless",
        three(json!({"backoff": {"initial": "2s", "factor": 1, "max": "2s"}})),
    )
    .await?;
    let first = fail_new(&fixture, "wl").await?;
    fixture.await_workload_phase("wl", "Failed").await?;
    fixture
        .agentic_tasks()
        .delete("wl-code-7", &DeleteParams::default())
        .await?;
    // Foreman runs it again itself (F9), before its time is up.
    let again = |wl: &Workload| wl.phase() == "Dispatched";
    let running = await_object(&fixture.workloads(), "wl", "runs again", again).await?;
    ensure!(running.uid() == first.uid());
    never("it is deleted", QUIET, async || {
        let now = fixture.workloads().get_opt("wl").await?;
        Ok(now.is_none_or(|now| now.uid() != first.uid()).then_some(()))
    })
    .await?;
    // That run counts like any other.
    fixture.end("wl", stuck()).await?;
    let next = fixture.await_successor(&first).await?;
    ensure!(
        attempt_number(&next) == Some("2") || attempt_number(&next) == Some("3"),
        "{:?}",
        attempt_number(&next)
    );
    Ok(())
}

#[tokio::test]
async fn a_workload_that_is_changed_meanwhile_is_read_again() -> anyhow::Result<()> {
    let fixture = start("changed", three(json!({}))).await?;
    fixture.created(&workload("wl")).await?;
    let running = fixture.await_workload_phase("wl", "Dispatched").await?;
    let stop = tokio::sync::watch::Sender::new(false);
    let changing = async {
        let mut stopped = stop.subscribe();
        let mut pause = Duration::from_millis(20);
        for round in 0.. {
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"round": format!("{round}")}}}));
            // While it is gone the patch fails.
            let _ = fixture.workloads().patch("wl", &PatchParams::default(), &patch).await;
            tokio::select! { () = tokio::time::sleep(pause) => {} _ = stopped.changed() => break }
            // However slow the machine is, there comes a gap that is long enough.
            pause = pause * 11 / 10;
        }
    };
    let retrying = async {
        fixture.finish("wl-code-7", stuck()).await?;
        let next = fixture.await_successor(&running).await;
        stop.send_replace(true);
        next
    };
    let ((), next) = tokio::join!(changing, retrying);
    let next = next?;
    assert_eq!(attempt_number(&next), Some("2"));
    ensure!(
        next.annotations().contains_key("round"),
        "the last write of another client is kept"
    );
    fixture.await_child(&next, "code-7").await?;
    assert_eq!(fixture.runs("wl"), 2);
    Ok(())
}

/// A later Foreman may have other phases: its CRD allows them.
#[tokio::test]
async fn an_unknown_phase_is_ignored() -> anyhow::Result<()> {
    let lenient = CRDS.replace(", enum: [Planning, Planned, Dispatched, Completed, Failed]", "");
    let (cp, gate) = own(Some(&lenient)).await?;
    let fixture = start_on(cp, gate, "phases", three(json!({})), |options| options).await?;
    fixture.created(&workload("wl")).await?;
    let running = fixture.await_workload_phase("wl", "Dispatched").await?;
    // Foreman does not compute it anew.
    fixture.ns.foreman.stop().await;
    let fixture = start_on(cp, gate, "phases", three(json!({})), |options| options).await?;
    let ns = running.namespace().unwrap_or_default();
    let there = kube::Api::<Workload>::namespaced(cp.client(), &ns);
    for phase in ["Paused", "failed", ""] {
        let patch = Patch::Merge(json!({"status": {"phase": phase}}));
        there.patch_status("wl", &PatchParams::default(), &patch).await?;
        never("it is touched", Duration::from_secs(2), async || {
            let now = there.get_opt("wl").await?;
            let same = now
                .as_ref()
                .is_some_and(|now| now.uid() == running.uid() && now.phase() == phase);
            Ok((!same).then_some(now))
        })
        .await?;
    }
    let first = fail_new(&fixture, "wl").await?;
    fixture.await_successor(&first).await?;
    Ok(())
}

/// Foreman is not installed, installed in an unknown version, in the known one, uninstalled, and installed again.
#[tokio::test]
async fn foreman_is_installed_and_uninstalled_in_any_version() -> anyhow::Result<()> {
    let (cp, gate) = own(None).await?;
    let other = CRDS.replace("- name: v1alpha1\n", "- name: v9\n");
    cp.install_crds(&other).await?;
    let ns = cp.namespace("strange").await?;
    let spec = json!({"retry": quick(three(json!({})))});
    ns.apply_policy("retry", &spec).await?;
    let strange = workload("wl").to_string().replace("/v1alpha1", "/v9");
    ns.apply_yaml(&strange).await?;
    let failed = [
        "patch",
        "workloads.v9.foreman.llmkube.dev",
        "wl",
        "--subresource=status",
        "--type=merge",
        "-p",
        FAILED,
    ];
    ns.kubectl(failed).await?.stdout_ok()?;
    never("taskgate acts or ends", QUIET, async || {
        let kept = ns
            .kubectl(["get", "workloads.v9.foreman.llmkube.dev", "wl", "-oname"])
            .await?;
        Ok((kept.stdout_ok().is_err() || !gate.process().is_running()).then_some(()))
    })
    .await?;
    ns.kubectl(["delete", "workloads.v9.foreman.llmkube.dev", "wl"])
        .await?
        .stdout_ok()?;

    for round in 0..2 {
        remove(cp).await?;
        cp.install_crds(CRDS).await?;
        cp.controller_manager().restart().await?;
        let fixture = start_on(cp, gate, "known", three(json!({})), |options| options).await?;
        let first = fail_new(&fixture, "wl").await?;
        let next = fixture.await_successor(&first).await?;
        assert_eq!(attempt_number(&next), Some("2"), "round {round}");
        fixture.ns.foreman.stop().await;
    }
    Ok(())
}

const FAILED: &str = r#"{"status": {"phase": "Failed"}}"#;

async fn remove(cp: &ControlPlane) -> anyhow::Result<()> {
    for crd in ["workloads", "agentictasks", "agents"] {
        let name = format!("{crd}.foreman.llmkube.dev");
        cp.kubectl(["delete", "crd", &name, "--timeout=60s"])
            .await?
            .stdout_ok()?;
    }
    Ok(())
}

/// A control plane of the test's own, with these CRDs beside Kelos'.
async fn own(crds: Option<&str>) -> anyhow::Result<(&'static ControlPlane, &'static Gate)> {
    let mut cp = ControlPlane::builder().crds(kelos_standin::CRDS);
    if let Some(crds) = crds {
        cp = cp.crds(crds);
    }
    let cp: &'static ControlPlane = Box::leak(Box::new(cp.start().await?));
    let gate = Gate::start(cp).await?;
    Ok((cp, Box::leak(Box::new(gate))))
}

/// The namespace is being deleted: all is deleted, nothing is created.
#[tokio::test]
async fn a_namespace_that_is_deleted_has_no_retries() -> anyhow::Result<()> {
    let fixture = start(
        "going",
        three(json!({"backoff": {"initial": "3s", "factor": 1, "max": "3s"}})),
    )
    .await?;
    fail_new(&fixture, "wl").await?;
    fixture.await_workload_phase("wl", "Failed").await?;
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(fixture.cp.client());
    namespaces.delete(fixture.ns.name(), &DeleteParams::default()).await?;
    await_gone(&namespaces, fixture.ns.name()).await
}

/// The same work under two names at once: its runs are counted together, and none is deleted but what failed.
#[tokio::test]
async fn two_objects_for_one_piece_of_work_share_its_count() -> anyhow::Result<()> {
    let fixture = start("shared", json!({"maxAttempts": 2})).await?;
    let same = json!({"repo": "acme/app", "issues": [7]});
    fixture.created(&workload_with("one", &same)).await?;
    fixture.created(&workload_with("two", &same)).await?;
    fixture.end("one", stuck()).await?;
    let one = await_object(&fixture.workloads(), "one", "is the second run", |wl| {
        attempt_number(wl) == Some("2")
    })
    .await?;
    fixture.end("two", stuck()).await?;
    eventually("the second object is a further run", PATIENCE, async || {
        let item = work_item_of(&fixture, "two").await?;
        let status = item.status.unwrap_or_default();
        ensure!(status.attempts.len() == 2, "{:?}", retry_condition(&status));
        Ok(())
    })
    .await?;
    let kept = fixture.workloads().get("one").await?;
    ensure!(kept.uid() == one.uid(), "the one that runs is not touched");
    let runs = fixture.runs("one") + fixture.runs("two");
    assert_eq!(
        runs, 3,
        "two of the first, one of the second, which was the third and beyond the limit"
    );
    Ok(())
}

/// A child's result is a model's output: nothing of it stops a retry.
#[tokio::test]
async fn children_of_any_shape_do_no_harm() -> anyhow::Result<()> {
    let fixture = start("shapes", three(json!({"feedback": true}))).await?;
    let odd = [
        json!({"outcome": 7}),
        json!({"modelExtra": {"findings": "none"}}),
        json!({"modelExtra": {"findings": [1, null, {"message": {}}]}}),
        json!({"error": "x".repeat(100_000)}),
    ];
    for (index, extra) in odd.into_iter().enumerate() {
        let name = format!("wl-{index}");
        fixture.created(&workload(&name)).await?;
        let mut outcome = Outcome::verdict("NO-GO");
        for (key, value) in extra.as_object().into_iter().flatten() {
            outcome = outcome.with_extra(key, value.clone());
        }
        let first = fixture.end(&name, outcome).await?;
        let next = fixture.await_successor(&first).await?;
        ensure!(
            next.spec.intent.chars().count() <= 2100,
            "{} characters",
            next.spec.intent.chars().count()
        );
    }
    // A child without a status, and without an owner.
    fixture.created(&workload("wl")).await?;
    fixture.await_workload_phase("wl", "Dispatched").await?;
    let stray = json!({
        "apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "AgenticTask",
        "metadata": {"name": "stray", "labels": {"foreman.llmkube.dev/workload": "other"}},
        "spec": {"kind": "freeform", "payload": {}},
    });
    fixture.created(&stray).await?;
    let first = fixture.end("wl", stuck()).await?;
    fixture.await_successor(&first).await?;
    let stray: AgenticTask = fixture.agentic_tasks().get("stray").await?;
    ensure!(stray.metadata.deletion_timestamp.is_none());
    Ok(())
}

/// A record that taskgate cannot have written, although it is written as taskgate: nothing is created, nothing deleted.
#[tokio::test]
async fn a_forged_retry_is_dropped() -> anyhow::Result<()> {
    let fixture = start("forged", three(json!({"kinds": ["Workload"]}))).await?;
    let tasks = fixture.ns.api::<Task>();
    let live = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": "live"},
        "spec": {"type": "claude-code", "prompt": "try", "credentials": {"type": "none"}}});
    let live = tasks
        .create(&PostParams::default(), &serde_json::from_value(live)?)
        .await?;
    let items = Api::<WorkItem>::namespaced(fixture.cp.client_as_taskgate(), fixture.ns.name());
    let predecessor = |name: &str| {
        json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name, "namespace": fixture.ns.name()},
            "spec": {"type": "claude-code", "prompt": "evil", "credentials": {"type": "none"}}})
    };
    let uid = live.uid().unwrap_or_default();
    let now = jiff::Timestamp::now();
    for (name, step, uid, version, predecessor) in [
        ("odd", "Deleted", "u", None, json!({"metadata": "x"})),
        ("ghost", "Deleted", "u", None, predecessor("ghost")),
        ("other", "Deleted", "u", None, predecessor("ghost")),
        (
            "live",
            "Deleting",
            uid.as_str(),
            live.resource_version(),
            predecessor("live"),
        ),
    ] {
        let identity = ItemIdentity {
            key: format!("Task/{name}"),
            item: name.to_owned(),
            spawner: None,
        };
        let item = identity.work_item(&identity.work_item_name());
        items.create(&PostParams::default(), &item).await?;
        let transition = json!({"old": {"kind": "Task", "name": name, "uid": uid}, "resourceVersion": version.unwrap_or_default(),
            "from": 1, "to": 2, "step": step, "since": now, "requestedBy": "ann", "predecessor": predecessor});
        let status = json!({"status": {"consecutiveFailures": 0, "retry": {"attempt": 1, "transition": transition}}});
        items
            .patch_status(&item.name_any(), &PatchParams::default(), &Patch::Merge(status))
            .await?;
        let dropped = |item: &WorkItem| {
            let retry = item.status.as_ref().and_then(|status| status.retry.as_ref());
            retry.is_some_and(|retry| retry.transition.is_none())
        };
        let item = await_object(&items, &item.name_any(), "has no retry any more", dropped).await?;
        let status = item.status.unwrap_or_default();
        let (reason, why) = retry_condition(&status);
        ensure!(
            ["RetryInvalid", "PolicyGone", "NotFailedAnyMore"].contains(&reason),
            "{name}: {reason}: {why}"
        );
    }
    never("a Task is created or deleted", Duration::from_secs(3), async || {
        let there = tasks.list(&ListParams::default()).await?.items;
        let same = there.len() == 1 && there[0].uid() == live.uid() && there[0].metadata.deletion_timestamp.is_none();
        Ok((!same).then_some(there))
    })
    .await?;
    ensure!(fixture.gate.process().is_running());
    // Others are retried as before.
    let first = fail_new(&fixture, "wl").await?;
    fixture.await_successor(&first).await.map(drop)
}
